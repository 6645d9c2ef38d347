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
from torch import Tensor, nn

from benchmarks.speed.cases import BINS, BOUND, Case, Unavailable
from benchmarks.speed.libraries.torch_model import TorchModel, halves, mlp

warnings.filterwarnings("ignore", message="Inputs to the softmax are not scaled down")


class Conditioner(nn.Module):
    """A network that is called with a context, which is None."""

    def __init__(self, inputs: int, outputs: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.network = mlp(inputs, outputs, hidden)

    def forward(self, x: Tensor, context: None = None) -> Tensor:
        return self.network(x)


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
            kind = "planar layer that can be drawn from" if case.family == "planar" else "continuous flow"
            raise Unavailable(f"has no {kind}")
    flow = Flow(CompositeTransform(transforms), StandardNormal([d]))
    return TorchModel(
        case,
        flow,
        log_prob=flow.log_prob,
        sample=flow.sample,
        rsample_and_log_prob=flow.sample_and_log_prob,
    )
