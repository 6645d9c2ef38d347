"""nflows, with plain networks in its couplings and no unconditional spline."""

from __future__ import annotations

import warnings

from nflows.distributions import StandardNormal
from nflows.flows import Flow
from nflows.transforms import (
    AffineCouplingTransform,
    CompositeTransform,
    MaskedAffineAutoregressiveTransform,
    MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
    PiecewiseRationalQuadraticCouplingTransform,
    ReversePermutation,
    Transform,
)

from benchmarks.speed.cases import BINS, BOUND, Case, Unavailable
from benchmarks.speed.libraries.torch_model import Conditioner, TorchModel, halves

warnings.filterwarnings("ignore", message="Inputs to the softmax are not scaled down")


def build(case: Case) -> TorchModel:
    d = case.features
    transforms: list[Transform] = []
    made = {"hidden_features": case.hidden[-1] if case.hidden else 0, "use_residual_blocks": False}
    made["num_blocks"] = len(case.hidden) - 1
    spline = {"num_bins": BINS, "tails": "linear", "tail_bound": BOUND}
    for k in range(case.layers):
        mask = [int(not passed) for passed in halves(d, k)]

        def network(inputs: int, outputs: int) -> Conditioner:
            return Conditioner(inputs, outputs, case.hidden)

        if case.family == "affine_coupling":
            transforms += [AffineCouplingTransform(mask, network)]
        elif case.family == "spline_coupling":
            transforms += [PiecewiseRationalQuadraticCouplingTransform(mask, network, **spline)]
        elif case.family == "affine_autoregressive":
            transforms += [MaskedAffineAutoregressiveTransform(d, **made), ReversePermutation(d)]
        elif case.family == "spline_autoregressive":
            layer = MaskedPiecewiseRationalQuadraticAutoregressiveTransform(d, **made, **spline)
            transforms += [layer, ReversePermutation(d)]
        else:
            raise Unavailable("has no planar layer" if case.family == "planar" else "has no continuous flow")
    flow = Flow(CompositeTransform(transforms), StandardNormal([d]))
    return TorchModel(
        case,
        flow,
        log_prob=flow.log_prob,
        sample=flow.sample,
        rsample_and_log_prob=flow.sample_and_log_prob,
    )
