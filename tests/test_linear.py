"""Linear layers against dense matrices."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import pushforward as pf

LAYERS: dict[str, Callable[[], pf.Bijection]] = {
    "LU": lambda: pf.LU(6),
    "Triangular": lambda: pf.Triangular(6),
    "Triangular(upper)": lambda: pf.Triangular(6, upper=True),
    "QR": lambda: pf.QR(6),
    "QR(reflections = 3)": lambda: pf.QR(6, 3),
    "MatrixExponential": lambda: pf.MatrixExponential(6),
    "Householder": lambda: pf.Householder(6, 3),
    "Orthogonal(cayley)": lambda: pf.Orthogonal(6),
    "Orthogonal(exponential)": lambda: pf.Orthogonal(6, kind="exponential"),
}
EYE = torch.eye(6, dtype=torch.float64)


def perturbed(layer: pf.Bijection, scale: float) -> pf.Bijection:
    layer = layer.double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return layer


def dense(layer: pf.Bijection) -> tuple[Tensor, Tensor]:
    """A and b of x = A z + b."""
    with torch.no_grad():
        b = layer(torch.zeros(6, dtype=torch.float64))[0]
        return (layer(EYE)[0] - b).T, b


@pytest.mark.parametrize("name", LAYERS)
def test_against_dense_algebra(name: str) -> None:
    torch.manual_seed(0)
    layer = perturbed(LAYERS[name](), 0.4)
    a, b = dense(layer)
    z = torch.randn(5, 7, 6, dtype=torch.float64)
    x, log_det = layer(z)
    assert torch.allclose(x, z @ a.T + b, rtol=0, atol=1e-13)
    assert torch.allclose(log_det, torch.linalg.slogdet(a)[1].expand(5, 7), rtol=0, atol=1e-12)
    z_again, log_det_inverse = layer.inverse(x)
    assert torch.allclose(z_again, torch.linalg.solve(a, (x - b).unsqueeze(-1)).squeeze(-1), rtol=0, atol=1e-11)
    assert torch.allclose(log_det_inverse, -log_det, rtol=0, atol=1e-13)


@pytest.mark.parametrize("scale", [0.3, 3.0])
@pytest.mark.parametrize("kind", ["cayley", "exponential"])
def test_orthogonal_is_a_rotation(kind: str, scale: float) -> None:
    torch.manual_seed(0)
    q, b = dense(perturbed(pf.Orthogonal(6, kind=kind), scale))
    assert (b == 0).all()
    assert (q - EYE).abs().max() > 0.1
    assert (q.T @ q - EYE).abs().max() <= 1e-13
    assert abs(torch.linalg.det(q).item() - 1) <= 1e-13


def test_exponential_of_a_plane_is_its_rotation() -> None:
    layer = pf.Orthogonal(2, kind="exponential").double()
    angle = torch.tensor(0.7, dtype=torch.float64)
    layer.params.set_(torch.tensor([[0.0, 0.0], [0.7, 0.0]], dtype=torch.float64))
    x, _ = layer(torch.tensor([1.0, 0.0], dtype=torch.float64))
    assert torch.allclose(x, torch.stack([angle.cos(), angle.sin()]))
    layer = pf.Orthogonal(2).double()  # cayley: tan(angle / 2) in place of the angle
    layer.params.set_(torch.tensor([[0.0, (angle / 2).tan().item()], [0.0, 0.0]], dtype=torch.float64))
    x, _ = layer(torch.tensor([1.0, 0.0], dtype=torch.float64))
    assert torch.allclose(x, torch.stack([angle.cos(), angle.sin()]))


@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_householder_is_the_product_of_its_reflections(count: int) -> None:
    torch.manual_seed(0)
    layer = perturbed(pf.Householder(6, count), 2.0)
    (vectors,) = layer.params(None)
    product = EYE
    for v in vectors:
        product = (EYE - 2 * v[:, None] * v[None, :] / v.square().sum()) @ product
    q, _ = dense(layer)
    assert torch.allclose(q, product, rtol=0, atol=1e-13)
    assert (q.T @ q - EYE).abs().max() <= 1e-13
    assert abs(torch.linalg.det(q).item() - (-1) ** count) <= 1e-13


def test_qr_has_its_factors() -> None:
    torch.manual_seed(0)
    layer = perturbed(pf.QR(6), 0.5)
    a, _ = dense(layer)
    upper = layer._factors(None)[0]
    _, r = torch.linalg.qr(a)
    sign = r.diagonal().sign()
    assert torch.allclose(sign[:, None] * r, upper, rtol=0, atol=1e-12)
    assert torch.linalg.det(a) > 0


def test_matrix_exponential() -> None:
    torch.manual_seed(0)
    layer = perturbed(pf.MatrixExponential(6), 0.5)
    matrix, _ = layer.params(None)
    values, vectors = torch.linalg.eig(matrix)
    expected = (vectors @ torch.diag(values.exp()) @ torch.linalg.inv(vectors)).real
    assert torch.allclose(dense(layer)[0], expected, rtol=0, atol=1e-12)
    assert torch.allclose(layer(EYE)[1], matrix.trace().expand(6))


@pytest.mark.parametrize("upper", [False, True])
def test_triangular(upper: bool) -> None:
    torch.manual_seed(0)
    a, _ = dense(perturbed(pf.Triangular(6, upper=upper), 0.5))
    assert ((a.tril(-1) if upper else a.triu(1)) == 0).all()
    assert (a.diagonal() > 0).all()
    assert (a - torch.diag(a.diagonal())).abs().max() > 0.1


def test_errors() -> None:
    with pytest.raises(ValueError, match="Householder: expected reflections >= 1, got 0"):
        pf.Householder(3, 0)
    with pytest.raises(ValueError, match="QR: expected reflections >= 1, got 0"):
        pf.QR(3, 0)
    with pytest.raises(ValueError, match="Orthogonal: expected kind 'cayley' or 'exponential', got 'givens'"):
        pf.Orthogonal(3, kind="givens")
