"""Networks as modules."""

import pytest
import torch
from torch.func import functional_call

import pushforward as pf


@pytest.mark.parametrize(
    "network",
    [
        pf.MLP(2, 3, (4,)),
        pf.MaskedMLP(2, 3, (4,)),
        pf.LipschitzMLP(2, 2, (4,)),
        pf.ConvexMLP(2, (4,)),
        pf.LipschitzMLP(2, 2, (4,), context_features=2),
    ],
    ids=["MLP", "MaskedMLP", "LipschitzMLP", "ConvexMLP", "LipschitzMLP(context)"],
)
def test_functional_call_leaves_the_module_as_it_was(network: torch.nn.Module) -> None:
    """No module is registered under two names: functional_call would leave the given tensors in it."""
    x = torch.ones(5, 2)
    arguments = (x, x) if getattr(network, "context_features", 0) else (x,)
    before = dict(network.named_parameters())
    functional_call(network, {n: p.detach() + 1 for n, p in before.items()}, arguments)
    assert all(p is before[n] for n, p in network.named_parameters())


def test_units_that_see_few_inputs_start_as_large_as_the_others() -> None:
    torch.manual_seed(0)
    network = pf.MaskedMLP(64, 1, (640,), activation=torch.nn.Identity)
    units = torch.nn.functional.linear(torch.randn(1000, 64), network._weights()[0][0])
    few, many = units[:, :100].square().mean().item(), units[:, -100:].square().mean().item()
    assert few == pytest.approx(many, rel=0.1)
