"""The multilayer perceptron."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pushforward._native import is_watched


class MLP(nn.Module):
    """Multilayer perceptron, `(*, in_features)` to `(*, out_features)`.

    Args:
        in_features: size of the last dimension of the input.
        out_features: size of the last dimension of the output.
        hidden_features: widths of the hidden layers; `()` is one linear map.
        activation: class of the nonlinearity between the layers.
        skip: add a linear map of the input to the output; it starts at zero.

    Example:
        >>> MLP(3, 5, hidden_features=(16,))(torch.zeros(7, 3)).shape
        torch.Size([7, 5])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden_features: Sequence[int] = (64, 64),
        *,
        activation: type[nn.Module] = nn.SiLU,
        skip: bool = False,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.hidden_features = tuple(hidden_features)
        self.activation = activation
        self.skip = skip
        widths = [in_features, *self.hidden_features]
        layers: list[nn.Module] = []
        for n, m in itertools.pairwise(widths):
            layers += [nn.Linear(n, m), activation()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], out_features))
        self.kinds = tuple(map(type, self.layers))
        self.straight = nn.Parameter(torch.zeros(out_features, in_features)) if skip else None

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out if self.straight is None else out + x @ self.straight.mT

    def weights_and_biases(self) -> list[Tensor]:
        """Of each linear map the weight and the bias; none if the network is more than these maps with the nonlinearity
        between them, or hooks watch what passes through."""
        layers = self.layers
        parts = tuple(layers._modules.values())
        if self.skip or tuple(map(type, parts)) != self.kinds or is_watched(self, layers, *parts):
            return []
        own: list[Tensor] = []
        for part in parts[::2]:
            weight, bias = part._parameters["weight"], part._parameters["bias"]
            if weight is None or bias is None:
                return []
            own += [weight, bias]
        return own

    @torch.no_grad()
    def start_at_(self, output: Tensor) -> None:
        """Make the network answer `output`, shape `(out_features,)`, for every input until it is trained."""
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        last.weight.zero_()
        last.bias.copy_(output)

    @torch.no_grad()
    def spread_(self, width: float) -> None:
        """Let the first hidden layer's units turn all over inputs of unit scale; see `spread_kinks`."""
        first = self.layers[0]
        if self.hidden_features:
            assert isinstance(first, nn.Linear)
            spread_kinks(first, width)


@torch.no_grad()
def spread_kinks(layer: nn.Linear, width: float, seen: Tensor | None = None) -> None:
    """Start a first layer with weights N(0, width^2 / inputs) and biases N(0, width^2).

    For inputs of unit scale a width of 2 lets the units turn all over the data, where torch's own start has them turn
    near the middle, and gently: functions with sharp features are then learned in fewer steps.

    Args:
        layer: the layer.
        width: scale of the weights and biases.
        seen: how many inputs each unit sees, `(out_features,)`; by default all.
    """
    inputs = layer.weight.new_tensor(layer.in_features) if seen is None else seen.to(layer.weight)
    scale = width * inputs.clamp_min(1).rsqrt()
    layer.weight.normal_().mul_(scale.unsqueeze(-1))
    layer.bias.normal_(0, width)
