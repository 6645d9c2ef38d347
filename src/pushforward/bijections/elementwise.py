"""One scalar map per feature."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pushforward.bijections.base import Bijection
from pushforward.nn import Parameters
from pushforward.transformers import Transformer


class Elementwise(Bijection):
    """x_i = tau(z_i; h_i), with h_i constants or functions of the context.

    `initialize` starts h from data where tau can do so, as the inverse of `Gaussianization` can.

    Args:
        transformer: the scalar map tau.
        features: size of the event.
        context_features: size of the context.
        hidden_features: widths of the network that makes h from the context.

    Example:
        >>> from pushforward.transformers import Affine
        >>> layer = Elementwise(Affine(), features=3)
        >>> layer(torch.ones(5, 3))[1].shape
        torch.Size([5])
    """

    def __init__(
        self,
        transformer: Transformer,
        features: int,
        *,
        context_features: int = 0,
        hidden_features: Sequence[int] = (64, 64),
    ) -> None:
        super().__init__()
        self._set_sizes(features, context_features, hidden_features)
        self.transformer = transformer
        self.cheap = transformer.cheap
        start = transformer.identity_params().expand(features, -1)
        self.params = Parameters([start], context_features, hidden_features)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, log_slope = self.transformer(z, *self.params(context))
        return x, log_slope.sum(-1)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_slope = self.transformer.inverse(x, *self.params(context))
        return z, log_slope.sum(-1)

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        constants, start = self.params.constants, self.transformer.identity_params().repeat(self.features)
        h = self.transformer.inv.params_for(x.reshape(-1, self.features))
        if h is not None and torch.equal(constants, start.to(constants)):
            self.params.set_(h)
        return self.inverse(x, context)[0]
