"""Block autoregressive layers: triangular, increasing, onto."""

import pytest
import torch

import pushforward as pf


def layer_of(order: list[int] | None = None, scale: float = 0.5) -> pf.BlockAutoregressive:
    torch.manual_seed(0)
    layer = pf.BlockAutoregressive(5, (4, 3), order=order).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return layer


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [3, 1, 4, 0, 2]])
def test_jacobian(order: list[int]) -> None:
    """Triangular in the order of the features, full below the diagonal, positive on it."""
    layer = layer_of(order)
    z = 3 * torch.randn(20, 5, dtype=torch.float64)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda v: layer(v)[0]))(z)
    in_order = jacobian[:, order][:, :, order]
    assert (in_order.triu(1) == 0).all()
    below = torch.ones(5, 5).tril(-1).bool()
    assert (in_order.abs().amax(0)[below] > 1e-3).all()
    diagonal = in_order.diagonal(dim1=-2, dim2=-1)
    assert (diagonal > 0).all()
    assert torch.allclose(layer(z)[1], diagonal.log().sum(-1), rtol=0, atol=1e-12)
    assert torch.allclose(layer(z)[1], torch.linalg.slogdet(jacobian)[1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("scale", [0.5, 2.0, 5.0])
def test_inverse_of_any_point(scale: float) -> None:
    layer = layer_of(scale=scale)
    x = torch.cat([torch.randn(50, 5), 1e4 * torch.randn(50, 5)]).double()
    with torch.no_grad():
        z, log_det = layer.inverse(x)
        again, log_det_forward = layer(z)
    assert ((again - x).abs() <= 1e-11 * (1 + x.abs() + z.abs().amax(-1, keepdim=True))).all()
    assert torch.allclose(log_det, -log_det_forward, rtol=0, atol=1e-9)


def test_slope_far_out_is_the_output_scale() -> None:
    """So the map is onto."""
    layer = layer_of()
    log_scale = layer.params()[-1]
    for side in (-1e6, 1e6):
        assert torch.allclose(layer(torch.full((5,), side, dtype=torch.float64))[1], log_scale.sum())


def test_log_products_do_not_underflow() -> None:
    """A slope of e^-5 in each of 200 layers, whose product float64 cannot hold."""
    layer = pf.BlockAutoregressive(1, (1,) * 200).double()
    with torch.no_grad():
        layer.params.constants[:200] = 0  # b: at z = 0 every tanh is at its centre
        layer.params.constants[200:400] = -50  # the raw gain
    log_det = layer(torch.zeros(1, dtype=torch.float64))[1]
    assert torch.allclose(log_det, torch.tensor(-1000.0, dtype=torch.float64), rtol=1e-12)


def test_bnaf_learns_two_modes() -> None:
    """A density with a gap, to within 0.05 nats of its entropy; an affine map is 0.4 nats away."""
    torch.manual_seed(0)
    side = torch.randint(2, (2000, 1)) * 2.0 - 1
    x = 2 * side + 0.5 * torch.randn(2000, 1)
    flow = pf.bnaf(1, layers=1, hidden=(8, 8))
    pf.train(pf.MaximumLikelihood(flow), x, max_steps=600, learning_rate=1e-2, progress=False)
    truth = (
        torch.distributions.Normal(torch.tensor([-2.0, 2.0]), 0.5).log_prob(x).logsumexp(-1) - torch.tensor(2.0).log()
    )
    assert (truth.mean() - flow.log_prob(x).mean()).item() <= 0.05


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"hidden layers of at least one unit per feature, got \(\)"):
        pf.BlockAutoregressive(3, ())
    with pytest.raises(ValueError, match="at least one unit"):
        pf.BlockAutoregressive(3, (4, 0))
    with pytest.raises(ValueError, match=r"order to be a permutation of 0, ..., 2, got \(0, 1\)"):
        pf.BlockAutoregressive(3, order=[0, 1])
