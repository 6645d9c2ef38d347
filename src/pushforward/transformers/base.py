"""What a scalar transformer is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from pushforward._native import KernelMap
from pushforward.numerics import solve_increasing

Cheap = Literal["both", "forward", "inverse"]


class Transformer(nn.Module, ABC):
    """A scalar increasing map x = tau(z; h) of a domain onto itself, applied elementwise.

    To write one: set `num_params`; implement `forward` and `inverse`, each of which returns the value and the log
    derivative of the map just applied, finite for every h; say in `identity_params` which h makes the identity, if
    that is not zero. Hold no learnable state: the structure around the transformer makes h. Keep every constructor
    argument as an attribute of the same name, so that it can be saved.

    Attributes:
        num_params: how many numbers h holds per element.
        cheap: the direction or directions in closed form.
    """

    num_params: int
    cheap: Cheap = "both"

    @abstractmethod
    def forward(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """x = tau(z; h).

        Args:
            z: shape `(*,)`.
            h: shape `(*, num_params)`; its leading dimensions broadcast against `z`.

        Returns:
            x and log dx/dz, each of shape `(*,)`.
        """

    @abstractmethod
    def inverse(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """z = tau^-1(x; h) and log dz/dx; shapes as in `forward`."""

    def identity_params(self) -> Tensor:
        """The h, shape `(num_params,)`, at which the map is the identity, or nearest to it."""
        return torch.zeros(self.num_params)

    def kernel(self, inverse: bool) -> KernelMap | None:
        """What the compiled kernels are told, to evaluate this map or its inverse; `None` if they do not know it."""
        return None

    @property
    def outruns_compiler(self) -> bool:
        """Whether its compiled kernel, where those are in use, is faster than what `torch.compile` makes."""
        return False

    def params_for(self, z: Tensor) -> Tensor | None:
        """The h, `(features, num_params)`, at which `forward` makes the columns of z, `(n, features)`, about standard
        normal; `None` if there is no quick one."""
        return None

    @property
    def inv(self) -> Transformer:
        """The same map read backwards."""
        return InverseTransformer(self)


class InverseTransformer(Transformer):
    """A transformer with its two directions exchanged.

    Example:
        >>> from pushforward.transformers import Affine
        >>> h = torch.tensor([0.5, 1.0])
        >>> x, _ = Affine().inv(torch.tensor(2.0), h)
        >>> z, _ = Affine()(x, h)
        >>> round(z.item(), 6)
        2.0
    """

    def __init__(self, transformer: Transformer) -> None:
        super().__init__()
        self.transformer = transformer
        self.num_params = transformer.num_params
        exchanged: dict[Cheap, Cheap] = {"forward": "inverse", "inverse": "forward", "both": "both"}
        self.cheap = exchanged[transformer.cheap]

    def forward(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return self.transformer.inverse(z, h)

    def inverse(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return self.transformer.forward(x, h)

    def identity_params(self) -> Tensor:
        return self.transformer.identity_params()

    def kernel(self, inverse: bool) -> KernelMap | None:
        return self.transformer.kernel(not inverse)

    @property
    def inv(self) -> Transformer:
        return self.transformer


class NumericalTransformer(Transformer):
    """A transformer whose `forward` alone is in closed form; its inverse is a scalar root.

    To write one: do as for `Transformer` but leave `inverse` out, and give a `bracket` if one is known. The map must be
    onto. Put its `.inv` where the closed form should serve the direction from x to z.
    """

    cheap = "forward"

    def bracket(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor] | None:
        """Numbers below and above tau^-1(x; h), each of the shape of `x`, or `None` if none are known.

        Args:
            x: shape `(*,)`.
            h: shape `(*, num_params)`.
        """
        return None

    def inverse(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        def function(z: Tensor) -> tuple[Tensor, Tensor]:
            value, log_slope = self.forward(z, h)
            return value, log_slope.exp()

        x = x.expand(torch.broadcast_shapes(x.shape, h.shape[:-1]))
        with torch.no_grad():
            lower, upper = self.bracket(x, h) or (None, None)
        z = solve_increasing(function, x, lower, upper)
        return z, -self.forward(z, h)[1]


class LinearTails(NumericalTransformer):
    """A map that is written down on [-bound, bound], and continued beyond by its tangents at the ends, thus onto.

    Attributes:
        bound: where the tails begin.
    """

    bound: float

    @abstractmethod
    def inner(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """The value and the slope, positive, at z in [-bound, bound]; shapes as in `forward`."""

    def forward(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        nearest = z.clamp(-self.bound, self.bound)
        x, slope = self.inner(nearest, h)
        return x + slope * (z - nearest), slope.log()

    def bracket(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        B = self.bound
        low, low_slope = self.inner(torch.full_like(x, -B), h)
        high, high_slope = self.inner(torch.full_like(x, B), h)
        below, above = (x - low) / low_slope, (x - high) / high_slope
        return torch.where(above > 0, B, below.clamp(max=0) - B), torch.where(below < 0, -B, above.clamp(min=0) + B)
