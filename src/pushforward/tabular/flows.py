"""The flows that are fitted to continuous columns, by the numbers of rows and columns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pushforward.bases import StandardNormal
from pushforward.bijections import LU, Bijection, Chain, Coupling, MaskedAutoregressive
from pushforward.flow import Flow
from pushforward.nn import MLP, MaskedMLP
from pushforward.tabular.margins import heavy_columns, spline_layer, standardize, tails_of
from pushforward.transformers import RationalQuadratic

BOUND = 4.0
RACED = 9000  # rows from which it pays to compare sizes
MANY_COLUMNS = 64  # above it couplings: a layer that finds one column after the other takes too long to draw


@dataclass(frozen=True)
class Size:
    """How much a flow can hold.

    Attributes:
        layers: spline layers, each with a linear map after it; 0 for columns by themselves.
        bins: of their splines.
        hidden_features: widths of their conditioners.
        margin_bins: of the spline of each column by itself, 0 for none.
        residual: whether the hidden layers add up.
    """

    layers: int
    bins: int
    hidden_features: tuple[int, ...]
    margin_bins: int
    residual: bool = False

    def __str__(self) -> str:
        if not self.layers:
            return f"{self.margin_bins} bins"
        return f"{self.layers} layers, {self.bins} bins, width {self.hidden_features[0]}"


def sizes(rows: int, features: int, context_features: int) -> list[Size]:
    """The sizes to try, the likeliest first."""
    if features == 1 and not context_features:
        return [Size(0, 0, (), bins) for bins in ((8, 32, 128) if rows >= 5000 else (4, 16, 64)) if 10 * bins <= rows]
    if features <= 2:
        return [Size(3, 32, (64,) * 3, 32) if rows >= 5000 else Size(3, 16, (64,) * 3, 8)]
    if features > MANY_COLUMNS:
        return [Size(4, 8, (64,) * 2, 8) if rows < 5000 else Size(6, 8, (128,) * 2, 16)]
    if rows < 5000:
        return [Size(2, 8, (64,) * 3, 8, True)]
    options = [Size(3, bins, (width,) * 5, 16, True) for bins, width in ((8, 128), (16, 128), (8, 64))]
    return options if rows >= RACED else options[:1]


def prepare(x: Tensor, weights: Tensor) -> Chain:
    """The fixed map to columns of unit scale, their heavy tails removed, from rows in float64."""
    heavy = heavy_columns(x, weights)
    scale = standardize(x, weights, heavy)
    return Chain(tails_of(scale.inverse(x)[0], weights, heavy), scale).requires_grad_(False)


def build(z: Tensor, weights: Tensor, context_features: int, size: Size) -> Flow:
    """A new flow of prepared rows; its random start is torch's.

    Args:
        z: rows that `prepare` made, `(n, features)`.
        weights: how often each row counts, `(n,)`.
        context_features: size of the context.
        size: how much it can hold.
    """
    features = z.shape[1]
    layers: list[Bijection] = []
    for k in range(size.layers):
        layers += [_layer(features, context_features, size, k), LU(features)]
    if size.margin_bins:
        layers.append(spline_layer(z, weights, size.margin_bins, min_bin=1e-4 if size.layers else 1e-6))
    for layer in layers:
        for module in layer.modules():
            if isinstance(module, MLP | MaskedMLP):
                module.spread_(3.0 if features <= 2 else 1.0)
    return Flow(Chain(*layers), StandardNormal(features))


def _layer(features: int, context_features: int, size: Size, k: int) -> Bijection:
    spline = RationalQuadratic(size.bins, BOUND).inv
    if features > MANY_COLUMNS:
        mask = [(i + k) % 2 == 0 for i in range(features)]
        return Coupling(mask, spline, context_features=context_features, hidden_features=size.hidden_features)
    return MaskedAutoregressive(
        spline,
        features,
        context_features=context_features,
        hidden_features=size.hidden_features,
        order=range(features) if k % 2 == 0 else range(features - 1, -1, -1),
        residual=size.residual,
    )


def joined(inner: Flow, outer: Bijection) -> Flow:
    """The flow of rows in their own units, float64."""
    assert isinstance(inner.bijection, Chain)
    return Flow(Chain(*inner.bijection.layers, outer), inner.base).double()
