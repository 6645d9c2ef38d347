"""Networks that are convex in their input."""

import itertools
import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pushforward.nn.parameters import Parameters

STEEPNESS = 3.0  # of the units at the start
VOLUME = 0.03  # sum of w at the start


class ConvexMLP(nn.Module):
    r"""$F(z) = \frac12\sum_i\alpha_i z_i^2 + l \cdot z + w \cdot u_K$, strongly convex in z for every context.

    The layers are $u_k = \varphi(P_k u_{k-1} + A_k z + b_k)$ with the softplus $\varphi$, $P_k \ge 0$, $w \ge 0$ and
    $\alpha$ above `min_curvature`. The context enters by $\alpha$, $l$, $w$ and $b_k$. Starts near $|z|^2 / 2$, with
    bends across all of a standardised z, steep but hardly heard.

    Args:
        in_features: size of z.
        hidden_features: widths of the layers, at least one, and of the network of the context.
        context_features: size of the context.
        min_curvature: lower bound of every second derivative of F along a line; between 0 and 1.

    References:
        Amos et al., Input Convex Neural Networks, 2016, arXiv 1609.07152.
        Huang et al., Convex Potential Flows, 2020, arXiv 2012.05942.

    Example:
        >>> potential = ConvexMLP(3, (16,))
        >>> potential(torch.ones(7, 3)).shape
        torch.Size([7])
        >>> gradient, hessian = potential.derivatives(torch.ones(7, 3), potential.coefficients())
        >>> gradient.shape, hessian.shape
        (torch.Size([7, 3]), torch.Size([7, 3, 3]))
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: Sequence[int] = (64, 64),
        *,
        context_features: int = 0,
        min_curvature: float = 1e-2,
    ) -> None:
        super().__init__()
        if not hidden_features:
            raise ValueError("ConvexMLP: expected at least one hidden layer, got hidden_features=()")
        if not 0 < min_curvature < 1:
            raise ValueError(f"ConvexMLP: expected 0 < min_curvature < 1, got {min_curvature}")
        self.in_features = in_features
        self.hidden_features = tuple(hidden_features)
        self.context_features = context_features
        self.min_curvature = min_curvature
        self.inputs = nn.ModuleList([nn.Linear(in_features, n, bias=False) for n in self.hidden_features])
        for layer in self.inputs:
            nn.init.normal_(cast(Tensor, layer.weight), std=STEEPNESS / math.sqrt(in_features))
        # Roots of the P_k, which start as averages, and of w: where a softplus makes small numbers, they grow slowly.
        self.between = nn.ParameterList(
            [(1 + 0.1 * torch.randn(m, n)) / math.sqrt(n) for n, m in itertools.pairwise(self.hidden_features)]
        )
        self.coefficients_of = Parameters(
            [
                torch.full((in_features,), _inverse_softplus(1 - min_curvature)),
                torch.zeros(in_features),
                torch.full((self.hidden_features[-1],), math.sqrt(VOLUME / self.hidden_features[-1])),
                *(STEEPNESS * torch.randn(n) for n in self.hidden_features),
            ],
            context_features,
            self.hidden_features,
        )

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """F(z), `(*batch,)`, of `z`, `(*batch, in_features)`, and `context`."""
        (curvature, linear, output, *biases), between = self.coefficients(context)
        u = self._preactivations(z, biases, between)[-1]
        total: Tensor = (0.5 * curvature * z.square() + linear * z).sum(-1) + (output * _softplus(u)).sum(-1)
        return total

    def coefficients(self, context: Tensor | None = None) -> tuple[list[Tensor], list[Tensor]]:
        """What does not depend on z: [alpha, l, w, b_1, ..., b_K] and [P_2, ..., P_K]."""
        curvature, linear, output, *biases = self.coefficients_of(context)
        curvature = self.min_curvature + F.softplus(curvature)
        return [curvature, linear, output.square(), *biases], [p.square() for p in self.between]

    def derivatives(self, z: Tensor, coefficients: tuple[list[Tensor], list[Tensor]]) -> tuple[Tensor, Tensor]:
        """Gradient, `(*batch, in_features)`, and Hessian, `(*batch, in_features, in_features)`, of F at `z`."""
        (curvature, linear, output, *biases), between = coefficients
        weights = [cast(Tensor, layer.weight) for layer in self.inputs]
        layers = self._preactivations(z, biases, between)
        slopes = [torch.sigmoid(a) for a in layers]
        jacobians = [weights[0]]  # of the preactivations
        for p, slope, weight in zip(between, slopes, weights[1:], strict=False):
            jacobians.append(p @ (slope.unsqueeze(-1) * jacobians[-1]) + weight)

        gradient = curvature * z + linear
        hessian = torch.diag_embed(curvature)
        sensitivity = output  # of F to u_k
        for k in range(len(layers) - 1, -1, -1):
            bend = sensitivity * slopes[k] * torch.sigmoid(-layers[k])
            hessian = hessian + (bend.unsqueeze(-1) * jacobians[k]).mT @ jacobians[k]
            sensitivity = sensitivity * slopes[k]
            gradient = gradient + sensitivity @ weights[k]
            if k:
                sensitivity = sensitivity @ between[k - 1]
        return gradient, hessian

    def _preactivations(self, z: Tensor, biases: list[Tensor], between: list[Tensor]) -> list[Tensor]:
        layers: list[Tensor] = []
        for k, (layer, bias) in enumerate(zip(self.inputs, biases, strict=True)):
            a = layer(z) + bias
            if k:
                a = a + F.linear(_softplus(layers[-1]), between[k - 1])
            layers.append(a)
        return layers


def _softplus(a: Tensor) -> Tensor:
    """To the precision of float64: torch's is linear from 20 on, which is exact to 2e-9 alone."""
    return F.softplus(a, threshold=50.0)


def _inverse_softplus(value: float) -> float:
    return math.log(math.expm1(value))
