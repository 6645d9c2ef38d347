"""pushforward, eager."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from benchmarks.speed.cases import BINS, BOUND, TOLERANCE, Case
from benchmarks.speed.libraries.torch_model import TorchModel, adam, halves
from pushforward import (
    Chain,
    Coupling,
    Flow,
    MaskedAutoregressive,
    MaximumLikelihood,
    RationalQuadratic,
    StandardNormal,
    ffjord,
    maf,
    planar,
    real_nvp,
)
from pushforward.training import FlatParameters, gradient_function


def flow(case: Case) -> Flow:
    """The recipes, and, as `nsf` puts linear layers between, chains of splines alone."""
    d, base = case.features, StandardNormal(case.features)
    if case.family == "affine_coupling":
        return real_nvp(d, layers=case.layers, hidden_features=case.hidden, activation=nn.ReLU)
    if case.family == "affine_autoregressive":
        return maf(d, layers=case.layers, hidden_features=case.hidden, activation=nn.ReLU)
    if case.family == "spline_coupling":
        couplings = [
            Coupling(
                halves(d, k),
                RationalQuadratic(BINS, BOUND),
                hidden_features=case.hidden,
                activation=nn.ReLU,
            )
            for k in range(case.layers)
        ]
        return Flow(Chain(*couplings), base)
    if case.family == "spline_autoregressive":
        orders = [range(d), range(d - 1, -1, -1)]
        layers = [
            MaskedAutoregressive(
                RationalQuadratic(BINS, BOUND),
                d,
                hidden_features=case.hidden,
                order=orders[k % 2],
                activation=nn.ReLU,
            )
            for k in range(case.layers)
        ]
        return Flow(Chain(*layers), base)
    if case.family == "planar":
        return planar(d, layers=case.layers)
    return ffjord(
        d,
        layers=case.layers,
        hidden_features=case.hidden,
        activation=nn.Tanh,
        rtol=TOLERANCE,
        atol=TOLERANCE,
    )


def build(case: Case, *, compiled: bool = False) -> TorchModel:
    model = flow(case)

    def exact(on: bool) -> None:
        model.train(not on)

    return TorchModel(
        case,
        model,
        # looked up at each call, as `compile` may put others in their place
        log_prob=lambda x: model.log_prob(x),
        sample=lambda n: model.sample(n),
        rsample_and_log_prob=lambda n: model.rsample_and_log_prob(n),
        exact=exact,
        compile=model.compile if compiled else None,
        step=(lambda: step_of_train(model)) if compiled else None,
    )


def step_of_train(model: Flow) -> Callable[[Tensor], None]:
    """What `train` does in a step."""
    flat = FlatParameters(model.parameters())
    gradient, optimizer = gradient_function(MaximumLikelihood(model), flat), adam(flat.wholes)

    def step(x: Tensor) -> None:
        gradient(x)
        optimizer.step()

    return step
