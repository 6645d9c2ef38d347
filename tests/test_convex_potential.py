"""Convex potentials: derivatives by hand against autodiff, and what convexity promises."""

from typing import Any

import pytest
import torch

import pushforward as pf
from pushforward.targets import TwoMoons


def potential_layer(features: int, hidden: tuple[int, ...], scale: float) -> pf.ConvexPotential:
    layer = pf.ConvexPotential(features, hidden_features=hidden).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += scale * torch.randn_like(parameter)
    return layer


@pytest.mark.parametrize("hidden", [(8,), (8, 6), (5, 6, 7)])
def test_map_and_jacobian_are_gradient_and_hessian(hidden: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = potential_layer(3, hidden, 1.0)
    z = 3 * torch.randn(20, 3, dtype=torch.float64)
    x, log_det = layer(z)
    gradient = torch.func.vmap(torch.func.grad(layer.potential))(z)
    hessian = torch.func.vmap(torch.func.hessian(layer.potential))(z)
    scale = 1 + hessian.abs().max().item()
    assert torch.allclose(x, gradient, rtol=0, atol=1e-13 * scale * 10)
    by_hand = layer.potential.derivatives(z, layer.potential.coefficients())[1]
    assert torch.allclose(by_hand, hessian, rtol=0, atol=1e-13 * scale)
    assert torch.allclose(log_det, torch.linalg.slogdet(hessian)[1], rtol=0, atol=1e-10)


def test_jacobian_is_symmetric_and_its_eigenvalues_bounded() -> None:
    torch.manual_seed(0)
    layer = potential_layer(4, (8, 6), 2.0)
    z = 10 * torch.randn(200, 4, dtype=torch.float64)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda z: layer(z)[0]))(z)
    size = jacobian.abs().amax()
    assert torch.allclose(jacobian, jacobian.mT, rtol=0, atol=1e-13 * size.item())
    assert torch.linalg.eigvalsh(jacobian).min() >= layer.min_curvature - 1e-13 * size


@pytest.mark.parametrize("distance", [1.0, 100.0, 1e6])
def test_inverse_of_far_points(distance: float) -> None:
    """Onto: any x has a z, also through slopes that differ by orders of magnitude."""
    torch.manual_seed(0)
    layer = potential_layer(3, (8, 6), 1.5)
    x = distance * torch.randn(200, 3, dtype=torch.float64)
    z, log_det = layer.inverse(x)
    again, log_det_forward = layer(z)
    hessian = layer.potential.derivatives(z, layer.potential.coefficients())[1]
    rounding = 1e-14 * (1 + x.norm(dim=-1) + torch.linalg.matrix_norm(hessian, 2) * z.norm(dim=-1))
    assert ((again - x).norm(dim=-1) <= rounding).all()
    assert torch.allclose(log_det, -log_det_forward, rtol=0, atol=1e-12)


def test_starts_near_the_identity() -> None:
    torch.manual_seed(0)
    z = 3 * torch.randn(1000, 2)
    x, log_det = pf.ConvexPotential(2)(z)
    assert (x - z).abs().max() < 0.5
    assert log_det.abs().max() < 0.5


@pytest.mark.parametrize(
    ("steps", "rate", "kwargs", "bound"),
    [
        (150, 3e-2, {"layers": 2, "hidden_features": (32,)}, 0.6),
        pytest.param(1000, 3e-3, {}, 0.15, marks=pytest.mark.slow),
    ],
)
def test_bends_are_learnt_in_good_time(steps: int, rate: float, kwargs: dict[str, Any], bound: float) -> None:
    """KL(p || q) in nats on two moons; 0.89 for the best normal distribution."""
    target = TwoMoons(noise=0.1)
    torch.manual_seed(0)
    x, fresh = target.sample(5000), target.sample(5000)
    flow = pf.convex_potential(2, **kwargs)
    objective = pf.MaximumLikelihood(flow)
    pf.train(objective, x, max_steps=steps, batch_size=256, learning_rate=rate, ema=0.9, progress=False)
    assert (target.log_prob(fresh) - flow.log_prob(fresh)).mean() <= bound


def test_errors() -> None:
    with pytest.raises(ValueError, match="expected 0 < min_curvature < 1, got 0"):
        pf.ConvexPotential(2, min_curvature=0.0)
    with pytest.raises(ValueError, match="expected at least one hidden layer"):
        pf.ConvexPotential(2, hidden_features=())
