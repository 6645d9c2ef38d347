"""Batch normalisation against torch's, in both modes; layers that start from data."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import pushforward as pf


def pair() -> tuple[pf.BatchNorm, torch.nn.BatchNorm1d]:
    """Two layers of equal parameters."""
    torch.manual_seed(0)
    ours, theirs = pf.BatchNorm(3, momentum=0.2, eps=1e-3).double(), torch.nn.BatchNorm1d(3, 1e-3, 0.2).double()
    beta, log_gamma = torch.randn(2, 3, dtype=torch.float64)
    ours.params.set_(beta, log_gamma)
    with torch.no_grad():
        theirs.bias.copy_(beta)
        theirs.weight.copy_(log_gamma.exp())
    return ours, theirs


def test_as_in_torch() -> None:
    ours, theirs = pair()
    for _ in range(3):
        x = 2 + 3 * torch.randn(8, 3, dtype=torch.float64)
        assert torch.allclose(ours.inverse(x)[0], theirs(x), rtol=0, atol=1e-13)
        assert theirs.running_mean is not None
        assert theirs.running_var is not None
        assert torch.allclose(ours.running_mean, theirs.running_mean, rtol=0, atol=1e-14)
        assert torch.allclose(ours.running_var, theirs.running_var, rtol=0, atol=1e-14)
    ours.eval()
    theirs.eval()
    before = ours.running_mean.clone()
    x = torch.randn(5, 3, dtype=torch.float64)
    z, log_det = ours.inverse(x)
    assert torch.allclose(z, theirs(x), rtol=0, atol=1e-13)
    jacobian = torch.func.jacrev(lambda v: ours.inverse(v)[0])(x[0])
    assert torch.allclose(log_det[0], torch.linalg.slogdet(jacobian)[1])
    assert torch.allclose(ours(z)[0], x, rtol=0, atol=1e-13)
    assert (ours.running_mean == before).all()


def test_gradients_pass_through_the_statistics() -> None:
    ours, theirs = pair()
    x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(6, 3, dtype=torch.float64)
    found, expected = (torch.autograd.grad((weight * z).sum(), x)[0] for z in (ours.inverse(x)[0], theirs(x)))
    assert torch.allclose(found, expected, rtol=0, atol=1e-13)


def test_log_det_is_that_of_the_affine_map_of_the_batch() -> None:
    ours, _ = pair()
    x = 2 + 3 * torch.randn(4, 2, 3, dtype=torch.float64)
    scale = ours.params()[1].exp() / (x.var((0, 1), correction=0) + 1e-3).sqrt()
    assert torch.allclose(ours.inverse(x)[1], scale.log().sum().expand(4, 2))


def test_forward_takes_the_running_statistics_in_train_mode_too() -> None:
    ours, _ = pair()
    ours.initialize(2 + 3 * torch.randn(50, 3, dtype=torch.float64))
    z = torch.randn(4, 3, dtype=torch.float64)
    x, log_det = ours(z)
    x_eval, log_det_eval = ours.eval()(z)
    assert (x == x_eval).all()
    assert (log_det == log_det_eval).all()


def test_initialize_and_train() -> None:
    torch.manual_seed(0)
    x = torch.tensor([100.0, -3.0]) + torch.tensor([5.0, 0.01]) * torch.randn(1000, 2)
    layer = pf.BatchNorm(2)
    z = layer.initialize(x)
    assert torch.allclose(z.mean(0), torch.zeros(2), atol=1e-3)
    assert torch.allclose(layer.running_mean, x.mean(0))
    assert torch.allclose(layer.running_var, x.var(0))
    flow = pf.Flow(pf.Chain(pf.Planar(2), pf.BatchNorm(2, eps=1e-8)), pf.StandardNormal(2))
    pf.train(pf.MaximumLikelihood(flow), x, max_steps=20, progress=False)
    truth = torch.distributions.Normal(torch.tensor([100.0, -3.0]), torch.tensor([5.0, 0.01]))
    flow.eval()
    assert abs((flow.log_prob(x) - truth.log_prob(x).sum(-1)).mean().item()) <= 0.02


def test_saved_with_its_statistics(tmp_path: Path) -> None:
    ours, _ = pair()
    ours.inverse(2 + 3 * torch.randn(8, 3, dtype=torch.float64))
    flow = pf.Flow(ours, pf.StandardNormal(3)).double()
    pf.save(flow, tmp_path / "flow.safetensors")
    again = pf.load(tmp_path / "flow.safetensors").eval()
    x = torch.randn(1, 3, dtype=torch.float64)
    assert (again.log_prob(x) == flow.eval().log_prob(x)).all()


def test_errors() -> None:
    with pytest.raises(ValueError, match="expected 0 < momentum <= 1 and eps > 0, got momentum=0"):
        pf.BatchNorm(3, momentum=0)
    layer = pf.BatchNorm(3)
    for x in (torch.zeros(3), torch.zeros(1, 3), torch.zeros(0, 3)):
        with pytest.raises(ValueError, match=r"at least 2 rows in train mode, got [01]; call eval\(\)"):
            layer.inverse(x)
    layer.eval().inverse(torch.zeros(3))


@pytest.mark.parametrize("recipe", [pf.residual_flow, pf.gaussianization])
def test_only_new_layers_start_from_data(recipe: Callable[..., pf.Flow]) -> None:
    """Training goes on where it stopped, on other data too."""
    torch.manual_seed(0)
    flow = recipe(2, layers=2, hidden_features=(8,))
    x = 5 + 2 * torch.randn(300, 2)
    start = flow.log_prob(x).mean()
    flow.initialize(x)
    fitted = flow.log_prob(x)
    assert fitted.mean() > start + 1
    flow.initialize(-x)
    assert torch.equal(flow.log_prob(x), fitted)
