"""Rotations and reflections."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from pushforward.bijections.base import Bijection
from pushforward.nn import Parameters
from pushforward.numerics import cayley, multiply, reflections, rotation_exponential


class Householder(Bijection):
    """x = H_k ... H_1 z, a product of reflections H = I - 2 v v^T / |v|^2; it preserves volume and distances.

    Starts at the identity, with pairs of equal reflections; with an odd number of them one is left over, and the map
    starts, and stays, a reflection.

    Args:
        features: size of the event.
        reflections: k; as many as features reach every rotation.
        context_features: size of the context.
        hidden_features: widths of the network that makes the v from the context.

    Raises:
        ValueError: for fewer than one reflection.

    Reference:
        Tomczak and Welling, Improving Variational Auto-Encoders using Householder Flow, 2016, arXiv 1611.09630.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> x, _ = Householder(3, reflections=1)(torch.tensor([2.0, 3.0, 6.0]))
        >>> round(x.norm().item(), 4)
        7.0
    """

    def __init__(
        self,
        features: int,
        reflections: int = 2,
        *,
        context_features: int = 0,
        hidden_features: Sequence[int] = (64, 64),
    ) -> None:
        super().__init__()
        self._set_sizes(features, context_features, hidden_features)
        if reflections < 1:
            raise ValueError(f"Householder: expected reflections >= 1, got {reflections}")
        self.reflections = reflections
        self.params = Parameters([paired_vectors(reflections, features)], context_features, hidden_features)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        u, s = reflections(*self.params(context))
        x = z - multiply(u.mT, multiply(s, z))
        return x, x.new_zeros(x.shape[:-1])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        u, s = reflections(*self.params(context))
        z = x - multiply(s.mT, multiply(u, x))
        return z, z.new_zeros(z.shape[:-1])


class Orthogonal(Bijection):
    """x = Q z with Q a rotation, made from a skew-symmetric matrix A.

    Starts at the identity.

    Args:
        features: size of the event.
        kind: "cayley", Q = (I + A)^-1 (I - A), which reaches the rotations that turn nothing by 180 degrees, or
            "exponential", Q = exp(A), which reaches all.
        context_features: size of the context.
        hidden_features: widths of the network that makes A from the context.

    Raises:
        ValueError: for an unknown kind.

    References:
        Helfrich et al., Orthogonal Recurrent Neural Networks with Scaled Cayley Transform, 2017, arXiv 1707.09520.
        Lezcano-Casado and Martínez-Rubio, Cheap Orthogonal Constraints in Neural Networks, 2019, arXiv 1901.08428.

    Example:
        >>> layer = Orthogonal(2, kind="exponential")
        >>> with torch.no_grad():
        ...     layer.params.set_(torch.tensor([[0.0, 0.0], [torch.pi / 2, 0.0]]))
        ...     x, _ = layer(torch.tensor([1.0, 0.0]))
        >>> x.round(decimals=4).abs()
        tensor([0., 1.])
    """

    def __init__(
        self,
        features: int,
        *,
        kind: Literal["cayley", "exponential"] = "cayley",
        context_features: int = 0,
        hidden_features: Sequence[int] = (64, 64),
    ) -> None:
        super().__init__()
        self._set_sizes(features, context_features, hidden_features)
        if kind not in ("cayley", "exponential"):
            raise ValueError(f"Orthogonal: expected kind 'cayley' or 'exponential', got {kind!r}")
        self.kind = kind
        self.params = Parameters([torch.zeros(features, features)], context_features, hidden_features)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = multiply(self._rotation(context), z)
        return x, x.new_zeros(x.shape[:-1])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z = multiply(self._rotation(context).mT, x)
        return z, z.new_zeros(z.shape[:-1])

    def _rotation(self, context: Tensor | None) -> Tensor:
        (matrix,) = self.params(context)
        return cayley(matrix) if self.kind == "cayley" else rotation_exponential(matrix)


def paired_vectors(count: int, features: int) -> Tensor:
    """Vectors of reflections, `(count, features)`, random and in equal pairs, whose product is the identity."""
    return torch.randn((count + 1) // 2, features).repeat_interleave(2, dim=0)[:count]
