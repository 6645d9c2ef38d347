"""Maps that act along one direction: a line, or the distance from a point."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pushforward._native import planar_by_kernel
from pushforward.bijections.base import Bijection, Direction
from pushforward.nn import Parameters
from pushforward.numerics import is_traced, positive, pull_back_with_graph, solve_increasing


class Planar(Bijection):
    r"""x = z + \hat u tanh(w·z + b), with \hat u such that w·\hat u > -1.

    The constraint makes the map one-to-one and onto. Its inverse needs one number, a = w·z, the root of
    a + (w·\hat u) tanh(a + b) = w·x. Starts at the identity.

    Args:
        features: size of the event.
        context_features: size of the context.
        hidden_features: widths of the network that makes u, w and b from the context.

    Reference:
        Rezende and Mohamed, Variational Inference with Normalizing Flows, 2015, arXiv 1505.05770.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> layer = Planar(2)
        >>> z = torch.randn(5, 2)
        >>> z_again, _ = layer.inverse(layer(z)[0])
        >>> torch.allclose(z, z_again, atol=1e-5)
        True
    """

    cheap = "forward"

    def __init__(self, features: int, *, context_features: int = 0, hidden_features: Sequence[int] = (64, 64)) -> None:
        super().__init__()
        self._set_sizes(features, context_features, hidden_features)
        w = torch.randn(features) / features**0.5
        self.params = Parameters([torch.zeros(features), w, torch.zeros(())], context_features, hidden_features)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        u, w, b, wu = _constrained(*self.params(context))
        t = torch.tanh((z * w).sum(-1) + b)
        return z + u * t.unsqueeze(-1), torch.log1p(wu * (1 - t.square()))

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        u, w, b, wu = _constrained(*self.params(context))
        t = torch.tanh(solve_tanh(1 + wu, (x * w).sum(-1) + b))
        return x - u * t.unsqueeze(-1), -torch.log1p(wu * (1 - t.square()))

    @property
    def outruns_compiler(self) -> bool:
        return not self.context_features

    @staticmethod
    def fused(
        layers: Sequence[Any], direction: Direction, z: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor] | None:
        """One layer after the other; all that does not wait for z is computed for all of them at once."""
        if direction == "inverse" or any(layer.context_features for layer in layers):
            return None

        def formula(z: Tensor, *constants: Tensor) -> tuple[Tensor, Tensor]:
            u, w, b, wu = _constrained(*layers[0].params.parts(torch.stack(constants)))
            if is_traced() or z.dim() != 2 or not len(z):
                x, t = _recursion(z, u, w, b)
            else:
                x, t = _Recursion.apply(z, u, w, b)  # type: ignore[no-untyped-call]
            return x, torch.log1p(wu * (1 - t.square())).sum(-1)

        constants = [layer.params.constants for layer in layers]
        return planar_by_kernel(formula, z, constants) or formula(z, *constants)


def _recursion(z: Tensor, u: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """z after all layers, and the hyperbolic tangents, `(*batch, layers)`; u and w are `(layers, features)`."""
    tanhs = []
    for u_k, w_k, b_k in zip(u.unbind(), w.unbind(), b.unbind(), strict=True):
        t = torch.tanh((z * w_k).sum(-1) + b_k)
        z = torch.addcmul(z, t.unsqueeze(-1), u_k)
        tanhs.append(t)
    return z, torch.stack(tanhs, dim=-1)


class _Recursion(torch.autograd.Function):
    """The same for rows `(n, features)`, in place, with the gradient of many small layers in few operations."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, u: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        states = z.new_empty(len(u) + 1, *z.shape)
        tanhs = z.new_empty(len(u), len(z))
        states[0] = z
        layers = zip(states[:-1], states[1:], tanhs, u, w, b, strict=True)
        for before, after, t, u_k, w_k, b_k in layers:
            torch.addmv(b_k, before, w_k, out=t).tanh_()
            torch.addr(before, t, u_k, out=after)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(z, u, w, b, states, tanhs)
        return states[-1].clone(), tanhs.mT.contiguous()

    @staticmethod
    def backward(ctx: Any, grad_x: Tensor | None, grad_tanhs: Tensor | None) -> tuple[Tensor | None, ...]:
        z, u, w, b, states, tanhs = ctx.saved_tensors
        if torch.is_grad_enabled():  # a graph of the gradient is asked for
            return tuple(pull_back_with_graph(_recursion, (z, u, w, b), (grad_x, grad_tanhs)))
        pulls = torch.empty_like(states)  # by the states
        slopes = torch.empty_like(tanhs)  # by what goes into the tanhs
        pulls[-1] = 0 if grad_x is None else grad_x
        direct = torch.zeros_like(tanhs) if grad_tanhs is None else grad_tanhs.mT
        layers = zip(pulls[:-1], pulls[1:], slopes, direct, 1 - tanhs.square(), u, w, strict=True)
        for before, after, slope, direct_k, slope_of_tanh, u_k, w_k in reversed(list(layers)):
            torch.addmv(direct_k, after, u_k, out=slope).mul_(slope_of_tanh)
            torch.addr(after, slope, w_k, out=before)
        grad_u = (tanhs.unsqueeze(1) @ pulls[1:]).squeeze(1)
        grad_w = (slopes.unsqueeze(1) @ states[:-1]).squeeze(1)
        return pulls[0], grad_u, grad_w, slopes.sum(-1)


class Radial(Bijection):
    r"""x = z + beta (z - z0) / (alpha + r), with r = |z - z0|, alpha > 0 and beta > -alpha.

    The constraint makes the map one-to-one and onto. Its inverse needs one number, r, the positive root of the
    quadratic r^2 + (alpha + beta - |x - z0|) r = alpha |x - z0|. Starts at the identity.

    Args:
        features: size of the event.
        context_features: size of the context.
        hidden_features: widths of the network that makes z0, alpha and beta from the context.

    Reference:
        Rezende and Mohamed, Variational Inference with Normalizing Flows, 2015, arXiv 1505.05770.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> layer = Radial(2)
        >>> z = torch.randn(5, 2)
        >>> z_again, _ = layer.inverse(layer(z)[0])
        >>> torch.allclose(z, z_again, atol=1e-5)
        True
    """

    def __init__(self, features: int, *, context_features: int = 0, hidden_features: Sequence[int] = (64, 64)) -> None:
        super().__init__()
        self._set_sizes(features, context_features, hidden_features)
        start = [torch.randn(features), torch.zeros(()), torch.zeros(())]
        self.params = Parameters(start, context_features, hidden_features)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z0, alpha, gamma = self._constrained(context)
        r = _norm(z - z0)
        x = z0 + (z - z0) * ((gamma + r) / (alpha + r)).unsqueeze(-1)
        return x, self._log_det(r, alpha, gamma)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z0, alpha, gamma = self._constrained(context)
        distance = _norm(x - z0)
        p = distance - gamma
        # Of the two roots' formulas the one that adds numbers of one sign.
        larger = 0.5 * (torch.where(p >= 0, p, -p) + (p.square() + 4 * alpha * distance).sqrt())
        r = torch.where(p >= 0, larger, alpha * distance / larger)
        z = z0 + (x - z0) * ((alpha + r) / (gamma + r)).unsqueeze(-1)
        return z, -self._log_det(r, alpha, gamma)

    def _log_det(self, r: Tensor, alpha: Tensor, gamma: Tensor) -> Tensor:
        across = ((gamma + r) / (alpha + r)).log()
        along = (r * (r + 2 * alpha) + alpha * gamma).log() - 2 * (alpha + r).log()
        return (self.features - 1) * across + along

    def _constrained(self, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """z0, alpha and gamma = alpha + beta, the positive number in which nothing cancels."""
        z0, raw_alpha, raw_gamma = self.params(context)
        alpha = positive(raw_alpha)
        return z0, alpha, alpha * positive(raw_gamma)


def _constrained(u: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """u moved along w until w·u > -1 (by an ELU, which leaves u as it is where w·u >= 0), w, b and w·u."""
    raw = (w * u).sum(-1)
    wu = F.elu(raw)
    along = (wu - raw) / w.square().sum(-1).clamp_min(torch.finfo(w.dtype).tiny)
    return torch.addcmul(u, along.unsqueeze(-1), w), w, b, wu


def solve_tanh(gain: Tensor, y: Tensor) -> Tensor:
    """The root a of a + (gain - 1) tanh(a) = y, elementwise, for gain > 0, the slope at 0."""

    def function(a: Tensor) -> tuple[Tensor, Tensor]:
        t = torch.tanh(a)
        return a + (gain - 1) * t, t.square() + gain * (1 - t.square())

    # A little wider than |gain - 1|: where tanh is 1 to the last digit, the root would lie on the end of the bracket.
    y, reach = torch.broadcast_tensors(y, 1.125 * (gain - 1).abs())
    # From its inflection point, Newton's method converges for this function, in some 10 steps.
    return solve_increasing(function, y, y - reach, y + reach, start=torch.zeros_like(y), steps=32)


def _norm(v: Tensor) -> Tensor:
    """|v| over the last dimension, with the derivative 0 at 0."""
    squared = v.square().sum(-1)
    some = squared > 0
    return torch.where(some, torch.where(some, squared, 1).sqrt(), 0)
