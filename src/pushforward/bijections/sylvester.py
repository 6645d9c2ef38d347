"""Sylvester layers."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from pushforward.bijections.base import Bijection
from pushforward.bijections.planar import solve_tanh
from pushforward.nn import Parameters
from pushforward.numerics import multiply, orthonormal, positive, reflections

Kind = Literal["orthogonal", "householder", "triangular"]


class Sylvester(Bijection):
    r"""x = z + Q R tanh(\tilde R Q^T z + b): m planar steps at once, along the orthonormal columns of Q.

    R and \tilde R are upper triangular with R_ii \tilde R_ii > -1, which makes the map one-to-one and onto. Along the
    columns of Q it is triangular too, so that the inverse takes m scalar roots, from the last column to the first;
    across them it is the identity. Starts at the identity.

    Args:
        features: size of the event.
        m: number of columns; by default as many as features.
        kind: how Q is made: "orthogonal", by orthonormalising the columns of a matrix; "householder", the first
            columns of a product of reflections; "triangular", the first features, not learnt.
        reflections: how many, for kind "householder"; by default m, which reach every Q, or with as many columns as
            features every Q of one sign of the determinant.
        reverse: for kind "triangular", count the features from the last; for every other layer of a chain.
        context_features: size of the context.
        hidden_features: widths of the network that makes Q, the triangles and b from the context.

    Raises:
        ValueError: for an m outside 1, ..., features, an unknown kind, or an option of another kind.

    Reference:
        van den Berg et al., Sylvester Normalizing Flows for Variational Inference, 2018, arXiv 1803.05649.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> layer = Sylvester(4, m=2)
        >>> z = torch.randn(5, 4)
        >>> z_again, _ = layer.inverse(layer(z)[0])
        >>> torch.allclose(z, z_again, atol=1e-5)
        True
    """

    cheap = "forward"

    def __init__(
        self,
        features: int,
        m: int | None = None,
        *,
        kind: Kind = "orthogonal",
        reflections: int | None = None,
        reverse: bool = False,
        context_features: int = 0,
        hidden_features: Sequence[int] = (64, 64),
    ) -> None:
        super().__init__()
        self._set_sizes(features, context_features, hidden_features)
        m = features if m is None else m
        if not 1 <= m <= features:
            raise ValueError(f"Sylvester: expected 1 <= m <= features = {features}, got {m}")
        if kind not in ("orthogonal", "householder", "triangular"):
            raise ValueError(f"Sylvester: expected kind 'orthogonal', 'householder' or 'triangular', got {kind!r}")
        if reflections is not None and (kind != "householder" or reflections < 1):
            raise ValueError(
                f"Sylvester: expected reflections >= 1, and kind 'householder', got {reflections} for kind {kind!r}"
            )
        if reverse and kind != "triangular":
            raise ValueError(f"Sylvester: expected reverse=True for kind 'triangular' alone, got kind {kind!r}")
        self.m = m
        self.kind = kind
        self.reflections = reflections
        self.reverse = reverse
        # One matrix holds both triangles: R above the diagonal, the other transposed below, and on the diagonal what
        # makes the product of theirs. A sign may move between the two, so that the other's diagonal is positive.
        start = [torch.randn(m, m).tril(-1) / m**0.5, torch.zeros(m), torch.zeros(m)]
        if kind == "orthogonal":
            start.append(torch.randn(features, m))
        elif kind == "householder":
            start.append(torch.randn(m if reflections is None else reflections, features))
        self.params = Parameters(start, context_features, hidden_features)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        q, r, r_tilde, gain, b = self._factors(context)
        t = torch.tanh(multiply(r_tilde, multiply(q.mT, z)) + b)
        return z + multiply(q, multiply(r, t)), _log_slope(gain, t).sum(-1)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        q, r, r_tilde, gain, b = self._factors(context)
        y = multiply(q.mT, x)
        us: list[Tensor] = []
        ts: list[Tensor] = []
        for i in reversed(range(self.m)):
            y_i, b_i = y[..., i], b[..., i]
            if ts:
                y_i = y_i - (r[..., i, i + 1 :] * torch.stack(ts, dim=-1)).sum(-1)
                b_i = b_i + (r_tilde[..., i, i + 1 :] * torch.stack(us, dim=-1)).sum(-1)
            # a = (r_tilde u + b)_i
            t_i = torch.tanh(solve_tanh(gain[..., i], r_tilde[..., i, i] * y_i + b_i))
            ts.insert(0, t_i)
            us.insert(0, y_i - r[..., i, i] * t_i)
        t = torch.stack(ts, dim=-1)
        return x - multiply(q, multiply(r, t)), -_log_slope(gain, t).sum(-1)

    def _factors(self, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Q, R, the other triangle, 1 + the product of their diagonals, and b."""
        matrix, scale, b, *frame = self.params(context)
        scale, gain = positive(scale), positive(matrix.diagonal(dim1=-2, dim2=-1))
        r = matrix.triu(1) + torch.diag_embed((gain - 1) / scale)
        r_tilde = matrix.tril(-1).mT + torch.diag_embed(scale)
        q = torch.eye(self.features, self.m, dtype=b.dtype, device=b.device)
        if self.kind == "orthogonal":
            q = orthonormal(frame[0])
        elif self.kind == "householder":
            u, s = reflections(frame[0])
            q = q - u.mT @ s[..., : self.m]
        elif self.reverse:
            q = q.flip(0)
        return q, r, r_tilde, gain, b


def _log_slope(gain: Tensor, t: Tensor) -> Tensor:
    """log(1 + (gain - 1)(1 - t^2)), as a sum in which nothing cancels."""
    squared = t.square()
    return (squared + gain * (1 - squared)).log()
