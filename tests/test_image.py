"""Image layers against torch's own functions, and what their masks promise."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import pushforward as pf
from pushforward.bijections import channel_mask, checkerboard_mask

D = torch.float64


def perturbed(module: torch.nn.Module) -> None:
    torch.manual_seed(0)
    module.double()
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.3 * torch.randn_like(p))


def image(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(1))


def test_squeeze_is_pixel_unshuffle() -> None:
    z = image(5, 7, 3, 4, 6)
    layer = pf.Squeeze(3, 4, 6)
    assert torch.equal(layer(z)[0], F.pixel_unshuffle(z, 2))
    assert torch.equal(layer.inverse(layer(z)[0])[0], z)
    assert (layer.data_shape, layer.inv.event_shape) == ((12, 2, 3), (12, 2, 3))


def test_invertible_conv_is_a_convolution() -> None:
    layer = pf.InvertibleConv(3, 4, 2)
    perturbed(layer)
    z = image(5, 3, 4, 2)
    bias = layer(torch.zeros(3, 4, 2, dtype=D))[0][:, 0, 0].detach()
    weight = layer(torch.eye(3, dtype=D)[..., None, None].expand(3, 3, 4, 2))[0][:, :, 0, 0].detach().T - bias[:, None]
    x, log_det = layer(z)
    assert torch.allclose(x, F.conv2d(z, weight[..., None, None], bias), rtol=0, atol=1e-12)
    assert torch.allclose(log_det, 8 * torch.linalg.slogdet(weight)[1], rtol=0, atol=1e-12)


def test_actnorm_starts_from_the_channels_of_a_batch() -> None:
    flow = pf.Flow(pf.Pixelwise(pf.ActNorm(2), 4, 4), pf.StandardNormal((2, 4, 4))).double()
    x = 3 + 2 * image(50, 2, 4, 4)
    flow.initialize(x)
    z = flow.to_base(x)
    assert z.mean((0, 2, 3)).abs().max() < 1e-6
    assert (z.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-6


@pytest.mark.parametrize("mask", [checkerboard_mask(2, 2, 4), channel_mask(3, 2, 2, flip=True), image(2, 3, 3) > 0])
def test_coupling_passes_what_the_mask_says_and_sees_nothing_else(mask: Tensor) -> None:
    layer = pf.ImageCoupling(mask, pf.Affine(), hidden_channels=4)
    perturbed(layer)
    n = mask.numel()
    z = image(*mask.shape)
    jacobian = torch.func.jacrev(lambda v: layer(v)[0])(z).reshape(n, n)
    passed = mask.flatten()
    assert torch.equal(jacobian[passed], torch.eye(n, dtype=D)[passed])
    moved = jacobian[~passed][:, ~passed]
    assert torch.equal(moved, torch.diag(moved.diagonal()))
    assert (jacobian[~passed][:, passed] != 0).any()


def test_masks() -> None:
    for make in (checkerboard_mask, channel_mask):
        mask, flipped = make(4, 4, 4), make(4, 4, 4, flip=True)
        assert torch.equal(mask, ~flipped)
        assert mask.sum() == 32


def test_parts_of_a_multiscale_latent() -> None:
    coarse = pf.Chain(pf.InvertibleConv(4, 1, 1), pf.Squeeze(1, 2, 2).inv)
    fine = pf.Chain(pf.InvertibleConv(4, 2, 2), pf.Squeeze(1, 4, 4).inv)
    layer = pf.MultiScale(coarse, fine)
    perturbed(layer)
    z = image(5, 16)
    x, log_det = layer(z)
    inner, log_det_coarse = coarse(z[:, :4].reshape(5, 4, 1, 1))
    outer, log_det_fine = fine(torch.cat([inner, z[:, 4:].reshape(5, 3, 2, 2)], dim=1))
    assert torch.equal(x, outer)
    assert torch.equal(log_det, log_det_coarse + log_det_fine)
    # What left after the first level, read from the data, does not depend on the coarser level.
    with torch.no_grad():
        next(coarse.parameters()).add_(1.0)
    assert torch.equal(layer.inverse(x)[0][:, 4:], layer.inverse(outer)[0][:, 4:])
    assert not torch.allclose(layer.inverse(x)[0][:, :4], z[:, :4])


def test_initialize_goes_through_the_levels() -> None:
    flow = pf.glow((1, 4, 4), levels=2, layers=1, hidden_channels=4).double()
    x = 5 + 3 * image(64, 1, 4, 4)
    before = flow.log_prob(x).mean()
    flow.initialize(x)
    z = flow.to_base(x)
    assert flow.log_prob(x).mean() > before
    assert abs(z.mean().item()) < 1e-6
    assert abs(z.square().mean().item() - 1) < 1e-6


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: pf.Squeeze(1, 3, 4), r"even height and width, got \(1, 3, 4\)"),
        (lambda: pf.glow((3, 6, 8), levels=2), r"divisible by 2\*\*levels = 4, got features=\(3, 6, 8\)"),
        (lambda: pf.glow(4), "shape"),
        (lambda: pf.Pixelwise(pf.Squeeze(1, 2, 2), 2, 2), "events of shape"),
        (lambda: pf.ImageCoupling(torch.ones(2, 2), pf.Affine()), "channels, height, width"),
        (lambda: pf.ImageCoupling(torch.ones(1, 2, 2), pf.Affine()), "true and false"),
        (lambda: pf.MultiScale(), "at least one level"),
        (lambda: pf.MultiScale(pf.Exp()), "state their event shape"),
        (lambda: pf.MultiScale(pf.InvertibleConv(4, 2, 2), pf.InvertibleConv(4, 2, 2)), "further channels"),
        (lambda: pf.nn.ConvNet(1, 1, kernel_size=2), "odd kernel_size"),
    ],
)
def test_bad_use(build: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()  # type: ignore[operator]
