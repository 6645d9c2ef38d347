"""zuko.

Coupling splines are `NICE` with a spline for a univariate map: the documented `NSF(passes=2)` takes two passes of a
masked network of twice the size. Where a flow is as cheap both ways, reverse KL uses the inverted flow, as zuko's
tutorials do, which saves the second pass that the log-determinant of an inverse costs.
"""

from __future__ import annotations

import zuko
from torch import Tensor, nn

from benchmarks.speed.cases import BINS, TOLERANCE, Case, Unavailable
from benchmarks.speed.libraries.torch_model import TorchModel


def build(case: Case) -> TorchModel:
    d, sizes = case.features, {"transforms": case.layers, "hidden_features": case.hidden, "activation": nn.ReLU}
    if case.family == "affine_coupling":
        return _model(case, zuko.flows.NICE(d, **sizes), cheap_inverse=True)
    if case.family == "spline_coupling":
        spline = {"univariate": zuko.transforms.MonotonicRQSTransform, "shapes": [(BINS,), (BINS,), (BINS - 1,)]}
        return _model(case, zuko.flows.NICE(d, **sizes, **spline), cheap_inverse=True)
    if case.family == "affine_autoregressive":
        return _model(case, zuko.flows.MAF(d, **sizes))
    if case.family == "spline_autoregressive":
        return _model(case, zuko.flows.NSF(d, bins=BINS, **sizes))
    if case.family == "continuous":
        return _continuous(case)
    raise Unavailable("has no planar layer")


def _model(case: Case, flow: zuko.lazy.Flow, *, cheap_inverse: bool = False) -> TorchModel:
    drawn = zuko.lazy.Flow(flow.transform.inv, flow.base) if cheap_inverse else flow

    def log_prob(x: Tensor) -> Tensor:
        return flow().log_prob(x)

    def sample(n: int) -> Tensor:
        return flow().sample((n,))

    def rsample_and_log_prob(n: int) -> tuple[Tensor, Tensor]:
        return drawn().rsample_and_log_prob((n,))

    return TorchModel(
        case,
        flow,
        log_prob=log_prob,
        sample=sample,
        rsample_and_log_prob=rsample_and_log_prob,
        score_draws=lambda x: drawn().log_prob(x),
    )


def _continuous(case: Case) -> TorchModel:
    flow = zuko.flows.CNF(
        case.features,
        hidden_features=case.hidden,
        activation=nn.Tanh,
        freqs=1,
        exact=False,
        atol=TOLERANCE,
        rtol=TOLERANCE,
    )
    model = _model(case, flow)

    def exact(on: bool) -> None:
        flow.transform.exact = on

    model.exact = exact
    model.remark = "adaptive checkpoint adjoint; the log-determinant at a hundredth of the precision"
    return model
