"""`Flow.compile`: the same numbers, of what it is said to compile."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor

import pushforward as pf
from pushforward._native import without_kernels
from pushforward.training import gradient_function

F64 = torch.float64
BACKENDS = ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)]
FLOWS = {
    "coupling": lambda: pf.real_nvp(3, 2, layers=2, hidden_features=(8,)),
    "autoregressive": lambda: pf.maf(3, 2, layers=2, hidden_features=(8,)),
    "planar": lambda: pf.planar(3, 2, layers=2, hidden_features=(8,)),
    "sylvester": lambda: pf.sylvester(3, 2, layers=2, hidden_features=(8,)),
}


def _pair(name: str, backend: str) -> tuple[pf.Flow, pf.Flow]:
    torch.manual_seed(0)
    flow = FLOWS[name]().double()
    for p in flow.parameters():
        p.data.add_(0.2 * torch.randn_like(p))
    compiled = copy.deepcopy(flow)
    with without_kernels():  # for which all is compiled
        compiled.compile(backend=backend)
    return flow, compiled


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", FLOWS)
def test_numbers(name: str, backend: str) -> None:
    flows = _pair(name, backend)
    x, context = torch.randn(5, 3, dtype=F64), torch.randn(5, 2, dtype=F64)
    results: list[list[Tensor]] = []
    for flow in flows:
        torch.manual_seed(1)
        draws, log_q = flow.rsample_and_log_prob(4, context)
        loss = flow.log_prob(x, context).sum() + (draws.sin().sum(-1) * log_q).sum()
        results.append([flow.log_prob(x, context), draws, log_q, *torch.autograd.grad(loss, list(flow.parameters()))])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", FLOWS)
def test_gradient_of_a_step(name: str, backend: str) -> None:
    """Also of flows of which nothing but the draws is compiled: their density solves equations."""
    flows = _pair(name, backend)
    assert (flows[1].compiled_with is None) == (name in ("planar", "sylvester"))
    next(flows[1].parameters()).requires_grad_(False)
    x, context, weights = torch.randn(5, 3, dtype=F64), torch.randn(5, 2, dtype=F64), torch.rand(5, dtype=F64)
    losses = [gradient_function(pf.MaximumLikelihood(flow))(x, context, weights=weights) for flow in flows]
    torch.testing.assert_close(*losses, rtol=1e-12, atol=1e-12)
    (_, *expected), (first, *found) = ([p.grad for p in flow.parameters()] for flow in flows)
    assert first is None
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_training_is_the_same() -> None:
    flows = _pair("autoregressive", "aot_eager")
    x, context = torch.randn(200, 3, dtype=F64), torch.randn(200, 2, dtype=F64)
    results = [
        pf.train(pf.MaximumLikelihood(flow), (x, context), max_steps=20, batch_size=50, validation=0.2)
        for flow in flows
    ]
    torch.testing.assert_close(results[0].losses, results[1].losses, rtol=1e-9, atol=1e-9)
    losses = [pf.ReverseKL(flow, lambda x: -x.square().sum(-1), 8, gradient="path")(context[:3]) for flow in flows]
    assert losses[1].isfinite()


def test_copies_are_not_compiled(tmp_path: Path) -> None:
    _, compiled = _pair("coupling", "aot_eager")
    assert compiled.compiled_with == {"backend": "aot_eager"}
    pf.save(compiled, tmp_path / "flow")
    for other in (copy.deepcopy(compiled), pickle.loads(pickle.dumps(compiled)), pf.load(tmp_path / "flow")):
        assert other.compiled_with is None
        assert other._compiled_call_impl is None and other.bijection._compiled_call_impl is None


def test_only_the_cheap_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, log_prob, draws in (("coupling", True, True), ("autoregressive", True, False), ("planar", False, True)):
        flow = _pair(name, "eager")[1]
        assert (flow._compiled_call_impl is not None, flow.bijection._compiled_call_impl is not None) == (
            log_prob,
            draws,
        )


@pytest.mark.skipif(pf.native_status().instruction_set is None, reason="no compiled kernels here")
def test_what_kernels_do_better_is_left_to_them() -> None:
    nets = {"layers": 1, "hidden_features": (8,)}
    for recipe, left in ((pf.maf, True), (pf.nsf, True), (pf.real_nvp, True), (pf.naf, False)):
        flow = recipe(3, **nets)
        flow.compile(backend="eager")
        assert (flow.compiled_with is None) == left


def test_without_a_compiler() -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("there is none")

    flow = FLOWS["coupling"]()
    with (
        without_kernels(),
        pytest.warns(UserWarning, match="no compiler works here, so nothing is compiled: .*there is none"),
    ):
        flow.compile(backend=broken)
    assert flow.compiled_with is None and flow.log_prob(torch.zeros(2, 3), torch.zeros(2, 2)).isfinite().all()
