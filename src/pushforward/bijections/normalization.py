"""Shifts and scales that are read off the data."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pushforward.bijections.base import Bijection
from pushforward.nn import Parameters
from pushforward.numerics import floating


class Standardize(Bijection):
    """x = loc + scale * z, fixed: with the mean and standard deviation of a table, z is standardised.

    Args:
        loc: shape `(features,)`, in the units of x.
        scale: shape `(features,)`, positive, in the units of x.

    Example:
        >>> Standardize([1.0, 2.0], [2.0, 2.0]).inverse(torch.tensor([3.0, 2.0]))[0]
        tensor([1., 0.])
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, loc: Tensor | Sequence[float], scale: Tensor | Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("loc", floating(loc))
        self.register_buffer("scale", floating(scale))
        if self.loc.dim() != 1 or self.loc.shape != self.scale.shape:
            raise ValueError(
                "Standardize: expected loc and scale of one shape (features,), "
                f"got {tuple(self.loc.shape)} and {tuple(self.scale.shape)}"
            )
        if not bool(((self.scale > 0) & self.scale.isfinite() & self.loc.isfinite()).all()):
            raise ValueError(f"Standardize: expected finite loc and finite scale > 0, got {self.loc} and {self.scale}")
        self.event_shape = (len(self.loc),)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.loc + self.scale * z, self.scale.log().sum().expand(z.shape[:-1])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return (x - self.loc) / self.scale, -self.scale.log().sum().expand(x.shape[:-1])


class ActNorm(Bijection):
    """x = b + exp(s) z, learnable, started by `initialize` so that z has mean 0 and standard deviation 1.

    `pushforward.train` calls `initialize` on its first batch. Until then the map is the identity.

    Args:
        features: size of the event.
        context_features: size of the context.
        hidden_features: widths of the network that makes b and s from the context.

    Reference:
        Kingma and Dhariwal, Glow, 2018, arXiv 1807.03039.

    Example:
        >>> layer = ActNorm(2)
        >>> x = torch.tensor([[0.0, 4.0], [2.0, 8.0]])
        >>> layer.initialize(x)
        tensor([[-1., -1.],
                [ 1.,  1.]])
    """

    def __init__(self, features: int, *, context_features: int = 0, hidden_features: Sequence[int] = (64, 64)) -> None:
        super().__init__()
        self.features = features
        self.event_shape = (features,)
        self.context_features = context_features
        self.hidden_features = tuple(hidden_features)
        self.params = Parameters([torch.zeros(features), torch.zeros(features)], context_features, hidden_features)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        b, s = self.params(context)
        x = b + s.exp() * z
        return x, s.sum(-1).expand(x.shape[:-1])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        b, s = self.params(context)
        z = (x - b) * (-s).exp()
        return z, -s.sum(-1).expand(z.shape[:-1])

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        rows = x.reshape(-1, self.features)
        scale = rows.std(0, correction=0)
        self.params.set_(rows.mean(0), torch.where(scale > 0, scale, 1).log())
        return self.inverse(x, context)[0]
