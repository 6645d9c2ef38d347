"""Conditioners of angles."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pushforward.nn.mlp import MLP


class PeriodicMLP(nn.Module):
    """Multilayer perceptron that sees its first inputs as points of the circle, by sine and cosine.

    Args:
        angles: number of inputs, the first ones, that are periodic.
        in_features: number of all inputs.
        out_features: size of the last dimension of the output.
        hidden_features: widths of the hidden layers.
        bound: the period is 2 bound.
        activation: class of the nonlinearity between the layers.

    Example:
        >>> network = PeriodicMLP(2, 3, 5, hidden_features=(16,))
        >>> x = torch.tensor([math.pi, 0.5, 7.0])
        >>> torch.allclose(network(x), network(torch.tensor([-math.pi, 0.5, 7.0])), atol=1e-5)
        True
    """

    def __init__(
        self,
        angles: int,
        in_features: int,
        out_features: int,
        hidden_features: Sequence[int] = (64, 64),
        *,
        bound: float = math.pi,
        activation: type[nn.Module] = nn.SiLU,
    ) -> None:
        super().__init__()
        if not 0 <= angles <= in_features:
            raise ValueError(f"PeriodicMLP: expected 0 <= angles <= in_features = {in_features}, got {angles}")
        if not bound > 0:
            raise ValueError(f"PeriodicMLP: expected bound > 0, got {bound}")
        self.angles = angles
        self.in_features = in_features
        self.out_features = out_features
        self.hidden_features = tuple(hidden_features)
        self.bound = bound
        self.activation = activation
        self.network = MLP(in_features + angles, out_features, hidden_features, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        theta = (math.pi / self.bound) * x[..., : self.angles]
        out: Tensor = self.network(torch.cat([theta.sin(), theta.cos(), x[..., self.angles :]], dim=-1))
        return out

    def start_at_(self, output: Tensor) -> None:
        """Make the network answer `output`, shape `(out_features,)`, for every input until it is trained."""
        self.network.start_at_(output)
