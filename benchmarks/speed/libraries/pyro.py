"""Pyro's transforms.

Autoregressive layers stand in the distribution by their `.inv`, so that the density is the cheap direction. Splines are
the quadratic ones, without the unconditional spline. The transforms remember their last input and output: what they
remember is dropped before each call, as it would have to be in training, and as otherwise a density of the same points
would not be computed again.
"""

from __future__ import annotations

import pyro.distributions as dist
import torch
from pyro.distributions import transforms as T
from pyro.nn import AutoRegressiveNN, DenseNN
from torch import Tensor, nn

from benchmarks.speed.cases import BINS, BOUND, Case, Unavailable
from benchmarks.speed.libraries.torch_model import TorchModel

NONE = (None, None)


def build(case: Case) -> TorchModel:
    d = case.features
    layers = [part for k in range(case.layers) for part in _layer(case, k)]
    inverted = case.family in ("affine_autoregressive", "spline_autoregressive")
    base = dist.Normal(torch.zeros(d), torch.ones(d)).to_event(1)
    flow = dist.TransformedDistribution(base, [layer.inv if inverted else layer for layer in layers])

    def forget() -> None:
        for layer in layers:
            layer._cached_x_y = NONE

    def log_prob(x: Tensor) -> Tensor:
        forget()
        return flow.log_prob(x)

    def sample(n: int) -> Tensor:
        forget()
        return flow.sample((n,))

    def rsample_and_log_prob(n: int) -> tuple[Tensor, Tensor]:
        forget()
        x = flow.rsample((n,))
        return x, flow.log_prob(x)

    return TorchModel(
        case,
        nn.ModuleList([layer for layer in layers if isinstance(layer, nn.Module)]),
        log_prob=None if case.family == "planar" else log_prob,
        sample=sample,
        rsample_and_log_prob=rsample_and_log_prob,
    )


def _layer(case: Case, k: int) -> list[torch.distributions.Transform]:
    d, hidden = case.features, list(case.hidden)
    half, bins = d // 2, [BINS, BINS, BINS - 1]
    order = torch.arange(d)
    flipped = order.flip(0)
    if case.family == "affine_coupling":
        return [T.AffineCoupling(half, DenseNN(half, hidden, [d - half, d - half])), T.Permute(flipped)]
    if case.family == "spline_coupling":
        network = DenseNN(half, hidden, [(d - half) * n for n in bins])
        layer = T.SplineCoupling(d, half, network, BINS, BOUND, order="quadratic", identity=True)
        layer.lower_spline.requires_grad_(False)  # not used
        return [layer, T.Permute(flipped)]
    alternating = flipped if k % 2 else order
    if case.family == "affine_autoregressive":
        return [T.AffineAutoregressive(AutoRegressiveNN(d, hidden, permutation=alternating))]
    if case.family == "spline_autoregressive":
        network = AutoRegressiveNN(d, hidden, param_dims=bins, permutation=alternating)
        return [T.SplineAutoregressive(d, network, BINS, BOUND, order="quadratic")]
    if case.family == "planar":
        return [T.Planar(d)]
    raise Unavailable("has no continuous flow")
