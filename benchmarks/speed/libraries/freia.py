"""FrEIA. A `GLOWCouplingBlock` transforms both halves in turn, so that it counts for two couplings."""

from __future__ import annotations

import math

from FrEIA.framework import SequenceINN
from FrEIA.modules import GLOWCouplingBlock
from torch import Tensor, nn, randn

from benchmarks.speed.cases import Case, Unavailable
from benchmarks.speed.libraries.torch_model import TorchModel, mlp


def build(case: Case) -> TorchModel:
    if case.family != "affine_coupling":
        kinds = {
            "spline_coupling": "spline couplings",
            "affine_autoregressive": "autoregressive layers",
            "spline_autoregressive": "autoregressive layers",
            "planar": "planar layer",
            "continuous": "continuous flow",
        }
        raise Unavailable(f"has no {kinds[case.family]}")
    d = case.features
    flow = SequenceINN(d)
    for _ in range(case.layers // 2):
        flow.append(GLOWCouplingBlock, subnet_constructor=lambda n, m: _network(n, m, case))

    def base(z: Tensor) -> Tensor:
        return -0.5 * (z.square().sum(-1) + d * math.log(2 * math.pi))

    def log_prob(x: Tensor) -> Tensor:
        z, log_det = flow(x)
        return base(z) + log_det

    def sample(n: int) -> Tensor:
        return flow(randn(n, d), rev=True, jac=False)[0]

    def rsample_and_log_prob(n: int) -> tuple[Tensor, Tensor]:
        z = randn(n, d)
        x, log_det = flow(z, rev=True)
        return x, base(z) - log_det

    return TorchModel(case, flow, log_prob=log_prob, sample=sample, rsample_and_log_prob=rsample_and_log_prob)


def _network(inputs: int, outputs: int, case: Case) -> nn.Module:
    return mlp(inputs, outputs, case.hidden)
