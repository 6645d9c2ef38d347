"""Planar, radial and Sylvester layers against autodiff, each other, and roots found by bisection."""

import itertools
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import pushforward as pf
from pushforward.bijections.planar import solve_tanh

LAYERS: dict[str, Callable[[], pf.Bijection]] = {
    "Planar": lambda: pf.Planar(6),
    "Radial": lambda: pf.Radial(6),
    "Sylvester(orthogonal)": lambda: pf.Sylvester(6, 4),
    "Sylvester(householder)": lambda: pf.Sylvester(6, 6, kind="householder"),
    "Sylvester(triangular)": lambda: pf.Sylvester(6, 3, kind="triangular", reverse=True),
}


def perturbed(layer: pf.Bijection, scale: float) -> pf.Bijection:
    layer = layer.double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return layer


def relative(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().amax(-1) / expected.abs().amax(-1).clamp_min(1)).max().item()


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_log_determinants(name: str, scale: float) -> None:
    torch.manual_seed(0)
    layer = perturbed(LAYERS[name](), scale)
    z = torch.cat([torch.randn(3, 6), 30 * torch.randn(3, 6)]).double()
    for function in (layer, layer.inverse):
        jacobian = torch.stack([torch.func.jacrev(lambda v, f=function: f(v)[0])(row) for row in z])
        assert torch.allclose(function(z)[1], torch.linalg.slogdet(jacobian)[1], rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", LAYERS)
def test_inverse_of_any_point(name: str) -> None:
    """Points that the layer did not draw, far ones too, with constraints near their border: forward gives them back."""
    for seed, scale in itertools.product(range(3), (0.3, 3.0, 10.0)):
        torch.manual_seed(seed)
        layer = perturbed(LAYERS[name](), scale)
        x = torch.cat([torch.zeros(1, 6), torch.randn(20, 6), 1e4 * torch.randn(20, 6)]).double()
        with torch.no_grad():
            z, log_det = layer.inverse(x)
            again, _ = layer(z)
        assert z.isfinite().all()
        assert log_det.isfinite().all()
        # The largest factor of a layer magnifies the rounding of z.
        assert relative(again, x) <= 1e-13 * max(1.0, relative(z, torch.zeros_like(z))) * (1 + scale**4)


class TestRadial:
    def test_against_a_bracketed_root(self) -> None:
        """r + beta r / (alpha + r) = |x - z0|, with alpha + beta down to 1e-6 of alpha."""
        alpha, z0 = 1.5, torch.tensor([0.5, -1.0], dtype=torch.float64)
        for ratio in (1e-6, 0.3, 1.0, 50.0):
            layer = radial(z0, alpha, ratio)
            beta = alpha * (ratio - 1)
            for distance in (1e-8, 1e-3, 0.7, 5.0, 1e3):
                x = z0 + distance * torch.tensor([0.6, 0.8], dtype=torch.float64)
                z, _ = layer.inverse(x)
                low, high = 0.0, distance + abs(beta)
                for _ in range(200):
                    r = 0.5 * (low + high)
                    low, high = (low, r) if r + beta * r / (alpha + r) > distance else (r, high)
                # |z - z0| is rounded against z0, and the condition of the root is at most the inverse of the ratio's.
                assert abs((z - z0).norm().item() - r) <= 1e-13 * (1 + r) + 1e-14 * r / ratio

    def test_at_the_centre(self) -> None:
        """x = z0: the map is (alpha + beta) / alpha times the identity there, and its derivatives are finite."""
        z0 = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
        layer = radial(z0, 1.5, 0.2)
        for function, expected in ((layer, 0.2), (layer.inverse, 5.0)):
            value, log_det = function(z0)
            assert torch.allclose(value, z0)
            assert torch.allclose(log_det, 3 * torch.tensor(expected, dtype=torch.float64).log())
            jacobian = torch.func.jacrev(lambda v, f=function: f(v)[0])(z0)
            assert torch.allclose(jacobian, expected * torch.eye(3, dtype=torch.float64))
            assert torch.func.hessian(lambda v, f=function: f(v)[1])(z0).isfinite().all()


class TestSylvester:
    def test_one_column_is_planar(self) -> None:
        torch.manual_seed(0)
        layer = perturbed(pf.Sylvester(4, 1), 1.0)
        q, r, r_tilde, gain, b = layer._factors(None)
        planar = pf.Planar(4).double()
        w, u = (q * r_tilde).squeeze(-1), (q * r).squeeze(-1)
        raw = (w * u).sum()
        assert torch.allclose(1 + raw, gain)
        # u as it is before Planar's constraint moves it along w: elu(raw) = w.u.
        unconstrained = u + (torch.where(raw < 0, torch.log1p(raw), raw) - raw) / w.square().sum() * w
        planar.params.set_(unconstrained, w, b)
        z = 3 * torch.randn(5, 4, dtype=torch.float64)
        for found, expected in zip(layer(z) + layer.inverse(z), planar(z) + planar.inverse(z), strict=True):
            assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)

    def test_formula(self) -> None:
        torch.manual_seed(0)
        layer = perturbed(pf.Sylvester(5, 3), 1.0)
        q, r, r_tilde, _, b = layer._factors(None)
        assert (r.tril(-1) == 0).all()
        assert (r_tilde.tril(-1) == 0).all()
        assert (r.diagonal() * r_tilde.diagonal() > -1).all()
        z = torch.randn(5, dtype=torch.float64)
        assert torch.allclose(layer(z)[0], z + q @ r @ torch.tanh(r_tilde @ q.T @ z + b))

    @pytest.mark.parametrize("scale", [0.3, 10.0])
    @pytest.mark.parametrize("kind", ["orthogonal", "householder", "triangular"])
    def test_columns_are_orthonormal(self, kind: str, scale: float) -> None:
        torch.manual_seed(0)
        layer = perturbed(pf.Sylvester(8, 5, kind=kind), scale)
        q = layer._factors(None)[0]
        assert q.shape == (8, 5)
        assert (q.T @ q - torch.eye(5)).abs().max() <= 1e-14

    def test_across_the_columns_nothing_moves(self) -> None:
        torch.manual_seed(0)
        layer = perturbed(pf.Sylvester(5, 2), 1.0)
        q = layer._factors(None)[0]
        z = 3 * torch.randn(7, 5, dtype=torch.float64)
        for value, _ in (layer(z), layer.inverse(z)):
            moved = value - z
            assert (moved.abs().amax(-1) > 0.01).any()
            assert (moved - moved @ q @ q.T).abs().max() <= 1e-14

    def test_errors(self) -> None:
        with pytest.raises(ValueError, match="expected 1 <= m <= features = 3, got 5"):
            pf.Sylvester(3, 5)
        with pytest.raises(ValueError, match="expected kind 'orthogonal', 'householder' or 'triangular', got 'qr'"):
            pf.Sylvester(3, kind="qr")
        with pytest.raises(ValueError, match="got 2 for kind 'orthogonal'"):
            pf.Sylvester(3, reflections=2)
        with pytest.raises(ValueError, match="reflections >= 1"):
            pf.Sylvester(3, kind="householder", reflections=0)
        with pytest.raises(ValueError, match="reverse=True for kind 'triangular' alone"):
            pf.Sylvester(3, reverse=True)


def radial(z0: Tensor, alpha: float, ratio: float) -> pf.Radial:
    """A layer with a given alpha and (alpha + beta) / alpha."""
    raw = [
        torch.tensor(v, dtype=torch.float64).expm1().log() - torch.tensor(1.0).double().expm1().log()
        for v in (alpha, ratio)
    ]
    layer = pf.Radial(len(z0)).double()
    layer.params.set_(z0, *raw)
    return layer


def test_tanh_root_where_tanh_is_one() -> None:
    """The root that lies at y + 1 - gain exactly: found as fast as any other, so without a warning."""
    y = torch.linspace(-40, 40, 10001, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for gain in (0.02, 0.9793701262351961, 7.0):
            a = solve_tanh(torch.tensor(gain, dtype=torch.float64), y)
            assert (a + (gain - 1) * torch.tanh(a) - y).abs().max() <= 1e-14 * 40


def test_layers_in_a_row_are_the_layers_one_by_one() -> None:
    """Values, and first and second derivatives, of what a chain computes for all of them at once."""
    torch.manual_seed(0)
    layers = [pf.Planar(3).double() for _ in range(5)]
    for layer in layers:
        layer.params.constants.data.normal_()
    z = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    inputs = [z, *(layer.params.constants for layer in layers)]

    def one_by_one(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        total = torch.zeros(7, dtype=torch.float64)
        for layer in layers:
            z, log_det = layer(z)
            total = total + log_det
        return z, total

    results = []
    for function in (one_by_one, pf.Chain(*layers)):
        x, log_det = function(z)
        loss = (x.sin().sum(-1) * log_det).sum()
        plain = torch.autograd.grad(loss, inputs, retain_graph=True)
        first = torch.autograd.grad(loss, inputs, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), inputs)
        results.append([x, log_det, *plain, *first, *second])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
