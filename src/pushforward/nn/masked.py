"""Masked networks: output i sees only the inputs before i."""

import itertools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pushforward.nn.mlp import spread_kinks


class MaskedMLP(nn.Module):
    """Masked multilayer perceptron (MADE): `out_features` numbers per input i, functions of inputs < i and the context.

    Hidden units are sorted by degree, the number of inputs that they may see. So the units that become known with
    input i are a contiguous block, and `sequentially` computes each unit once.

    Args:
        features: number of inputs.
        out_features: numbers per input; or how many for each input, which are then side by side in the output.
        hidden_features: widths of the hidden layers, at least one.
        context_features: size of the context, which every output may see.
        activation: class of the nonlinearity.
        residual: each hidden layer after the first adds to the one before it; they are then of equal width.
        in_sizes: how many numbers make up each input, side by side; by default one.

    Raises:
        ValueError: without a hidden layer, or for residual layers of different widths.

    References:
        Germain et al., MADE: Masked Autoencoder for Distribution Estimation, 2015, arXiv 1502.03509.
        Durkan et al., Neural Spline Flows, 2019, arXiv 1906.04032 (residual).

    Example:
        >>> MaskedMLP(3, 2, (16,))(torch.zeros(7, 3)).shape
        torch.Size([7, 3, 2])
    """

    def __init__(
        self,
        features: int,
        out_features: int | Sequence[int],
        hidden_features: Sequence[int] = (64, 64),
        *,
        context_features: int = 0,
        activation: type[nn.Module] = nn.SiLU,
        residual: bool = False,
        in_sizes: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if not hidden_features:
            raise ValueError("MaskedMLP: expected at least one hidden layer, got hidden_features=()")
        if residual and len(set(hidden_features)) > 1:
            raise ValueError(f"MaskedMLP: expected residual layers of equal width, got {tuple(hidden_features)}")
        self.features = features
        self.out_features = out_features if isinstance(out_features, int) else tuple(out_features)
        self.hidden_features = tuple(hidden_features)
        self.context_features = context_features
        self.activation = activation
        self.residual = residual
        self.in_sizes = None if in_sizes is None else tuple(in_sizes)
        self.act = activation()

        # Degree 0 (sees the context alone) is of use only if there is a context, or nothing else to be.
        lowest = 0 if context_features or features == 1 else 1
        widths = [1] * features if in_sizes is None else list(in_sizes)
        sizes = [out_features] * features if isinstance(out_features, int) else list(out_features)
        seen = torch.arange(1, features + 1).repeat_interleave(torch.tensor(widths))
        degrees = [torch.cat([torch.zeros(context_features), seen])]
        degrees += [lowest + torch.arange(n) * (features - lowest) // n for n in self.hidden_features]
        degrees.append(torch.arange(features).repeat_interleave(torch.tensor(sizes)))
        self.layers = nn.ModuleList()
        for i, (before, after) in enumerate(itertools.pairwise(degrees)):
            mask = (after[:, None] >= before).float()
            layer = nn.Linear(len(before), len(after))
            # torch starts weights for the size of the whole layer before; a unit may see but few of it.
            gain = (len(before) / mask.sum(-1).clamp_min(1.0)).sqrt()
            with torch.no_grad():
                layer.weight.mul_(gain.unsqueeze(-1))
                layer.bias.mul_(gain)
            self.layers.append(layer)
            self.register_buffer(f"mask_{i}", mask, persistent=False)
        self.rows = [slice(*ends) for ends in itertools.pairwise([0, *itertools.accumulate(sizes)])]
        # known[l][i]: how many units of hidden layer l see at most i inputs.
        self.known = [[int((d <= i).sum()) for i in range(features)] for d in degrees[1:-1]]
        # news[l][i]: how many of them see just i.
        self.news = [[b - a for a, b in itertools.pairwise([0, *known])] for known in self.known]

    def forward(self, x: Tensor, context: Tensor | None = None, parameters: Sequence[Tensor] | None = None) -> Tensor:
        """The parameters, `(*batch, features, out_features)`, of `x`, `(*batch, features)`, and `context`.

        With `in_sizes`, x is `(*batch, sum(in_sizes))`; with several `out_features`, the parameters are
        `(*batch, sum(out_features))`. `parameters` are taken in place of `masked_parameters()`.
        """
        seen = x if context is None else torch.cat([context, x], dim=-1)
        parameters = self.masked_parameters() if parameters is None else parameters
        a: Tensor | None = None
        for weight, bias in zip(parameters[:-2:2], parameters[1:-2:2], strict=True):
            a = self._hidden(seen, weight, bias, a)
            seen = self.act(a)
        out = F.linear(seen, *parameters[-2:])
        if isinstance(self.out_features, int):
            out = out.view(*out.shape[:-1], self.features, self.out_features)
        return out

    def sequentially(
        self,
        emit: Callable[[int, Tensor], Tensor],
        like: Tensor,
        context: Tensor | None = None,
        parameters: Sequence[Tensor] | None = None,
    ) -> None:
        """Evaluate one input after the other, each hidden unit once.

        Args:
            emit: called for i = 0, 1, ... with i and the parameters of input i, `(*batch, out_features)`; answers
                with the value of input i, `(*batch,)`, or `(*batch, in_sizes[i])`.
            like: any tensor of shape `(*batch, n)`, for batch shape, dtype and device.
            context: `(*batch, context_features)`.
            parameters: in place of `masked_parameters()`.
        """
        parameters = self.masked_parameters() if parameters is None else parameters
        weights, biases = parameters[::2], parameters[1::2]
        seen = [like[..., :0] for _ in self.layers]  # what each layer sees so far
        if context is not None:
            seen[0] = context
        for i in range(self.features):
            new: Tensor | None = None
            for layer, known in enumerate(self.known):
                rows = slice(known[i - 1] if i else 0, known[i])
                a = seen[layer]
                new = self._hidden(a, weights[layer][rows, : a.shape[-1]], biases[layer][rows], new)
                seen[layer + 1] = torch.cat([seen[layer + 1], self.act(new)], dim=-1)
            a = seen[-1]
            rows = self.rows[i]
            value = emit(i, F.linear(a, weights[-1][rows, : a.shape[-1]], biases[-1][rows]))
            seen[0] = torch.cat([seen[0], value.unsqueeze(-1) if self.in_sizes is None else value], dim=-1)

    @torch.no_grad()
    def start_at_(self, output: Tensor) -> None:
        """Make the network answer `output`, shape `(outputs,)`, for every input until it is trained."""
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        last.weight.zero_()
        last.bias.copy_(output)

    @torch.no_grad()
    def spread_(self, width: float) -> None:
        """Let the first hidden layer's units turn all over inputs of unit scale; see `spread_kinks`."""
        first = self.layers[0]
        assert isinstance(first, nn.Linear)
        spread_kinks(first, width, self.get_buffer("mask_0").sum(-1))

    def _hidden(self, seen: Tensor, weight: Tensor, bias: Tensor, before: Tensor | None) -> Tensor:
        """A hidden layer before its nonlinearity, given what it sees and the hidden layer before it."""
        a = F.linear(seen, weight, bias)
        return a + before if self.residual and before is not None else a

    def weights_and_biases(self) -> list[Tensor]:
        """Of each layer the weight, in which what the mask takes out is still there, and the bias."""
        layers = [layer for layer in self.layers if isinstance(layer, nn.Linear)]
        return list(itertools.chain(*[(layer.weight, layer.bias) for layer in layers]))

    def masks(self) -> list[Tensor]:
        """Of each layer's weight: 1 where it may see, else 0."""
        return [self.get_buffer(f"mask_{i}") for i in range(len(self.layers))]

    def masked_parameters(self, weights_and_biases: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Of each layer the weight, zero where it must not see, and the bias."""
        each = self.weights_and_biases() if weights_and_biases is None else weights_and_biases
        masked = [weight * mask for weight, mask in zip(each[::2], self.masks(), strict=True)]
        return list(itertools.chain(*zip(masked, each[1::2], strict=True)))
