"""Mixtures about components whose places are known, to be refined."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pushforward.bases.base import Base
from pushforward.bases.normal import LOG_SQRT_2PI
from pushforward.nn import Parameters


class LocatedMixture(Base):
    r"""$p(z) = \sum_k w_k N(z; m_k + L_k \delta_k, L_k e^{2 S_k} L_k^T)$: full covariances $L_k L_k^T$, given.

    Learnable are the weights, the shifts $\delta_k$ in units of each component's own scale, and the diagonal
    log-scales $S_k$, so that one learning rate fits wide and narrow components.

    Args:
        loc: $m_k$, shape `(components, features)`.
        scale_tril: $L_k$, lower triangular with a positive diagonal, shape `(components, features, features)`.
        weights: $w_k$ at the start, positive, shape `(components,)`; they are normalised.
        context_features: size of the context.
        hidden_features: widths of the network that makes weights, shifts and log-scales from the context.

    Raises:
        ValueError: the shapes do not fit, or a weight or a diagonal element is not positive.

    Example:
        >>> loc, scale = torch.tensor([[0.0, 0.0], [9.0, 0.0]]), torch.eye(2).repeat(2, 1, 1)
        >>> round(LocatedMixture(loc, scale, torch.ones(2)).log_prob(torch.zeros(2)).item(), 4)  # half a normal
        -2.531
    """

    loc: Tensor
    scale_tril: Tensor
    weights: Tensor

    def __init__(
        self,
        loc: Tensor,
        scale_tril: Tensor,
        weights: Tensor,
        *,
        context_features: int = 0,
        hidden_features: Sequence[int] = (64, 64),
    ) -> None:
        super().__init__()
        components, features = loc.shape if loc.dim() == 2 else (0, 0)
        shapes = (tuple(scale_tril.shape), tuple(weights.shape))
        if not components or shapes != ((components, features, features), (components,)):
            raise ValueError(
                "LocatedMixture: expected loc (k, features), scale_tril (k, features, features) and weights (k,), got "
                f"{tuple(loc.shape)}, {shapes[0]} and {shapes[1]}"
            )
        if not bool((weights > 0).all()) or not bool((scale_tril.diagonal(dim1=-2, dim2=-1) > 0).all()):
            raise ValueError("LocatedMixture: expected positive weights and positive diagonals of scale_tril")
        self.event_shape = (features,)
        self.context_features = context_features
        self.hidden_features = tuple(hidden_features)
        self.register_buffer("loc", loc.detach().clone())
        self.register_buffer("scale_tril", scale_tril.detach().tril())
        self.register_buffer("weights", weights.detach().clone())
        start = [self.weights.log(), torch.zeros_like(loc), torch.zeros_like(loc)]
        self.params = Parameters(start, context_features, hidden_features)

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        logits, shift, log_scale = self.params(context)
        own = torch.einsum("kij,...kj->...ki", self._inverse(), z.unsqueeze(-2) - self.loc)
        y = (own - shift) * (-log_scale).exp()
        log_terms = (-0.5 * y.square() - LOG_SQRT_2PI - log_scale).sum(-1) - self._log_diagonal().sum(-1)
        log_prob: Tensor = (logits.log_softmax(-1) + log_terms).logsumexp(-1)
        return log_prob

    def sample(self, sample_shape: tuple[int, ...] = (), context: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            z = self.sample_choices(sample_shape, context)[0]
        return self._reparametrise(z, context) if torch.is_grad_enabled() else z

    def sample_choices(
        self, sample_shape: tuple[int, ...] = (), context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        logits, shift, log_scale = self.params(context)
        shape = self._shape(sample_shape, context)
        log_weights = logits.log_softmax(-1).expand(*shape[:-1], -1)
        k = draw_index(log_weights.detach())
        noise = torch.randn(shape, dtype=shift.dtype, device=shift.device)
        own = pick(shift, k) + pick(log_scale, k).exp() * noise
        z = self.loc[k] + (self.scale_tril[k] @ own.unsqueeze(-1)).squeeze(-1)
        return z, log_weights.gather(-1, k.unsqueeze(-1)).squeeze(-1)

    def _reparametrise(self, z: Tensor, context: Tensor | None) -> Tensor:
        """`z` with the gradient that keeps every F_i(z_i | z_{<i}) constant: one Newton step of value zero."""
        logits, shift, log_scale = self.params(context)
        log_weights = logits.log_softmax(-1)
        log_diagonal = self._log_diagonal() + log_scale
        inverse = self._inverse()
        columns: list[Tensor] = []
        for i in range(z.shape[-1]):
            own_before = self._own(columns, inverse[:, i])
            own = own_before + inverse[:, i, i] * (z[..., i, None] - self.loc[:, i])
            y = (own - shift[..., i]) * (-log_scale[..., i]).exp()
            weights = log_weights.softmax(-1)
            density = (weights * (-0.5 * y.square() - LOG_SQRT_2PI - log_diagonal[..., i]).exp()).sum(-1).detach()
            cdf = (weights * torch.special.ndtr(y)).sum(-1)
            attached = z[..., i] - (cdf - cdf.detach()) / density.clamp_min(torch.finfo(z.dtype).tiny)
            columns.append(attached)
            own = own_before + inverse[:, i, i] * (attached.unsqueeze(-1) - self.loc[:, i])
            y = (own - shift[..., i]) * (-log_scale[..., i]).exp()
            log_weights = log_weights - 0.5 * y.square() - log_diagonal[..., i]
        return torch.stack(columns, dim=-1)

    def _own(self, columns: list[Tensor], row: Tensor) -> Tensor | float:
        """What the coordinates so far add to the next one in each component's own units, by its row of L^-1."""
        total: Tensor | float = 0.0
        for j, column in enumerate(columns):
            total = total + row[:, j] * (column.unsqueeze(-1) - self.loc[:, j])
        return total

    def _inverse(self) -> Tensor:
        """L^-1, of the precision that the module has by now."""
        eye = torch.eye(self.loc.shape[-1], dtype=self.loc.dtype, device=self.loc.device)
        inverse: Tensor = torch.linalg.solve_triangular(self.scale_tril, eye.expand_as(self.scale_tril), upper=False)
        return inverse

    def _log_diagonal(self) -> Tensor:
        return self.scale_tril.diagonal(dim1=-2, dim2=-1).log()


class MarginalMixtures(Base):
    r"""$p(z) = \prod_i \sum_k w_{ik} N(z_i; m_{ik} + s_{ik} \delta_{ik}, s_{ik}^2 e^{2 S_{ik}})$: every coordinate has
    a mixture of its own, so that K components make $K^d$ modes.

    Learnable are the weights, the shifts $\delta$ in units of each component's own scale, and the log-scales $S$.

    Args:
        loc: $m$, shape `(features, components)`.
        scale: $s$, positive, shape `(features, components)`.
        weights: $w$ at the start, positive, shape `(features, components)`; they are normalised.
        context_features: size of the context.
        hidden_features: widths of the network that makes weights, shifts and log-scales from the context.

    Raises:
        ValueError: the shapes differ, or a scale or a weight is not positive.

    Example:
        >>> base = MarginalMixtures(torch.tensor([[-9.0, 9.0]]), torch.ones(1, 2), torch.tensor([[0.5, 0.5]]))
        >>> round(base.log_prob(torch.tensor([9.0])).item(), 4)  # half a normal
        -1.6121
    """

    loc: Tensor
    scale: Tensor
    weights: Tensor

    def __init__(
        self,
        loc: Tensor,
        scale: Tensor,
        weights: Tensor,
        *,
        context_features: int = 0,
        hidden_features: Sequence[int] = (64, 64),
    ) -> None:
        super().__init__()
        if loc.dim() != 2 or not loc.shape == scale.shape == weights.shape:
            raise ValueError(
                "MarginalMixtures: expected loc, scale and weights of one shape (features, k), got "
                f"{tuple(loc.shape)}, {tuple(scale.shape)} and {tuple(weights.shape)}"
            )
        if not bool(((scale > 0) & (weights > 0)).all()):
            raise ValueError("MarginalMixtures: expected positive scales and weights")
        self.event_shape = (len(loc),)
        self.context_features = context_features
        self.hidden_features = tuple(hidden_features)
        for name, value in (("loc", loc), ("scale", scale), ("weights", weights)):
            self.register_buffer(name, value.detach().clone())
        start = [self.weights.log(), torch.zeros_like(loc), torch.zeros_like(loc)]
        self.params = Parameters(start, context_features, hidden_features)

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        logits, loc, log_scale = self._parts(context)
        log_prob: Tensor = (logits.log_softmax(-1) + _log_normal(z, loc, log_scale)).logsumexp(-1)
        return log_prob.sum(-1)

    def sample(self, sample_shape: tuple[int, ...] = (), context: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            z = self.sample_choices(sample_shape, context)[0]
        if not torch.is_grad_enabled():
            return z
        logits, loc, log_scale = self._parts(context)
        weights = logits.softmax(-1)
        density = (weights * _log_normal(z, loc, log_scale).exp()).sum(-1).detach()
        cdf = (weights * torch.special.ndtr((z.unsqueeze(-1) - loc) * (-log_scale).exp())).sum(-1)
        # The value of z, with the gradient that keeps each distribution function constant.
        attached: Tensor = z - (cdf - cdf.detach()) / density.clamp_min(torch.finfo(z.dtype).tiny)
        return attached

    def sample_choices(
        self, sample_shape: tuple[int, ...] = (), context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        logits, loc, log_scale = self._parts(context)
        shape = self._shape(sample_shape, context)
        log_weights = logits.log_softmax(-1).expand(*shape, -1)
        k = draw_index(log_weights.detach()).unsqueeze(-1)
        noise = torch.randn(shape, dtype=loc.dtype, device=loc.device)
        chosen = [part.expand(*shape, -1).gather(-1, k).squeeze(-1) for part in (loc, log_scale, log_weights)]
        return chosen[0] + chosen[1].exp() * noise, chosen[2].sum(-1)

    def _parts(self, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        logits, shift, log_scale = self.params(context)
        return logits, self.loc + self.scale * shift, self.scale.log() + log_scale


def draw_index(log_weights: Tensor) -> Tensor:
    """Draws from the categorical distributions of normalised log-weights, `(*batch, k)` to `(*batch,)`."""
    edges = log_weights.exp().cumsum(-1)
    uniform = torch.rand(log_weights.shape[:-1], dtype=edges.dtype, device=edges.device).unsqueeze(-1)
    return (uniform >= edges[..., :-1]).sum(-1)


def pick(values: Tensor, k: Tensor) -> Tensor:
    """Of values `(*batch, k, n)` the ones of the given components, `(*sample, *batch, n)`."""
    if values.dim() == 2:
        return values[k]
    index = k[..., None, None].expand(*k.shape, 1, values.shape[-1])
    return values.expand(*k.shape, *values.shape[-2:]).gather(-2, index).squeeze(-2)


def _log_normal(z: Tensor, loc: Tensor, log_scale: Tensor) -> Tensor:
    standard = (z.unsqueeze(-1) - loc) * (-log_scale).exp()
    return -0.5 * standard.square() - log_scale - LOG_SQRT_2PI
