"""What a scalar transformer is."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Transformer(nn.Module, ABC):
    """A scalar increasing map x = tau(z; h) of a domain onto itself, applied elementwise.

    To write one: set `num_params`; implement `forward` and `inverse`, each of which returns the value and the log
    derivative of the map just applied, finite for every h; say in `identity_params` which h makes the identity, if
    that is not zero. Hold no learnable state: the structure around the transformer makes h. Keep every constructor
    argument as an attribute of the same name, so that it can be saved.

    Attributes:
        num_params: how many numbers h holds per element.
    """

    num_params: int

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

    def forward(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return self.transformer.inverse(z, h)

    def inverse(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return self.transformer.forward(x, h)

    def identity_params(self) -> Tensor:
        return self.transformer.identity_params()

    @property
    def inv(self) -> Transformer:
        return self.transformer
