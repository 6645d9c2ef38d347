"""Chains that keep less for the gradient: the same numbers as a chain that keeps all, and less kept."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

import pushforward as pf
from pushforward.bijections import Bijection, Chain

F64 = torch.float64
MODES = ["checkpoint", "reversible"]


def _layers(features: int = 3, context_features: int = 2, count: int = 6) -> list[Bijection]:
    options = {"context_features": context_features, "hidden_features": (8,)}
    kinds: list[Callable[[int], Bijection]] = [
        lambda k: pf.Coupling([(i + k) % 2 == 0 for i in range(features)], pf.RationalQuadratic(4), **options),
        lambda k: pf.LU(features),
        lambda k: pf.MaskedAutoregressive(pf.Affine(), features, **options),
    ]
    return [kinds[k % 3](k) for k in range(count)]


def _pair(mode: Any, **options: int) -> tuple[Chain, Chain]:
    """A chain that keeps all, and one of the same layers that does not."""
    torch.manual_seed(0)
    layers = _layers(**options)
    full = Chain(*layers).double()
    for p in full.parameters():
        p.data.add_(0.2 * torch.randn_like(p))
    return full, Chain(*layers, memory=mode)


def _loss(outputs: tuple[Tensor, Tensor]) -> Tensor:
    x, log_det = outputs
    return (x.sin() * torch.arange(x.numel()).view(x.shape)).sum() + (log_det * torch.arange(len(log_det))).sum()


@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize(("mode", "count"), [("checkpoint", 6), ("reversible", 6), ("reversible", 35)])
def test_gradients(mode: str, count: int, direction: str) -> None:
    """Also past the 16 layers between two states that a reversible chain keeps."""
    chains = _pair(mode, count=count)
    value = torch.randn(7, 3, dtype=F64, requires_grad=True)
    context = torch.randn(7, 2, dtype=F64, requires_grad=True)
    inputs = [value, context, *chains[0].parameters()]
    losses = [_loss(getattr(chain, direction)(value, context)) for chain in chains]
    expected, found = (torch.autograd.grad(loss, inputs) for loss in losses)
    # The order in which log-determinants are added may differ.
    torch.testing.assert_close(*losses, rtol=1e-13, atol=0)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("mode", MODES)
def test_second_derivatives(mode: str) -> None:
    _, chain = _pair(mode, count=3)
    z, context = torch.randn(2, 3, dtype=F64, requires_grad=True), torch.randn(2, 2, dtype=F64)
    assert torch.autograd.gradgradcheck(lambda z: chain(z, context), (z,))


@pytest.mark.parametrize("mode", MODES)
def test_parameters_of_the_call_and_not_of_the_module(mode: str) -> None:
    """The gradient comes after `functional_call` has put the module's own parameters back."""
    full, chain = _pair(mode)
    z, context = torch.randn(7, 3, dtype=F64), torch.randn(7, 2, dtype=F64)
    given = {name: (p.detach() + 0.1).requires_grad_() for name, p in chain.named_parameters()}
    found = torch.autograd.grad(_loss(functional_call(chain, given, (z, context))), list(given.values()))
    expected = torch.autograd.grad(_loss(functional_call(full, given, (z, context))), list(given.values()))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


def test_random_layers_draw_the_same_again() -> None:
    torch.manual_seed(0)
    noisy = pf.Coupling(
        [True, False, True], pf.Affine(), conditioner=torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.5))
    ).double()
    x = torch.randn(50, 3, dtype=F64)
    grads = []
    for memory in ("full", *MODES):
        chain = Chain(noisy, pf.LU(3).double(), noisy, memory=memory)  # type: ignore[arg-type]
        torch.manual_seed(1)
        loss = _loss(chain(x))
        grads.append(torch.autograd.grad(loss, list(noisy.parameters()), retain_graph=True))
        grads.append(torch.autograd.grad(loss, list(noisy.parameters()), create_graph=True))
    for found in grads[1:]:
        for one, other in zip(found, grads[0], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_running_statistics_move_once() -> None:
    x = torch.randn(50, 3, dtype=F64)
    found = []
    for memory in ("full", "checkpoint"):
        norm = pf.BatchNorm(3).double()
        Chain(norm, pf.LU(3).double(), memory=memory).inverse(x)[1].sum().backward()  # type: ignore[arg-type]
        found.append(norm.running_mean)
    torch.testing.assert_close(*found, rtol=0, atol=0)
    with pytest.raises(ValueError, match="BatchNorm in layer 0"):
        Chain(pf.BatchNorm(3), memory="reversible")
    with pytest.raises(ValueError, match="expected memory"):
        Chain(memory="none")  # type: ignore[arg-type]


def test_what_is_kept() -> None:
    """Bytes that the graph holds, parameters aside, for 64 couplings of 1024 rows of 16 features."""

    def kept(memory: Any) -> int:
        torch.manual_seed(0)
        layers = [
            pf.Coupling([(i + k) % 2 == 0 for i in range(16)], pf.Affine(), hidden_features=(128, 128))
            for k in range(64)
        ]
        chain = Chain(*layers, memory=memory)
        own = {p.data_ptr() for p in (*chain.parameters(), *chain.buffers())}
        tensors: dict[int, int] = {}

        def pack(t: Tensor) -> Tensor:
            if t.data_ptr() not in own:
                tensors[t.data_ptr()] = t.untyped_storage().nbytes()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            result = chain.inverse(torch.randn(1024, 16))  # held, so that no address is used twice
        del result
        return sum(tensors.values())

    full, checkpoint, reversible = (kept(memory) for memory in ("full", *MODES))
    state = 1024 * 16 * 4
    assert reversible == 5 * state and checkpoint == 65 * state
    assert checkpoint < 0.04 * full
