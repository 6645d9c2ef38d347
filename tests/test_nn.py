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
        pf.MaskedMLP(2, 3, (4, 4), residual=True),
        pf.LipschitzMLP(2, 2, (4,)),
        pf.ConvexMLP(2, (4,)),
        pf.LipschitzMLP(2, 2, (4,), context_features=2),
    ],
    ids=["MLP", "MaskedMLP", "MaskedMLP(residual)", "LipschitzMLP", "ConvexMLP", "LipschitzMLP(context)"],
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
    units = torch.nn.functional.linear(torch.randn(1000, 64), network.masked_parameters()[0])
    few, many = units[:, :100].square().mean().item(), units[:, -100:].square().mean().item()
    assert few == pytest.approx(many, rel=0.1)


@pytest.mark.parametrize("context_features", [0, 2])
def test_masked_network_of_groups(context_features: int) -> None:
    """Outputs of a group see the groups before alone, and the sequential evaluation is the parallel one."""
    torch.manual_seed(0)
    sizes, outputs = (2, 3, 1), (1, 4, 2)
    network = pf.MaskedMLP(3, outputs, (12, 9), in_sizes=sizes, context_features=context_features).double()
    x = torch.randn(6, dtype=torch.float64)
    context = torch.randn(context_features, dtype=torch.float64) if context_features else None
    jacobian = torch.autograd.functional.jacobian(lambda x: network(x, context), x)
    rows = jacobian.split(outputs)
    for i in range(3):
        seen = [block.any() for block in rows[i].split(sizes, dim=-1)]
        assert [bool(s) for s in seen] == [j < i for j in range(3)]

    groups, found = x.split(sizes), []

    def emit(i: int, out: torch.Tensor) -> torch.Tensor:
        found.append(out)
        return groups[i]

    network.sequentially(emit, x, context)
    assert [len(out) for out in found] == list(outputs)
    torch.testing.assert_close(torch.cat(found), network(x, context), rtol=0, atol=1e-12)


@pytest.mark.parametrize("context_features", [0, 2])
@pytest.mark.parametrize("residual", [False, True])
def test_masked_outputs_see_only_the_inputs_before_them(residual: bool, context_features: int) -> None:
    torch.manual_seed(0)
    network = pf.MaskedMLP(4, 3, (7, 7, 7), context_features=context_features, residual=residual).double()
    x = torch.randn(4, dtype=torch.float64)
    context = torch.randn(context_features, dtype=torch.float64) if context_features else None
    jacobian = torch.autograd.functional.jacobian(lambda x: network(x, context), x)
    sees = jacobian.abs().amax(1) > 0
    assert torch.equal(sees, torch.ones(4, 4).tril(-1).bool())


@pytest.mark.parametrize("context_features", [0, 2])
@pytest.mark.parametrize("residual", [False, True])
def test_masked_network_one_input_after_the_other(residual: bool, context_features: int) -> None:
    torch.manual_seed(0)
    network = pf.MaskedMLP(4, 3, (7, 7, 7), context_features=context_features, residual=residual).double()
    x = torch.randn(5, 4, dtype=torch.float64)
    context = torch.randn(5, context_features, dtype=torch.float64) if context_features else None
    outputs = []

    def emit(i: int, out: torch.Tensor) -> torch.Tensor:
        outputs.append(out)
        return x[:, i]

    network.sequentially(emit, x, context)
    torch.testing.assert_close(torch.stack(outputs, dim=1), network(x, context), rtol=0, atol=1e-12)


def test_residual_layers_of_unequal_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"residual layers of equal width, got \(4, 5\)"):
        pf.MaskedMLP(2, 3, (4, 5), residual=True)


def test_first_layer_spread() -> None:
    """Weights and biases of the asked scale, by what each unit sees: the standard deviation to four errors."""
    torch.manual_seed(0)
    for network, seen in (
        (pf.MLP(4, 1, (20_000,)), torch.full((20_000,), 4.0)),
        (pf.MaskedMLP(3, 1, (20_000,)), torch.repeat_interleave(torch.tensor([1.0, 2.0]), 10_000)),
    ):
        network.spread_(2.0)
        first = network.layers[0]
        scaled = first.weight * seen.sqrt().unsqueeze(-1)
        for values in (scaled.flatten(), first.bias):
            assert abs(values.std().item() / 2 - 1) < 4 / (2 * len(values)) ** 0.5
    pf.MLP(3, 2, ()).spread_(2.0)  # without a hidden layer there is nothing to spread
