"""The sequential direction of masked autoregressive layers: values and gradients against operations of torch's own."""

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import pushforward as pf
from pushforward.transformers import Transformer

pytestmark = pytest.mark.kernel
F64 = torch.float64
TRANSFORMERS = {"affine": pf.Affine(), "spline": pf.RationalQuadratic(4), "sigmoidal": pf.DeepSigmoidal(3)}
NETWORKS = list(itertools.product(TRANSFORMERS, [False, True], [0, 2], [nn.SiLU, nn.ReLU, nn.PReLU]))


def _layer(transformer: Transformer, features: int = 5, **options: object) -> pf.MaskedAutoregressive:
    torch.manual_seed(0)
    layer = pf.MaskedAutoregressive(transformer, features, hidden_features=(12, 12, 12), **options).double()  # type: ignore[arg-type]
    for p in layer.parameters():
        p.data.add_(0.3 * torch.randn_like(p))
    return layer


def _loss(outputs: tuple[Tensor, Tensor]) -> Tensor:
    """A number in which every entry counts differently."""
    x, log_det = outputs
    return (x.sin() * torch.arange(x.numel()).view(x.shape)).sum() + (log_det * torch.arange(log_det.shape[-1])).sum()


@pytest.mark.parametrize(("name", "residual", "context_features", "activation"), NETWORKS)
def test_gradients(name: str, residual: bool, context_features: int, activation: type[nn.Module]) -> None:
    """Of input, context and parameters: in place, and by what function transforms see."""
    options = {"residual": residual, "context_features": context_features, "activation": activation}
    layer = _layer(TRANSFORMERS[name], order=[2, 0, 1, 4, 3], **options)
    z = torch.randn(2, 7, 5, dtype=F64, requires_grad=True)
    context = torch.randn(7, context_features, dtype=F64, requires_grad=True) if context_features else None
    names, parameters = zip(*layer.named_parameters(), strict=True)
    inputs = [z, *([] if context is None else [context]), *parameters]
    found = torch.autograd.grad(_loss(layer(z, context)), inputs)

    def plain(*inputs: Tensor) -> Tensor:
        z, *rest = inputs
        context = rest.pop(0) if context_features else None
        return _loss(functional_call(layer, dict(zip(names, rest, strict=True)), (z, context)))

    expected = torch.func.grad(plain, tuple(range(len(inputs))))(*inputs)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_second_derivatives() -> None:
    layer = _layer(TRANSFORMERS["spline"], features=3, context_features=1)
    z, context = torch.randn(2, 3, dtype=F64, requires_grad=True), torch.randn(2, 1, dtype=F64, requires_grad=True)
    bias = next(p for name, p in layer.named_parameters() if name.endswith("0.bias"))

    def function(z: Tensor, context: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        x, log_det = functional_call(layer, {"conditioner.layers.0.bias": bias}, (z, context))
        return x, log_det

    assert torch.autograd.gradgradcheck(function, (z, context, bias))


def test_second_derivatives_of_a_layer_applied_twice() -> None:
    """The second input depends on the same parameters, which must not count twice."""
    layer = _layer(TRANSFORMERS["affine"], features=3)
    z = torch.randn(4, 3, dtype=F64)
    p = next(layer.parameters())
    (first,) = torch.autograd.grad(_loss(layer(layer(z)[0])), p, create_graph=True)
    (plain,) = torch.autograd.grad(_loss(layer(layer(z)[0])), p)
    torch.testing.assert_close(first, plain, rtol=1e-10, atol=1e-10)
    eps = 1e-6 * torch.randn_like(p)
    (second,) = torch.autograd.grad((first * eps).sum(), p)
    with torch.no_grad():
        p.add_(eps)
    (after,) = torch.autograd.grad(_loss(layer(layer(z)[0])), p)
    torch.testing.assert_close(after - plain, second, rtol=1e-3, atol=1e-8)


def test_only_what_is_asked_for() -> None:
    layer = _layer(TRANSFORMERS["affine"], context_features=2)
    frozen = layer.conditioner.layers[1].weight
    frozen.requires_grad_(False)  # type: ignore[operator]
    context = torch.randn(7, 2, dtype=F64)
    x, log_det = layer(torch.randn(7, 5, dtype=F64), context)
    log_det.sum().backward()
    assert frozen.grad is None and layer.conditioner.layers[1].bias.grad is not None
    assert x.requires_grad and not layer(torch.randn(0, 5, dtype=F64), context[:0])[0].numel()


def test_forward_mode() -> None:
    layer = _layer(TRANSFORMERS["affine"])
    z, tangent = torch.randn(2, 7, 5, dtype=F64)
    with torch.autograd.forward_ad.dual_level():
        x, _ = layer(torch.autograd.forward_ad.make_dual(z, tangent))
        found = torch.autograd.forward_ad.unpack_dual(x).tangent
    expected = torch.func.jvp(lambda z: layer(z)[0], (z,), (tangent,))[1]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
