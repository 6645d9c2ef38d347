"""The checks find what they look for: layers and flows with one fault each."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import pushforward as pf
from pushforward.testing import CheckError, check_bijection, check_flow


@pf.register
class Scale(pf.Bijection):
    """x = exp(s) z, with nothing wrong."""

    def __init__(self, features: int = 3) -> None:
        super().__init__()
        self.event_shape = (features,)
        self.features = features
        self.s = torch.nn.Parameter(torch.zeros(features))

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = z * self.s.exp()
        return x, self.s.sum().expand(x.shape[:-1])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z = x * (-self.s).exp()
        return z, -self.s.sum().expand(z.shape[:-1])


def variant(name: str, **methods: Callable[..., tuple[Tensor, Tensor]]) -> pf.Bijection:
    cls: type[pf.Bijection] = type(name, (Scale,), {"__module__": __name__, **methods})
    return cls()


def changed(direction: str, change: Callable[[pf.Bijection, Tensor, Tensor], tuple[Tensor, Tensor]]) -> Any:
    """A method that changes the results of `Scale`'s."""

    def method(self: Scale, value: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return change(self, *getattr(Scale, direction)(self, value, context))

    return {direction: method}


FAULTS: dict[str, tuple[pf.Bijection, str]] = {
    "half the log-determinant": (
        variant("Half", **changed("forward", lambda self, x, log_det: (x, 0.5 * log_det))),
        "forward log-det against autodiff",
    ),
    "a log-determinant of the wrong sign": (
        variant("Sign", **changed("inverse", lambda self, z, log_det: (z, -log_det))),
        "inverse log-det against autodiff",
    ),
    "an inverse of eleven digits": (
        variant("Digits", **changed("inverse", lambda self, z, log_det: (z * (1 + 1e-11), log_det))),
        "inverse after forward",
    ),
    "an inverse that clamps": (
        variant("Clamp", **changed("inverse", lambda self, z, log_det: (z.clamp(-20, 20), log_det))),
        "inverse after forward at |z| = 30",
    ),
    "a dtype of its own": (
        variant("Single", **changed("forward", lambda self, x, log_det: (x.double(), log_det))),
        "dtypes of float32",
    ),
    "a device of its own": (
        variant("Home", **changed("forward", lambda self, x, log_det: (x + torch.zeros(3), log_det))),
        "device",
    ),
    "a batch of one dimension alone": (
        variant("Rows", **changed("forward", lambda self, x, log_det: (x.reshape(-1, 3), log_det))),
        "shapes of a batch (5, 7)",
    ),
    "a gradient that is cut": (
        variant("Cut", **changed("forward", lambda self, x, log_det: (x, log_det.detach()))),
        "forward gradcheck",
    ),
    "a graph that breaks": (
        variant("Break", **changed("forward", lambda self, x, log_det: (x if x.sum() > 9 else x + 0, log_det))),
        "full-graph compile",
    ),
}


def test_a_sound_layer_passes() -> None:
    report = check_bijection(Scale())
    assert report.passed
    assert str(report).startswith("Scale: passed")


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_and_named(name: str) -> None:
    layer, check = FAULTS[name]
    costly = {"derivatives": "gradcheck" in check, "compiles": "compile" in check}
    with pytest.raises(CheckError, match=rf"^{type(layer).__name__}: FAILED(.|\n)*FAILED {re.escape(check)}"):
        check_bijection(layer, saves=False, **costly)


def test_a_context_without_effect_is_found() -> None:
    layer = pf.Chain(Scale(), pf.Planar(3, context_features=2))
    report = check_bijection(layer, saves=False, derivatives=False, compiles=False, perturb=0.0, raises=False)
    assert [c.name for c in report.checks if not c.passed] == ["the context has an effect"]


def test_numbers_that_are_not_kept_are_found() -> None:
    """In no parameter and no buffer, so that neither state_dict nor a file has them."""

    def forward(self: Scale, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, log_det = Scale.forward(self, z, context)
        return x + self.lost, log_det

    layer = pf.register(type("Lost", (Scale,), {"__module__": __name__, "forward": forward, "lost": 0.0}))()
    layer.lost = 2.0
    report = check_bijection(layer, derivatives=False, compiles=False, raises=False)
    assert "save and load" in [c.name for c in report.checks if not c.passed]


def test_a_map_that_is_not_onto_is_found() -> None:
    """Its density does not integrate to one."""

    def forward(self: Scale, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z.tanh(), (1 - z.tanh().square()).log().sum(-1)

    def inverse(self: Scale, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z = x.clamp(-0.99, 0.99).atanh()
        return z, -(1 - z.tanh().square()).log().sum(-1)

    cls: type[Scale] = type("Narrow", (Scale,), {"__module__": __name__, "forward": forward, "inverse": inverse})
    report = check_flow(pf.Flow(cls(1), pf.StandardNormal(1)), compiles=False, raises=False)
    assert "integral of the density - 1" in [c.name for c in report.checks if not c.passed]
