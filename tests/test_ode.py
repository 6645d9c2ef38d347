"""The solver against matrix exponentials and convergence orders, its gradients, and what it says when it fails."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pushforward.numerics import SolverError, exact_trace, hutchinson_trace, probe, solve_ode

A = torch.tensor([[0.3, 1.0, -0.2], [-2.0, -0.3, 0.5], [0.1, 0.4, -0.6]], dtype=torch.float64)
Y = torch.tensor([[1.0, -0.5, 2.0], [0.1, 0.0, -30.0]], dtype=torch.float64)
TIGHT: dict[str, Any] = {"rtol": 1e-11, "atol": 1e-11}


def linear(t: float, y: Tensor) -> tuple[Tensor]:
    return (y @ A.mT,)


def pendulum(t: float, y: Tensor) -> tuple[Tensor]:
    """Nonlinear, and with a force that depends on the time."""
    angle, speed = y.unbind(-1)
    return (torch.stack([speed, -torch.sin(angle) + 0.5 * math.cos(3 * t)], dim=-1),)


@pytest.mark.parametrize("options", [TIGHT, {"method": "rk8", "steps": 12}, {"method": "rk4", "steps": 400}])
@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (1.0, -0.5)])
def test_linear_equation(options: dict[str, Any], start: float, end: float) -> None:
    (found,) = solve_ode(linear, (Y,), start, end, **options)
    expected = Y @ torch.matrix_exp((end - start) * A).mT
    assert ((found - expected).abs() / expected.abs().amax()).max() < 1e-9


@pytest.mark.parametrize(("method", "order", "steps"), [("midpoint", 2, 40), ("rk4", 4, 20), ("rk8", 8, 5)])
def test_order_of_convergence(method: Any, order: int, steps: int) -> None:
    y = torch.tensor([1.0, -0.5], dtype=torch.float64)
    (exact,) = solve_ode(pendulum, (y,), 0.0, 3.0, method="rk8", steps=200)
    errors = [
        (solve_ode(pendulum, (y,), 0.0, 3.0, method=method, steps=n)[0] - exact).abs().max() for n in (steps, 2 * steps)
    ]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.5)


@pytest.mark.parametrize("tolerance", [1e-4, 1e-7, 1e-10])
def test_the_error_follows_the_tolerance(tolerance: float) -> None:
    y = torch.tensor([1.0, -0.5], dtype=torch.float64)
    (exact,) = solve_ode(pendulum, (y,), 0.0, 3.0, method="rk8", steps=200)
    (found,) = solve_ode(pendulum, (y,), 0.0, 3.0, rtol=tolerance, atol=tolerance)
    assert tolerance / 1000 < (found - exact).abs().max() < 20 * tolerance
    (back,) = solve_ode(pendulum, (found,), 3.0, 0.0, rtol=tolerance, atol=tolerance)
    assert (back - y).abs().max() < 50 * tolerance


def test_a_calm_row_keeps_its_tolerance_beside_a_wild_one() -> None:
    rate = torch.tensor([1.0, 50.0], dtype=torch.float64)
    y = torch.ones(2, dtype=torch.float64)
    for rows in (slice(0, 1), slice(1, 2), slice(0, 2)):
        (found,) = solve_ode(lambda t, y, r: (-r * y,), (y[rows],), 0.0, 1.0, inputs=[rate[rows]], rtol=1e-9, atol=1e-9)
        assert (found - (-rate[rows]).exp()).abs().max() < 1e-8


@pytest.mark.parametrize("options", [{"rtol": 1e-9, "atol": 1e-9}, {"method": "rk8", "steps": 10}])
def test_adjoint_gradients_are_those_of_the_steps(options: dict[str, Any]) -> None:
    """In the state, an integral beside it, an input and the parameters; an input without gradient is left alone."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2)).double()
    y, c = (torch.randn(3, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    noise = torch.randn(3, 2, dtype=torch.float64)
    frozen = torch.nn.Parameter(torch.ones((), dtype=torch.float64), requires_grad=False)

    def function(t: float, y: Tensor, _: Tensor, c: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        value = net(torch.cat([y, c], dim=-1)) + t * noise * frozen
        return value, value.square().sum(-1)

    variables = [y, c, *net.parameters()]
    gradients = []
    for adjoint in (False, True):
        result = solve_ode(
            function,
            (y, y.new_zeros(3)),
            0.0,
            1.0,
            integrals=1,
            inputs=[c, noise],
            parameters=[*net.parameters(), frozen],
            adjoint=adjoint,
            **options,
        )
        gradients.append(torch.autograd.grad(result[0].square().sum() + result[1].sin().sum(), variables))
    for direct, adjoint in zip(*gradients, strict=True):
        assert torch.allclose(direct, adjoint, rtol=1e-6, atol=1e-8)


def test_the_adjoint_has_first_derivatives_only() -> None:
    y = torch.ones(2, dtype=torch.float64, requires_grad=True)
    (result,) = solve_ode(pendulum, (y,), 0.0, 1.0, adjoint=True)
    with pytest.raises(RuntimeError, match="the adjoint has first derivatives only; use adjoint=False"):
        torch.autograd.grad(result.sum(), y, create_graph=True)


def test_second_derivatives_through_the_steps() -> None:
    y = torch.tensor([1.0, -0.5], dtype=torch.float64, requires_grad=True)

    def function(y: Tensor) -> Tensor:
        return solve_ode(pendulum, (y,), 0.0, 1.0, rtol=1e-9, atol=1e-9)[0]

    assert torch.autograd.gradcheck(function, (y,), atol=1e-6)
    assert torch.autograd.gradgradcheck(function, (y,), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("method", ["dopri5", "rk4"])
def test_dtype_empty_batch_and_no_time(method: Any) -> None:
    (found,) = solve_ode(linear, (Y[:0],), 0.0, 1.0, method=method)
    assert found.shape == (0, 3)
    assert solve_ode(linear, (Y,), 0.5, 0.5, method=method)[0] is Y
    (single,) = solve_ode(lambda t, y: (-y,), (torch.ones(3),), 0.0, 1.0, method=method, rtol=1e-12, atol=1e-12)
    assert single.dtype == torch.float32
    assert torch.allclose(single, torch.full((3,), math.exp(-1)), atol=1e-5)


def test_failures_say_what_to_do() -> None:
    one = torch.ones(1, dtype=torch.float64)
    for method in ("dopri5", "rk4"):
        with pytest.raises(SolverError, match="non-finite state at t ="):
            solve_ode(lambda t, y: (y,), (one * math.nan,), 0.0, 1.0, method=method)  # type: ignore[arg-type]
    with pytest.raises(SolverError, match=r"non-finite state at t = 1; .* standardise the data"):
        solve_ode(lambda t, y: (y**3,), (100 * one,), 0.0, 1.0, method="rk4")
    with pytest.raises(SolverError, match=r"before t = 2, with steps of .*loosen the tolerances|non-finite state at t"):
        solve_ode(lambda t, y: (y**2,), (one,), 0.0, 2.0)  # infinite at t = 1
    with pytest.raises(SolverError, match=r"gave up after max_steps=10\)"):
        solve_ode(lambda t, y: (-1e4 * y,), (one,), 0.0, 1.0, max_steps=10)
    with pytest.raises(ValueError, match="a solver among midpoint, rk4, rk8, dopri5, got 'euler'"):
        solve_ode(linear, (Y,), 0.0, 1.0, method="euler")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="steps >= 1, rtol > 0 and atol > 0, got 0"):
        solve_ode(linear, (Y,), 0.0, 1.0, method="rk4", steps=0)


def test_traces_against_autodiff() -> None:
    """The estimate is unbiased: 2000 probes, within 4.5 standard errors, for signs and for normal draws."""
    torch.manual_seed(0)
    weight = torch.randn(4, 4, dtype=torch.float64)
    z = torch.randn(3, 4, dtype=torch.float64)

    def function(z: Tensor) -> Tensor:
        return torch.tanh(z @ weight) * z

    jacobian = torch.func.vmap(torch.func.jacrev(function))(z)
    expected = jacobian.diagonal(dim1=-2, dim2=-1).sum(-1)
    value, trace = exact_trace(function, z)
    assert torch.equal(value, function(z))
    assert (trace - expected).abs().max() < 1e-12
    for noise in ("rademacher", "gaussian"):
        many = z.expand(2000, 3, 4)
        estimate = hutchinson_trace(function, many, probe(many, noise))[1]  # type: ignore[arg-type]
        error = estimate.std(0) / len(many) ** 0.5
        assert ((estimate.mean(0) - expected) / error).abs().max() < 4.5
