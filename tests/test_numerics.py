"""Numerical inverses against closed forms."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import pushforward as pf
from pushforward.numerics import InversionWarning, solve_increasing

DTYPES = [torch.float32, torch.float64]


def planar(c: Tensor | float, b: Tensor | float) -> Any:
    """a + c tanh(a + b), whose slope is 1 + c at a = -b and 1 far away."""

    def function(a: Tensor) -> tuple[Tensor, Tensor]:
        t = torch.tanh(a + b)
        return a + c * t, 1 + c * (1 - t.square())

    return function


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gap", [1e-10, 1e-6, 1e-3, 0.5, 1.0, 2.0, 100.0, 1001.0])
def test_planar_over_wide_ranges(gap: float, dtype: torch.dtype) -> None:
    """Solved to what rounding allows: the residual, and the root as far as the slope there determines it."""
    c = torch.tensor(gap - 1, dtype=dtype)
    c = c.clamp_min(-1 + 2 * torch.finfo(dtype).eps)
    expected = torch.cat([-torch.logspace(-6, 6, 61), torch.zeros(1), torch.logspace(-6, 6, 61)]).to(dtype)
    for b in (0.0, 1.5, -700.0):
        function = planar(c, b)
        y, slope = function(expected)
        root = solve_increasing(function, y)
        eps = torch.finfo(dtype).eps
        rounding = eps * (1 + expected.abs() + abs(b) + c.abs())
        assert root.dtype == dtype
        assert ((function(root)[0] - y).abs() <= 32 * rounding).all()
        # Where the slope vanishes the function is locally cubic.
        error = torch.minimum(32 * rounding / slope, 6 * (rounding / max(gap, 1.0)) ** (1 / 3) + 32 * rounding)
        assert ((root - expected).abs() <= error).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_closed_forms_without_a_bracket(dtype: torch.dtype) -> None:
    eps = torch.finfo(dtype).eps
    y = torch.cat([-torch.logspace(-3, 5, 33), torch.logspace(-3, 5, 33)]).to(dtype)
    bounded = y.clamp(-1e3, 1e3)
    root = solve_increasing(lambda t: (torch.sinh(t), torch.cosh(t)), bounded)
    assert torch.allclose(root.sinh(), bounded, rtol=64 * eps)
    scale = 1e-4
    root = solve_increasing(lambda t: (scale * t, torch.full_like(t, scale)), y)
    assert torch.allclose(root, y / scale, rtol=8 * eps)
    root = solve_increasing(lambda t: (t + t**3, 1 + 3 * t**2), y)
    assert torch.allclose(root + root**3, y, rtol=64 * eps)


@pytest.mark.parametrize("gap", [1e-2, 0.5, 3.0, 30.0])
def test_first_and_second_derivatives(gap: float) -> None:
    y = torch.tensor([-3.0, -0.4, 0.2, 5.0], dtype=torch.float64, requires_grad=True)
    c = torch.tensor(gap - 1, dtype=torch.float64, requires_grad=True)
    b = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def inverse(y: Tensor, c: Tensor, b: Tensor) -> Tensor:
        return solve_increasing(planar(c, b), y)

    assert gradcheck(inverse, (y, c, b))
    assert gradgradcheck(inverse, (y, c, b))


def test_function_transforms() -> None:
    y = torch.linspace(-3, 3, 5, dtype=torch.float64)
    c, b = torch.tensor(0.7, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64)

    def inverse(y: Tensor, c: Tensor, b: Tensor) -> Tensor:
        return solve_increasing(planar(c, b), y)

    slope = planar(c, b)(inverse(y, c, b))[1]
    for jac in (torch.func.jacfwd, torch.func.jacrev):
        assert torch.allclose(jac(inverse)(y, c, b), torch.diag(1 / slope))
        # d root / dc = -tanh / slope
        expected = -torch.tanh(inverse(y, c, b) + b) / slope
        assert torch.allclose(jac(inverse, argnums=1)(y, c, b), expected)
    assert torch.allclose(torch.func.vmap(inverse, in_dims=(0, None, None))(y, c, b), inverse(y, c, b))


def test_vmap_over_parameters_alone() -> None:
    """An ensemble: neither target nor bracket is mapped, but the function is."""
    y = torch.linspace(-3, 3, 5, dtype=torch.float64)
    cs = torch.tensor([0.1, 2.0, -0.5], dtype=torch.float64)
    lower, upper = torch.full_like(y, -10), torch.full_like(y, 10)
    found = torch.func.vmap(lambda c: solve_increasing(planar(c, 0.0), y, lower, upper))(cs)
    expected = torch.stack([solve_increasing(planar(c, 0.0), y) for c in cs])
    assert torch.allclose(found, expected)


class TestWarning:
    def test_no_root(self) -> None:
        with pytest.warns(InversionWarning, match="1 of 2 elements did not converge"):
            solve_increasing(lambda t: (t.tanh(), 1 - t.tanh() ** 2), torch.tensor([0.5, 2.0]))

    def test_not_a_number(self) -> None:
        with pytest.warns(InversionWarning, match="1 of 2 elements"):
            root = solve_increasing(planar(0.5, 0.0), torch.tensor([math.nan, 0.0]))
        assert root[0].isnan()
        assert root[1] == 0

    def test_too_few_steps(self) -> None:
        with pytest.warns(InversionWarning, match="worst residual"):
            solve_increasing(planar(5.0, 0.0), torch.tensor([3.0]), steps=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [0.5, 5.0, 50.0])
def test_planar_scores_points_that_it_did_not_draw(scale: float, dtype: torch.dtype) -> None:
    """Also where w . u is -1 to the precision of the dtype."""
    torch.manual_seed(0)
    layer = pf.Planar(2).to(dtype)
    with torch.no_grad():
        layer.params.constants.copy_(scale * torch.randn(5))
    for sign in (1, -1):
        with torch.no_grad():
            layer.params.constants[:2] *= sign
        x = 10 * torch.randn(200, 2, dtype=dtype)
        z, log_det = layer.inverse(x)
        assert z.isfinite().all()
        assert log_det.isfinite().all()
        assert torch.allclose(layer(z)[0], x, atol=64 * torch.finfo(dtype).eps * (10 + scale**3))
