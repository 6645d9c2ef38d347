"""normflows, with plain networks in its couplings and no unconditional spline.

Masked autoregressive layers stand in `Reverse`, so that the density is the cheap direction as everywhere else.
"""

from __future__ import annotations

import warnings

import normflows as nf
import torch
from normflows.flows.neural_spline.autoregressive import MaskedPiecewiseRationalQuadraticAutoregressive
from normflows.flows.neural_spline.coupling import PiecewiseRationalQuadraticCoupling
from torch import Tensor

from benchmarks.speed.cases import BINS, BOUND, Case, Unavailable
from benchmarks.speed.libraries.torch_model import Conditioner, TorchModel, halves

warnings.filterwarnings("ignore", message="Inputs to the softmax are not scaled down")


def build(case: Case) -> TorchModel:
    d, flows = case.features, []
    made = {"num_blocks": len(case.hidden) - 1, "use_residual_blocks": False}
    for k in range(case.layers):
        if case.family == "affine_coupling":
            network = nf.nets.MLP([d // 2, *case.hidden, d], init_zeros=True)  # as in its examples
            flows += [nf.flows.AffineCouplingBlock(network), nf.flows.Permute(d, mode="swap")]
        elif case.family == "spline_coupling":
            spline = PiecewiseRationalQuadraticCoupling(
                mask=torch.tensor([int(not passed) for passed in halves(d, k)]),
                transform_net_create_fn=lambda inputs, outputs: Conditioner(inputs, outputs, case.hidden),
                num_bins=BINS,
                tails="linear",
                tail_bound=BOUND,
            )
            flows += [nf.flows.Reverse(spline)]
        elif case.family == "affine_autoregressive":
            layer = nf.flows.MaskedAffineAutoregressive(d, case.hidden[0], **made)
            flows += [nf.flows.Reverse(layer), nf.flows.Permute(d, mode="swap")]
        elif case.family == "spline_autoregressive":
            layer = MaskedPiecewiseRationalQuadraticAutoregressive(
                d, case.hidden[0], num_bins=BINS, tails="linear", tail_bound=BOUND, **made
            )
            flows += [nf.flows.Reverse(layer), nf.flows.Permute(d, mode="swap")]
        elif case.family == "planar":
            flows += [nf.flows.Planar((d,))]
        else:
            raise Unavailable("has no continuous flow")
    flow = nf.NormalizingFlow(nf.distributions.DiagGaussian(d, trainable=False), flows)

    def sample(n: int) -> Tensor:
        return flow.sample(n)[0]

    return TorchModel(
        case,
        flow,
        log_prob=None if case.family == "planar" else flow.log_prob,
        sample=sample,
        rsample_and_log_prob=flow.sample,
    )
