"""Residual blocks: the bound of the Lipschitz constant, and the estimate of the log-determinant."""

import math
import warnings

import pytest
import torch
from torch import Tensor

import pushforward as pf
from pushforward.nn.lipschitz import log_spectral_norm
from pushforward.numerics import InversionWarning, log_det_series, solve_system


def perturbed(layer: torch.nn.Module, scale: float) -> torch.nn.Module:
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += scale * torch.randn_like(parameter)
    return layer


@pytest.mark.parametrize("shape", [(1, 1), (64, 64), (3, 50), (50, 3)])
def test_gram_iteration_bounds_the_spectral_norm_closely(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    for scale in (1e-8, 1.0, 1e8):
        weight = scale * torch.randn(shape, dtype=torch.float64)
        ratio = log_spectral_norm(weight).exp() / torch.linalg.matrix_norm(weight, 2)
        assert 1 - 1e-12 <= ratio <= min(shape) ** (1 / 256) + 1e-12
    ones = torch.eye(64, dtype=torch.float64)  # the worst case
    assert math.isclose(log_spectral_norm(ones).exp().item(), 64 ** (1 / 256), rel_tol=1e-12)


@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0])
def test_lipschitz_constant_at_any_weights(scale: float) -> None:
    """By finite differences over short and long distances, and at the worst point that gradient ascent finds."""
    torch.manual_seed(0)
    for hidden in ((1,), (16,), (16, 8)):
        network = perturbed(pf.LipschitzMLP(2, 2, hidden, lipschitz=0.97).double(), scale)
        x = torch.randn(2000, 2, dtype=torch.float64)
        for distance in (1e-4, 1.0):
            y = x + distance * torch.randn_like(x)
            ratio = (network(x) - network(y)).norm(dim=-1) / (x - y).norm(dim=-1)
            assert ratio.max() <= 0.97
        jacobian = torch.func.vmap(torch.func.jacrev(network))(x)
        assert torch.linalg.matrix_norm(jacobian, 2).max() <= 0.97


def test_the_bound_is_reached() -> None:
    """One unit on one feature: the slope of g is 0.97 times that of LipSwish, whose largest is 0.99985."""
    network = pf.LipschitzMLP(1, 1, (1,)).double()
    with torch.no_grad():
        for weight in network.weights:
            weight.fill_(5.0)
    x = torch.linspace(-3, 3, 20001, dtype=torch.float64).unsqueeze(-1)
    g = network(x).squeeze(-1)
    assert math.isclose((g.diff() / x.squeeze(-1).diff()).max().item(), 0.97 * 0.99985, rel_tol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inverse_where_the_slope_nearly_vanishes(dtype: torch.dtype) -> None:
    layer = pf.Residual(1, hidden_features=(1,)).to(dtype)
    with torch.no_grad():
        layer.network.weights[0].fill_(0.5)
        layer.network.weights[1].fill_(-50.0)
    x, log_det_forward = layer(torch.linspace(-100, 100, 2001, dtype=dtype).unsqueeze(-1))
    z, log_det = layer.inverse(x)
    again, log_det_again = layer(z)
    assert log_det_forward.min() < math.log(0.04)
    assert torch.allclose(again, x, rtol=0, atol=1000 * torch.finfo(dtype).eps)
    assert torch.allclose(log_det, -log_det_again)


def mean_and_error(draws: Tensor) -> tuple[float, float]:
    return draws.mean().item(), draws.std().item() / len(draws) ** 0.5


@pytest.mark.parametrize("bound", [0.3, 0.8])
def test_series_is_unbiased(bound: float) -> None:
    """Against the exact log-det, for a general matrix of that norm; each draw has its own number of terms."""
    torch.manual_seed(0)
    matrix = torch.randn(6, 6, dtype=torch.float64)
    matrix *= bound / torch.linalg.matrix_norm(matrix, 2)
    exact = torch.linalg.slogdet(torch.eye(6) + matrix)[1].item()
    like = torch.zeros(8, 6, dtype=torch.float64)
    # Two terms alone are always there, so that the roulette decides.
    draws = torch.stack([log_det_series(lambda v: v @ matrix.mT, like, bound, terms=2).mean() for _ in range(2000)])
    mean, error = mean_and_error(draws)
    assert abs(mean - exact) < 4 * error
    assert error < 0.02


def test_estimate_against_exact_and_eval() -> None:
    """20 features, both for the value and for its gradient in a weight."""
    torch.manual_seed(0)
    layer = perturbed(pf.Residual(20, hidden_features=(32,), lipschitz=0.8, log_det="estimate").double(), 0.5)
    z = torch.randn(1, 20, dtype=torch.float64)
    weight = layer.network.weights[0]
    layer.eval()
    exact = layer(z)[1]
    jacobian = torch.func.jacrev(lambda z: layer(z)[0])(z[0])
    assert torch.allclose(exact, torch.linalg.slogdet(jacobian)[1], rtol=0, atol=1e-12)
    (slope,) = torch.autograd.grad(exact.sum(), weight)
    layer.train()
    draws, slopes = [], []
    for _ in range(50):
        estimate = layer(z.expand(100, 20))[1].mean()
        draws.append(estimate.detach())
        slopes.append((torch.autograd.grad(estimate, weight)[0] * slope).sum() / slope.norm())
    mean, error = mean_and_error(torch.stack(draws))
    assert abs(mean - exact.item()) < 4 * error
    assert error < 0.05
    mean, error = mean_and_error(torch.stack(slopes))
    assert abs(mean - slope.norm().item()) < 4 * error


def test_the_cut_of_the_jacobian_does_not_matter() -> None:
    """A determinant of the size of the event, of the first, or of the last hidden layer."""
    torch.manual_seed(0)
    for features, hidden in ((3, (8, 6)), (8, (3, 6)), (8, (6, 3)), (8, (6, 3, 7)), (4, (4,))):
        layer = perturbed(pf.Residual(features, hidden_features=hidden).double(), 1.0)
        z = torch.randn(features, dtype=torch.float64)
        jacobian = torch.func.jacrev(lambda z, f=layer: f(z)[0])(z)
        assert torch.allclose(layer(z)[1], torch.linalg.slogdet(jacobian)[1], rtol=0, atol=1e-12)


class TestSolveSystem:
    def test_warns_where_there_is_no_root(self) -> None:
        y = torch.tensor([[0.5], [2.0]], dtype=torch.float64)
        with pytest.warns(InversionWarning, match="1 of 2 rows did not converge, worst residual 1"):
            solve_system(lambda t: (t.tanh(), lambda r: r / (1 - t.tanh() ** 2)), y, torch.zeros_like(y))

    def test_warns_of_not_a_number(self) -> None:
        y = torch.tensor([[math.nan], [2.0]], dtype=torch.float64)
        with pytest.warns(InversionWarning, match="1 of 2 rows"):
            root = solve_system(lambda t: (t.sinh(), lambda r: r / t.cosh()), y, torch.zeros_like(y))
        assert math.isclose(root[1].item(), math.asinh(2), rel_tol=1e-14)

    def test_where_whole_steps_diverge(self) -> None:
        """Newton's method for arcsinh overshoots without end from |t| > 2 or so."""
        y = torch.tensor([[0.1]], dtype=torch.float64)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            root = solve_system(lambda t: (t.asinh(), lambda r: r * (1 + t**2).sqrt()), y, torch.full_like(y, 50.0))
        assert math.isclose(root.item(), math.sinh(0.1), rel_tol=1e-14)

    def test_derivatives(self) -> None:
        y = torch.tensor([[0.3, -1.2]], dtype=torch.float64, requires_grad=True)
        c = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

        def inverse(y: Tensor, c: Tensor) -> Tensor:
            return solve_system(lambda t: (t + c * t**3, lambda r: r / (1 + 3 * c * t**2)), y, y)

        assert torch.autograd.gradcheck(inverse, (y, c))
        assert torch.autograd.gradgradcheck(inverse, (y, c))


def test_errors() -> None:
    with pytest.raises(ValueError, match="expected 0 < lipschitz < 1, got 1"):
        pf.Residual(2, lipschitz=1.0)
    with pytest.raises(ValueError, match="expected at least one hidden layer"):
        pf.Residual(2, hidden_features=())
    with pytest.raises(ValueError, match="expected log_det 'auto'"):
        pf.Residual(2, log_det="fast")  # type: ignore[arg-type]
