"""Continuous flows against linear fields, whose maps and log-determinants are known."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pushforward as pf

A = torch.tensor([[0.3, 1.0, -0.2], [-2.0, -0.3, 0.5], [0.1, 0.4, -0.6]], dtype=torch.float64)


def linear_velocity(time_slope: Tensor | None = None) -> pf.Velocity:
    velocity = pf.Velocity(3, hidden_features=(), time_features=1).double()
    with torch.no_grad():
        velocity.network.layers[-1].weight[:, :3] = A
        if time_slope is not None:
            velocity.network.layers[-1].weight[:, 3] = time_slope
    return velocity


def perturbed(layer: Any, scale: float = 0.3) -> Any:
    layer = layer.double()
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(scale * torch.randn_like(p))
    return layer


@pytest.mark.parametrize("options", [{"rtol": 1e-11, "atol": 1e-11}, {"solver": "rk8", "steps": 12}])
def test_linear_field(options: dict[str, Any]) -> None:
    """v = A z + b (2t - 1): x = exp(A) z + the integral of exp(A (1 - t)) b (2t - 1), log-det the trace of A."""
    b = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    layer = pf.Continuous(3, velocity=linear_velocity(b), **options)
    z = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    nodes = torch.linspace(0, 1, 2001, dtype=torch.float64)
    weights = torch.ones_like(nodes)
    weights[1:-1:2], weights[2:-1:2] = 4, 2  # Simpson's rule
    forced = torch.matrix_exp((1 - nodes)[:, None, None] * A) @ b * (2 * nodes - 1)[:, None]
    expected = z @ torch.matrix_exp(A).mT + (weights[:, None] * forced).sum(0) / 6000
    for found, log_det, sign in ((*layer(z), 1), (*layer.inverse(expected), -1)):
        assert (found - (expected if sign == 1 else z)).abs().max() < 1e-9
        assert (log_det - sign * A.trace()).abs().max() < 1e-12


@pytest.mark.parametrize("activation", [nn.SiLU, nn.Tanh, nn.Softplus])
@pytest.mark.parametrize("hidden_features", [(), (6,), (6, 5)])
def test_the_velocity_knows_its_trace(activation: type[nn.Module], hidden_features: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    velocity = perturbed(pf.Velocity(3, 2, hidden_features, time_features=3, activation=activation))
    t, z, c = torch.rand(5).double(), torch.randn(5, 3).double(), torch.randn(5, 2).double()
    jacobian = torch.func.vmap(torch.func.jacrev(velocity, argnums=1))(t, z, c)
    value, trace = velocity.value_and_trace(t, z, c)
    assert (value - velocity(t, z, c)).abs().max() < 1e-14
    assert (trace - jacobian.diagonal(dim1=-2, dim2=-1).sum(-1)).abs().max() < 1e-13
    noise = torch.randn_like(z)
    estimate = velocity.value_and_trace(t, z, c, noise)[1]
    assert (estimate - torch.einsum("ni,nij,nj->n", noise, jacobian, noise)).abs().max() < 1e-12


@pytest.mark.parametrize("noise", ["rademacher", "gaussian"])
def test_estimated_log_dets_are_unbiased_and_evaluation_is_exact(noise: Any) -> None:
    """Of 4000 rows with a probe each, within 4.5 standard errors; the same map; the exact numbers in eval mode."""
    torch.manual_seed(0)
    exact = perturbed(pf.Continuous(3, hidden_features=(6,), solver="rk4", steps=8, trace="exact"))
    estimated = pf.Continuous(
        3, velocity=exact.velocity, solver="rk4", steps=8, trace="hutchinson", noise=noise
    ).double()
    z = torch.randn(3, dtype=torch.float64).expand(4000, 3)
    x, log_det = exact(z)
    for function, value, expected in ((estimated, z, log_det), (estimated.inverse, x, -log_det)):
        found = function(value)[1]
        assert found.std() > 1e-3
        assert abs((found.mean() - expected.mean()) / (found.std() / 4000**0.5)) < 4.5
    assert torch.equal(estimated(z)[0], x)
    estimated.eval()
    assert torch.equal(estimated(z)[1], log_det)


def test_which_mode_estimates() -> None:
    def estimates(features: int, trace: Any, training: bool) -> bool:
        layer = perturbed(pf.Continuous(features, hidden_features=(4,), solver="rk4", steps=1, trace=trace))
        layer.train(training)
        z = torch.ones(1, features, dtype=torch.float64)
        return not torch.equal(layer(z)[1], layer(z)[1])

    for features, trace, in_training, in_evaluation in (
        (3, "auto", False, False),
        (3, "exact", False, False),
        (3, "hutchinson", True, False),
        (40, "auto", True, True),
        (40, "exact", False, False),
        (40, "hutchinson", True, True),
    ):
        found = estimates(features, trace, True), estimates(features, trace, False)
        assert found == (in_training, in_evaluation), (features, trace)


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_adjoint_gradients(trace: Any) -> None:
    """Of a loss of values and log-determinants, in the input, the context and the parameters, both ways."""
    torch.manual_seed(0)
    layers = []
    for adjoint in (False, True):
        layers.append(
            pf.Continuous(
                2, context_features=2, hidden_features=(5,), rtol=1e-8, atol=1e-8, trace=trace, adjoint=adjoint
            )
        )
    perturbed(layers[0])
    layers[1].double().load_state_dict(layers[0].state_dict())
    z, c = (torch.randn(4, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    for direction in ("forward", "inverse"):
        gradients = []
        for layer in layers:
            torch.manual_seed(1)
            x, log_det = getattr(layer, direction)(z, c)
            loss = x.sin().sum() + log_det.square().sum()
            gradients.append(torch.autograd.grad(loss, [z, c, *layer.parameters()]))
        for direct, adjoint in zip(*gradients, strict=True):
            assert torch.allclose(direct, adjoint, rtol=1e-6, atol=1e-7)


def test_default_tolerances_give_log_densities_to_four_digits() -> None:
    torch.manual_seed(0)
    flow = perturbed(pf.cnf(2, hidden_features=(16,)), 0.5)
    tight = pf.Flow(pf.Continuous(2, velocity=flow.bijection.layers[0].velocity, rtol=1e-11, atol=1e-11), flow.base)
    x = 3 * torch.randn(100, 2, dtype=torch.float64)
    with torch.no_grad():
        assert (flow.log_prob(x) - tight.log_prob(x)).abs().max() < 1e-4
        assert (flow.float().log_prob(x.float()).double() - tight.double().log_prob(x)).abs().max() < 1e-3


def test_under_transforms_of_functions() -> None:
    """`vmap` and per-row gradients, with an adaptive solver and a user's field too."""
    torch.manual_seed(0)

    class Field(nn.Module):
        def forward(self, t: Tensor, z: Tensor, context: Tensor | None = None) -> Tensor:
            return torch.sin(z) * t.unsqueeze(-1) + z.flip(-1)

    z = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    for layer in (perturbed(pf.Continuous(2, hidden_features=(4,))), pf.Continuous(2, velocity=Field()).double()):
        x, log_det = layer(z)
        (expected,) = torch.autograd.grad(log_det.sum(), z)
        again = torch.func.vmap(layer)(z)
        assert torch.allclose(again[0], x, atol=1e-12)
        found = torch.func.vmap(torch.func.grad(lambda v, f=layer: f(v)[1]))(z)
        assert torch.allclose(found, expected, atol=1e-12)


def test_twenty_layers_stay_finite() -> None:
    torch.manual_seed(0)
    flow = perturbed(pf.cnf(2, layers=20, hidden_features=(8,), solver="rk4", steps=2), 0.05)
    x = 3 * torch.randn(50, 2, dtype=torch.float64)
    assert flow.log_prob(x).isfinite().all()


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"Continuous: expected a solver among .*, got 'euler'"):
        pf.Continuous(2, solver="euler")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'auto', 'exact' or 'hutchinson', got 'none'"):
        pf.Continuous(2, trace="none")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'rademacher' or 'gaussian', got 'cauchy'"):
        pf.Continuous(2, noise="cauchy")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="features, an integer >= 1, got 0"):
        pf.Continuous(0)
    with pytest.raises(ValueError, match="time_features >= 0, got -1"):
        pf.Velocity(2, time_features=-1)

    class Wrong(nn.Module):
        def forward(self, t: Tensor, z: Tensor, context: Tensor | None = None) -> Tensor:
            return z.sum(-1)

    with pytest.raises(ValueError, match=r"to return shape \(5, 2\), got \(5,\)"):
        pf.Continuous(2, velocity=Wrong())(torch.zeros(5, 2))
