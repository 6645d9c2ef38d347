"""torchflows, with the elementwise layers and the ActNorms that its architectures put around each layer.

The hyperbolic tangent that is fixed in its masked networks is exchanged for ReLU.
"""

from __future__ import annotations

import warnings

from torch import Tensor, nn
from torchflows.bijections.base import Bijection
from torchflows.bijections.continuous.ffjord import FFJORD
from torchflows.bijections.finite.autoregressive.architectures import (
    MAF,
    CouplingRQNSF,
    MaskedAutoregressiveRQNSF,
    RealNVP,
)
from torchflows.bijections.finite.autoregressive.conditioning.transforms import MADE
from torchflows.bijections.finite.residual.architectures import PlanarBijection
from torchflows.flows import Flow

from benchmarks.speed.cases import BINS, BOUND, TOLERANCE, Case
from benchmarks.speed.libraries.torch_model import TorchModel

warnings.filterwarnings("ignore", message="Using a non-tuple sequence")


def _bijection(case: Case) -> Bijection:
    d, sizes = (case.features,), {"n_layers": case.layers}
    spline = {"transformer_kwargs": {"boundary": BOUND, "n_bins": BINS}}
    if case.family == "planar":
        return PlanarBijection(d, **sizes)
    if case.family == "continuous":
        # Noise drawn anew at each evaluation would keep an adaptive solver from any step.
        return FFJORD(
            d,
            nn_kwargs={"hidden_size": case.hidden[0], "n_hidden_layers": len(case.hidden) - 1},
            time_derivative_kwargs={"reg_jac_coef": 0.0, "reuse_noise": True},
            solver="dopri5",
            atol=TOLERANCE,
            rtol=TOLERANCE,
        )
    network = {"n_hidden": case.hidden[0], "n_layers": len(case.hidden) + 1}
    if case.family == "affine_autoregressive":
        return MAF(d, conditioner_kwargs=network, **sizes)
    if case.family == "spline_autoregressive":
        return MaskedAutoregressiveRQNSF(d, conditioner_kwargs=network, **spline, **sizes)
    network["nonlinearity"] = nn.ReLU
    if case.family == "affine_coupling":
        return RealNVP(d, conditioner_kwargs=network, **sizes)
    return CouplingRQNSF(d, conditioner_kwargs=network, **spline, **sizes)


def build(case: Case) -> TorchModel:
    flow = Flow(_bijection(case))
    for made in [module for module in flow.modules() if isinstance(module, MADE)]:
        made.sequential = nn.Sequential(*(nn.ReLU() if isinstance(m, nn.Tanh) else m for m in made.sequential))
    continuous = case.family == "continuous"

    def log_prob(x: Tensor) -> Tensor:
        z, log_det = flow.bijection.forward(x)
        return flow.base_log_prob(z) + log_det

    def rsample_and_log_prob(n: int) -> tuple[Tensor, Tensor]:
        z = flow.base_sample((n,))
        x, log_det = flow.bijection.inverse(z)
        return x, flow.base_log_prob(z) - log_det

    def sample(n: int) -> Tensor:
        return flow.sample(n, no_grad=True)

    return TorchModel(
        case,
        flow,
        log_prob=None if case.family == "planar" else log_prob,
        sample=sample,
        rsample_and_log_prob=rsample_and_log_prob,
        estimates=continuous,
        remark="no gradient of the log-determinant, so that training is not the same work" if continuous else "",
        unequal=("train", "reverse_kl") if continuous else (),
    )
