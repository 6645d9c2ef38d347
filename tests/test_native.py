"""Compiled kernels against torch's operations: the same numbers, on every route, and no kernel where none may be."""

import copy
import itertools
import math
import os
import pickle
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

import pushforward as pf
from pushforward._native import library, parameters_apart, without_kernels
from pushforward._native.library import Library
from pushforward.training import FlatParameters, gradient_function
from pushforward.transformers import Transformer

ROOT = Path(__file__).parents[1]
F32, F64 = torch.float32, torch.float64
HAS_KERNELS = pf.native_status().instruction_set is not None
needs_kernels = pytest.mark.skipif(not HAS_KERNELS, reason="no compiled kernels here")
pytestmark = pytest.mark.kernel

MAPS: dict[str, Transformer] = {
    "affine": pf.Affine(2.0),
    "two bins": pf.RationalQuadratic(2, 3.0),
    "linear tails": pf.RationalQuadratic(8, 3.0),
    "free tails": pf.RationalQuadratic(5, 3.0, tails="free"),
    "circular": pf.RationalQuadratic(5, 3.0, tails="circular"),
    "most bins": pf.RationalQuadratic(64, 3.0),
}
DIRECTIONS = ["forward", "inverse"]
Built = TypeVar("Built", bound=nn.Module)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kernels that were called."""
    names: list[str] = []
    call = Library.call

    def counted(self: Library, name: str, *arguments: object) -> None:
        names.append(name)
        call(self, name, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Library, "call", counted)
    return names


def _draw(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def _loss(outputs: tuple[Tensor, Tensor]) -> Tensor:
    """A number in which every entry counts differently."""
    value, log = outputs
    weights = torch.linspace(-1, 1, value.numel(), dtype=value.dtype).view(value.shape)
    return (value.sin() * weights).sum() + (
        log * torch.linspace(1, 2, log.numel(), dtype=log.dtype).view(log.shape)
    ).sum()


def _outputs_and_gradients(function: Callable[..., tuple[Tensor, Tensor]], *inputs: Tensor) -> list[Tensor]:
    outputs = function(*inputs)
    return [*outputs, *torch.autograd.grad(_loss(outputs), inputs)]


def _inputs(transformer: Transformer, n: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    value = 2 * _draw(n, dtype=dtype)
    return value.requires_grad_(), _draw(n, transformer.num_params, seed=1, dtype=dtype).requires_grad_()


@needs_kernels
@pytest.mark.parametrize(("name", "direction", "n"), list(itertools.product(MAPS, DIRECTIONS, [1, 16, 67])))
def test_scalar_maps(name: str, direction: str, n: int, calls: list[str]) -> None:
    value, h = _inputs(MAPS[name], n, F64)
    function = getattr(MAPS[name], direction)
    found = _outputs_and_gradients(function, value, h)
    with torch.no_grad():
        without_graph = function(value, h)
    assert calls == ["map", "map_pull", "map"]
    with without_kernels():
        expected = _outputs_and_gradients(function, value, h)
    assert calls == ["map", "map_pull", "map"]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert all(torch.equal(one, other) for one, other in zip(found[:2], without_graph, strict=True))


@needs_kernels
@pytest.mark.parametrize(("name", "direction"), list(itertools.product(MAPS, DIRECTIONS)))
def test_scalar_maps_in_single_precision(name: str, direction: str) -> None:
    """At most three times as far from double precision as torch's operations are, over all entries."""
    function = getattr(MAPS[name], direction)
    inputs = _inputs(MAPS[name], 4000, F32)
    found = _outputs_and_gradients(function, *inputs)
    with without_kernels():
        plain = _outputs_and_gradients(function, *inputs)
        exact = _outputs_and_gradients(function, *[part.detach().double().requires_grad_() for part in inputs])
    for one, other, truth in zip(found, plain, exact, strict=True):
        scale = truth.abs().mean()
        assert (one - truth).norm() / truth.norm() <= 3 * (other - truth).norm() / truth.norm() + 1e-7
        assert (one - truth).abs().mean() <= 2 * (other - truth).abs().mean() + 1e-8 * scale


@needs_kernels
@pytest.mark.parametrize(("name", "dtype"), list(itertools.product(MAPS, [F32, F64])))
def test_extreme_parameters(name: str, dtype: torch.dtype) -> None:
    """Large ones and values far out; at the ends of the spline, where the log-slope hangs on a rounding, finite."""
    transformer = MAPS[name]
    ends = [-3.0, 3.0, math.nextafter(3.0, 4), 0.0, -1e30, 1e30, 50.0]
    value = torch.tensor([*ends, *_draw(25).tolist()], dtype=dtype)
    inner = value.abs() != 3
    tolerance = {"rtol": 1e-9, "atol": 1e-9} if dtype == F64 else {"rtol": 1e-3, "atol": 1e-3}
    for scale in (30.0, 300.0):
        h = scale * _draw(len(value), transformer.num_params, dtype=dtype)
        for direction in DIRECTIONS:
            found, found_log = getattr(transformer, direction)(value, h)
            with without_kernels():
                expected, expected_log = getattr(transformer, direction)(value, h)
            torch.testing.assert_close(found, expected, **tolerance)
            torch.testing.assert_close(found_log[inner], expected_log[inner], **tolerance)
            assert found_log.isfinite().all() and expected_log.isfinite().all()


@needs_kernels
@pytest.mark.parametrize(("name", "direction", "dtype"), list(itertools.product(MAPS, DIRECTIONS, [F32, F64])))
def test_nan_stays_nan(name: str, direction: str, dtype: torch.dtype) -> None:
    """Where a parameter or a value is NaN or infinite, the kernel answers what torch does: NaN at the same places."""
    transformer = MAPS[name]
    columns = transformer.num_params + 1
    value, h = _draw(3 * columns, dtype=dtype), _draw(3 * columns, transformer.num_params, seed=1, dtype=dtype)
    for i, bad in enumerate((math.nan, math.inf, -math.inf)):
        for j in range(columns - 1):
            h[i * columns + j, j] = bad
        value[(i + 1) * columns - 1] = bad
    found = getattr(transformer, direction)(value, h)
    with without_kernels():
        expected = getattr(transformer, direction)(value, h)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.isnan(), other.isnan())
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3, equal_nan=True)


def _shaken(module: Built) -> Built:
    with torch.no_grad():
        for p in module.parameters():
            p += 0.2 * torch.randn_like(p)
    return module.double()


def _layer(transformer: Transformer, features: int, **options: object) -> pf.MaskedAutoregressive:
    torch.manual_seed(0)
    return _shaken(pf.MaskedAutoregressive(transformer, features, **options))  # type: ignore[arg-type]


def _coupling(transformer: Transformer, mask: list[bool], **options: object) -> pf.Coupling:
    torch.manual_seed(0)
    return _shaken(pf.Coupling(mask, transformer, **options))  # type: ignore[arg-type]


def _chain() -> pf.Chain:
    """Layers of both kinds, with a context and without, which are one function, and one between that has no kernel."""
    torch.manual_seed(0)
    halves, every_other = [True, True, False], [True, False, True]
    options = {"context_features": 2, "hidden_features": (8, 8), "activation": nn.Tanh}
    return _shaken(
        pf.Chain(
            pf.Coupling(halves, MAPS["linear tails"], **options),  # type: ignore[arg-type]
            pf.MaskedAutoregressive(MAPS["affine"], 3, **options),  # type: ignore[arg-type]
            pf.Coupling(every_other, MAPS["affine"], hidden_features=(7,), activation=nn.Tanh),
            pf.Permutation([2, 0, 1]),
            pf.Coupling(halves, MAPS["circular"], hidden_features=()),
            pf.Coupling(every_other, MAPS["affine"], **options),  # type: ignore[arg-type]
        )
    )


SIZES = [(1, (5,), 7), (5, (16, 16), 67), (8, (24, 24, 24), 130)]


def _check_layer(
    layer: pf.Bijection, features: int, context_features: int, n: int, calls: list[str], rows: int = 1
) -> None:
    """Both directions and the gradients by input, context, weights and biases."""
    given = [_draw(n, features).requires_grad_()]
    given += [_draw(n, context_features, seed=1).requires_grad_()] if context_features else []
    inputs = [*given, *layer.parameters()]
    for direction in DIRECTIONS:

        def function(*inputs: Tensor, d: str = direction) -> tuple[Tensor, Tensor]:
            answer: tuple[Tensor, Tensor] = getattr(layer, d)(*inputs[: len(given)])
            return answer

        calls.clear()
        found = _outputs_and_gradients(function, *inputs)
        with torch.no_grad():
            found += function(*inputs)
        assert calls == [name for name in ("layers", "layers_pull", "layers") for _ in range(rows)]
        with without_kernels():
            expected = _outputs_and_gradients(function, *inputs)
        torch.testing.assert_close(found, [*expected, *expected[:2]], rtol=1e-8, atol=1e-8)


LAYERS = list(
    itertools.product(["affine", "linear tails", "circular"], SIZES, [nn.ReLU, nn.SiLU, nn.Tanh], [False, True])
)


@needs_kernels
@pytest.mark.parametrize(("name", "size", "activation", "residual"), LAYERS)
def test_autoregressive_layers(
    name: str, size: tuple[int, tuple[int, ...], int], activation: type[nn.Module], residual: bool, calls: list[str]
) -> None:
    features, hidden, n = size
    for context_features, transformer in ((0, MAPS[name]), (3, MAPS[name].inv)):
        layer = _layer(
            transformer,
            features,
            context_features=context_features,
            hidden_features=hidden,
            order=list(range(features))[::-1],
            activation=activation,
            residual=residual,
        )
        _check_layer(layer, features, context_features, n, calls)


MASKS = {
    "one": ([True, False], (20,), 1),
    "every other": ([True, False] * 3 + [True], (16, 33), 67),
    "half": ([False] * 4 + [True] * 4, (24, 32, 24), 130),
    "mixed": ([True, True, False, True, False], (), 16),
    "all by the context": ([False] * 3, (8,), 100),
}
COUPLINGS = list(
    itertools.product(["affine", "linear tails", "circular"], MASKS, [nn.ReLU, nn.SiLU, nn.Tanh], [False, True])
)


@needs_kernels
@pytest.mark.parametrize(("name", "mask", "activation", "with_context"), COUPLINGS)
def test_couplings(name: str, mask: str, activation: type[nn.Module], with_context: bool, calls: list[str]) -> None:
    passes, hidden, n = MASKS[mask]
    context_features = 3 if with_context or not any(passes) else 0
    layer = _coupling(
        MAPS[name].inv if with_context else MAPS[name],
        passes,
        context_features=context_features,
        hidden_features=hidden,
        activation=activation,
    )
    _check_layer(layer, len(passes), context_features, n, calls)


@needs_kernels
@pytest.mark.parametrize("n", range(1, 38, 4))
def test_any_number_of_rows(n: int, calls: list[str]) -> None:
    """What fills half a vector more, in networks whose units come in groups of every size."""
    for hidden in ((1, 2, 3), (4, 5, 6), (12,)):
        options = {"context_features": 2, "hidden_features": hidden, "activation": nn.SiLU}
        _check_layer(_coupling(MAPS["linear tails"], [True, True, False], **options), 3, 2, n, calls)
        _check_layer(_layer(MAPS["affine"], 3, **options), 3, 2, n, calls)


@needs_kernels
def test_layers_in_a_row(calls: list[str]) -> None:
    """They are one function, which gives what the layers give; hooks and overridden methods see their layer."""
    chain, x, context = _chain(), _draw(100, 3), _draw(100, 2, seed=1)
    _check_layer(chain, 3, 2, 100, calls, rows=2)
    assert _names_of_nodes(chain.inverse(x, context)).count("_ByKernelBackward") == 2
    for memory in ("checkpoint", "reversible"):
        torch.testing.assert_close(pf.Chain(*chain.layers, memory=memory)(x, context), chain(x, context))  # type: ignore[arg-type]
    before = chain(x, context)
    seen: list[object] = []
    handle = chain.layers[1].register_forward_hook(lambda module, inputs, output: seen.append(output))
    torch.testing.assert_close(chain(x, context), before)
    assert len(seen) == 1
    handle.remove()

    class Shifted(pf.Coupling):
        def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
            return super().inverse(x - 1, context)

    shifted = _shaken(pf.Chain(*[Shifted([True, False], pf.Affine(), hidden_features=(4,)) for _ in range(2)]))
    z = shifted.layers[0].inverse(shifted.layers[1].inverse(x[:, :2])[0])[0]
    torch.testing.assert_close(shifted.inverse(x[:, :2])[0], z)


ROWS = [[0.5, -1.0], [torch.inf, 0.0], [torch.inf, -torch.inf], [3e38, 3e38], [torch.nan, 1.0]]


@needs_kernels
@pytest.mark.parametrize("row", ROWS)
def test_a_look_for_infinity_gives_what_masks_give(row: list[float]) -> None:
    flow = pf.real_nvp(2, layers=2, hidden_features=(8,))
    x = torch.tensor([[0.1, 0.2], row])
    found = flow.log_prob(x)
    with without_kernels():
        expected = flow.log_prob(x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5, equal_nan=True)
    assert (found[1] == -torch.inf) == (torch.inf in row or 3e38 in row)


def _names_of_nodes(outputs: tuple[Tensor, Tensor]) -> list[str]:
    names, nodes, known = [], [outputs[0].grad_fn, outputs[1].grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is not None and node not in known:
            known.add(node)
            names.append(node.name())
            nodes += [following for following, _ in node.next_functions]
    return names


def _planar(features: int, layers: int, dtype: torch.dtype = F64) -> pf.Chain:
    """Layers of which some must be constrained, and one has no direction."""
    torch.manual_seed(0)
    chain = pf.Chain(*[pf.Planar(features) for _ in range(layers)]).to(dtype)
    with torch.no_grad():
        for k, p in enumerate(chain.parameters()):
            p += torch.randn_like(p)
            if k == 1:
                p[features : 2 * features] = 0
    return chain


@needs_kernels
@pytest.mark.parametrize(("features", "layers", "n"), [(1, 1, 5), (2, 16, 40), (5, 3, 67), (3, 2, 3000)])
def test_planar_layers(features: int, layers: int, n: int, calls: list[str]) -> None:
    chain, z = _planar(features, layers), _draw(n, features).requires_grad_()
    inputs = [z, *chain.parameters()]
    found = _outputs_and_gradients(lambda z, *own: chain(z), *inputs)
    with torch.no_grad():
        found += chain(z)
    assert calls == ["planar", "planar_pull", "planar"]
    with without_kernels():
        expected = _outputs_and_gradients(lambda z, *own: chain(z), *inputs)
    torch.testing.assert_close(found, [*expected, *expected[:2]], rtol=1e-9, atol=1e-9)
    assert chain(z.view(1, n, 1, features))[0].shape == (1, n, 1, features)
    with torch.no_grad():
        for layer in chain.layers:
            constants = layer.params.constants  # type: ignore[union-attr]
            constants.data = torch.stack([constants, constants], dim=-1)[:, 0]  # not contiguous
        torch.testing.assert_close(chain(z), tuple(found[-2:]), rtol=0, atol=0)


@needs_kernels
def test_planar_layers_in_single_precision() -> None:
    """Nearly as near to double precision as torch's operations."""
    z = _draw(1000, 2, dtype=F32).requires_grad_()
    chain = _planar(2, 16, F32)
    found = _outputs_and_gradients(lambda z, *own: chain(z), z, *chain.parameters())
    with without_kernels():
        plain = _outputs_and_gradients(lambda z, *own: chain(z), z, *chain.parameters())
        chain = chain.double()
        exact = _outputs_and_gradients(
            lambda z, *own: chain(z), z.detach().double().requires_grad_(), *chain.parameters()
        )
    for one, other, truth in zip(found, plain, exact, strict=True):
        assert (one - truth).norm() <= 3 * (other - truth).norm() + 1e-6 * truth.norm()


class _Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def test_conditioners_that_kernels_do_not_know(calls: list[str]) -> None:
    """More than linear maps with one nonlinearity, or of other sizes: torch's operations, or torch's error."""
    x = _draw(5, 4)
    mask, n = [True, True, False, False], 4
    conditioners = [
        pf.MLP(2, n, (8,), skip=True),
        pf.MLP(2, n, (8,), activation=nn.GELU),
        nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, n)),
        pf.MLP(2, n, (8,)),
        pf.MLP(2, n, (8,)),
        pf.MLP(2, n, (8,)),
    ]
    conditioners[3].layers[0] = nn.Linear(2, 8, bias=False)  # type: ignore[operator, union-attr]
    conditioners[4].layers[1] = nn.Dropout(0.0)  # type: ignore[operator, union-attr]
    parametrize.register_parametrization(conditioners[5].layers[0], "weight", _Doubled())  # type: ignore[union-attr, index]
    for conditioner in conditioners:
        layer = pf.Coupling(mask, pf.Affine(), conditioner=conditioner).double()
        found = layer(x)
        with without_kernels():
            torch.testing.assert_close(found, layer(x), rtol=1e-10, atol=1e-10)
    assert not [name for name in calls if name.startswith("layer")]
    for wrong in (pf.MLP(2, n + 1, (8,)), pf.MLP(3, n, (8,)), pf.MLP(2, 2 * n, (8,))):
        with pytest.raises((RuntimeError, ValueError)):
            pf.Coupling(mask, pf.Affine(), conditioner=wrong).double()(x)
    layer = pf.Coupling(mask, pf.Affine(), hidden_features=(8,)).double()
    layer.transformer = pf.RationalQuadratic(4)
    with pytest.raises((RuntimeError, ValueError, IndexError)):
        layer(x)


@needs_kernels
@pytest.mark.parametrize("kind", ["autoregressive", "coupling"])
def test_shapes_of_layers(kind: str) -> None:
    """Any batch shape, views, a context for all rows, half of the gradients."""
    layer: pf.Bijection = _layer(MAPS["affine"], 4, context_features=2, hidden_features=(9,))
    if kind == "coupling":
        layer = _coupling(MAPS["affine"], [True, False, False, True], context_features=2, hidden_features=(9,))
    z, context = _draw(4, 3, 2).movedim(0, -1), _draw(2, seed=1)
    for given in (z, z[0, 0], z[:, :0], z.expand(2, *z.shape)):
        for direction in DIRECTIONS:
            found = getattr(layer, direction)(given, context)
            with without_kernels():
                torch.testing.assert_close(found, getattr(layer, direction)(given, context), rtol=1e-9, atol=1e-9)
    x = z.clone().requires_grad_()
    for pick in (0, 1):
        (found_grad,) = torch.autograd.grad(layer(x, context)[pick].sum(), x)
        with without_kernels():
            (expected_grad,) = torch.autograd.grad(layer(x, context)[pick].sum(), x)
        torch.testing.assert_close(found_grad, expected_grad, rtol=1e-9, atol=1e-9)


Route = Callable[[Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], Tensor, Tensor], object]


def _jvp(function: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], z: Tensor, h: Tensor) -> object:
    return torch.func.jvp(function, (z, h), (z.cos(), h.sin()))


def _double(function: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], z: Tensor, h: Tensor) -> object:
    inputs = z.clone().requires_grad_(), h.clone().requires_grad_()
    grads = torch.autograd.grad(_loss(function(*inputs)), inputs, create_graph=True)
    return torch.autograd.grad(grads[0].sin().sum() + grads[1].cos().sum(), inputs)


def _traced(function: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], z: Tensor, h: Tensor) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated
        return torch.jit.trace(lambda *inputs: function(*inputs), (0 * z, h), check_trace=False)(z, h)


ROUTES: dict[str, Route] = {
    "vmap": lambda function, z, h: torch.func.vmap(function)(z, h),
    "jvp": _jvp,
    "jacrev": lambda function, z, h: torch.func.jacrev(function, (0, 1))(z[0], h[0]),
    "vmap of grad": lambda function, z, h: torch.func.vmap(torch.func.grad(lambda *a: _loss(function(*a))))(z, h),
    "compile": lambda function, z, h: torch.compile(function, fullgraph=True, backend="aot_eager")(z, h),
    "jit.trace": _traced,
    "double backward": _double,
    "autocast": lambda function, z, h: torch.autocast("cpu")(function)(z, h),
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", ["affine", "linear tails", "circular"])
def test_routes_of_scalar_maps(name: str, route: str, calls: list[str]) -> None:
    """Right everywhere; what has to see single operations gets them."""
    transformer = MAPS[name]
    z, h = _draw(4, 3), _draw(4, 3, transformer.num_params, seed=1)
    for direction in DIRECTIONS:
        found = ROUTES[route](getattr(transformer, direction), z, h)
        assert not calls or route == "double backward"
        with without_kernels():
            expected = ROUTES[route](getattr(transformer, direction), z, h)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("route", [route for route in ROUTES if route != "jacrev"])
@pytest.mark.parametrize("kind", ["autoregressive", "coupling", "chain"])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_routes_of_layers(direction: str, kind: str, route: str, calls: list[str]) -> None:
    options = {"context_features": 2, "hidden_features": (8, 8)}
    layer = {
        "autoregressive": lambda: _layer(MAPS["linear tails"], 3, **options),
        "coupling": lambda: _coupling(MAPS["linear tails"], [True, False, False], **options),
        "chain": _chain,
    }[kind]()
    layer.requires_grad_(route != "jit.trace")  # which takes parameters for constants
    z, context = _draw(4, 3), _draw(4, 2, seed=1)
    found = ROUTES[route](getattr(layer, direction), z, context)
    assert not calls or route == "double backward"
    with without_kernels():
        expected = ROUTES[route](getattr(layer, direction), z, context)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("route", [route for route in ROUTES if route not in ("jacrev", "vmap of grad")])
def test_routes_of_planar_layers(route: str, calls: list[str]) -> None:
    chain = _planar(2, 3).requires_grad_(route != "jit.trace")

    def function(z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return chain(z + h)  # type: ignore[no-any-return]

    z, h = _draw(4, 2), _draw(4, 2, seed=1)
    found = ROUTES[route](function, z, h)
    assert not calls or route == "double backward"
    with without_kernels():
        expected = ROUTES[route](function, z, h)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["affine", "linear tails"])
def test_gradcheck(name: str) -> None:
    z, h = _draw(5), _draw(5, MAPS[name].num_params, seed=1)
    for direction in DIRECTIONS:
        function, inputs = getattr(MAPS[name], direction), (z.requires_grad_(), h.requires_grad_())
        assert torch.autograd.gradcheck(function, inputs, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(function, inputs)
    # A view, whose copy the kernel reads: its graph must not end there.
    assert torch.autograd.gradgradcheck(lambda z, h: MAPS[name](z[::2], h[::2]), (z, h))


def test_other_tensors_get_torch(calls: list[str]) -> None:
    spline = MAPS["linear tails"]
    z, h = _draw(4), _draw(4, spline.num_params)
    assert spline(z.to("meta"), h.to("meta"))[0].is_meta
    assert spline(z.bfloat16(), h.bfloat16())[0].dtype == torch.bfloat16
    assert spline(z, h.float())[0].dtype == F64
    assert spline(z, h[0])[0].shape == (4,)
    assert spline(z[:0], h[:0])[0].shape == (0,)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert spline(mode.from_tensor(z), mode.from_tensor(h))[0].shape == (4,)
    negated = torch.complex(h, h).conj().imag
    assert negated.is_neg()
    torch.testing.assert_close(spline(z, negated), spline(z, -h))
    assert calls == (["map"] if HAS_KERNELS else [])  # of the last comparison

    class Steeper(pf.Affine):
        def forward(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
            x, log_slope = super().forward(z, h)
            return 2 * x, log_slope + math.log(2)

    layer = _layer(Steeper(), 2, hidden_features=(4,))
    found = layer(z.view(2, 2))
    with without_kernels():
        torch.testing.assert_close(found, layer(z.view(2, 2)), rtol=0, atol=0)


def test_a_layer_that_is_watched_or_changed() -> None:
    """Hooks see the network; a nonlinearity put in later counts; copies and files work."""
    layer = _layer(MAPS["affine"], 3, hidden_features=(8,))
    x = _draw(4, 3)
    before = layer.inverse(x)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(other.inverse(x), before)
    seen: list[Tensor] = []
    handle = layer.conditioner.register_forward_hook(lambda module, inputs, output: seen.append(output))
    torch.testing.assert_close(layer.inverse(x), before, rtol=1e-10, atol=1e-10)
    assert len(seen) == 1
    handle.remove()
    for act in (nn.Tanh(), nn.GELU()):
        layer.conditioner.act = act
        found = layer.inverse(x)
        with without_kernels():
            torch.testing.assert_close(found, layer.inverse(x), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(layer(found[0])[0], x, rtol=1e-9, atol=1e-9)


def _function_of(kind: str) -> tuple[Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], Tensor, Tensor]:
    if kind == "chain":
        return _chain().inverse, _draw(4, 3), _draw(4, 2, seed=1)
    if kind == "layer":
        layer = _layer(MAPS["linear tails"], 3, context_features=2, hidden_features=(8, 8), activation=nn.Tanh)
        return layer.inverse, _draw(4, 3), _draw(4, 2, seed=1)
    return MAPS[kind].inverse, _draw(4), _draw(4, MAPS[kind].num_params, seed=1)


@pytest.mark.parametrize("kind", ["affine", "linear tails", "layer", "chain"])
def test_gradients_of_which_more_is_asked(kind: str) -> None:
    """Several at once, and the forward derivative of a gradient, where the graph was made before."""
    function, z, h = _function_of(kind)

    def several() -> object:
        return torch.autograd.functional.jacobian(lambda *inputs: function(*inputs)[0], (z, h), vectorize=True)

    def forward_over_reverse() -> Tensor:
        x = z.clone().requires_grad_()
        out = function(x, h)[0]
        with forward_ad.dual_level():
            (grad,) = torch.autograd.grad(out, x, forward_ad.make_dual(out.detach().cos(), out.detach().sin()))
            tangent = forward_ad.unpack_dual(grad).tangent
            assert tangent is not None
            return tangent

    for ask in (several, forward_over_reverse):
        found = ask()
        with without_kernels():
            torch.testing.assert_close(found, ask(), rtol=1e-9, atol=1e-9)


@needs_kernels
@pytest.mark.parametrize("kind", ["affine", "linear tails", "layer", "chain"])
def test_results_may_be_written_to(kind: str) -> None:
    function, z, h = _function_of(kind)

    def grads() -> tuple[Tensor, ...]:
        inputs = z.clone().requires_grad_(), h.clone().requires_grad_()
        out, log = function(*inputs)
        out.mul_(2)
        log.neg_()
        return torch.autograd.grad(_loss((out, log)), inputs)

    found = grads()
    with without_kernels():
        inputs = z.clone().requires_grad_(), h.clone().requires_grad_()
        out, log = function(*inputs)
        expected = torch.autograd.grad(_loss((2 * out, -log)), inputs)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def _gradients(loss: nn.Module, step: Callable[..., Tensor], *batch: Tensor) -> list[Tensor | None]:
    for p in loss.parameters():
        p.grad = None
    step(*batch)
    return [p.grad for p in loss.parameters()]


@needs_kernels
@pytest.mark.parametrize("kind", ["row", "shared", "embedding", "frozen", "planar"])
def test_steps_without_autograds_bookkeeping(kind: str, calls: list[str]) -> None:
    """A step of training sets what `backward` sets: also of a layer that is used twice, or in part frozen."""
    chain: pf.Bijection = _planar(3, 4).inv if kind == "planar" else _chain()
    embedding = nn.Linear(4, 2).double() if kind == "embedding" else None
    if kind == "shared":
        chain = pf.Chain(*chain.layers, chain.layers[0])  # type: ignore[arg-type]
    if kind == "frozen":
        for p in list(chain.parameters())[::3]:
            p.requires_grad_(False)
    loss = pf.MaximumLikelihood(pf.Flow(chain, pf.StandardNormal(3).double(), embedding=embedding))
    context = [] if kind == "planar" else [_draw(70, 4 if embedding else 2, seed=1)]
    batch = [_draw(70, 3), *context]
    found = _gradients(loss, gradient_function(loss), *batch)
    expected = _gradients(loss, lambda *batch: loss(*batch).backward(), *batch)
    assert any(name.endswith("_pull") for name in calls)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)

    flat = FlatParameters(loss.parameters())
    assert len(flat.parts) == sum(p.requires_grad for p in loss.parameters())
    step = gradient_function(loss, flat)
    step(*[-part for part in batch])  # what it leaves is written over
    torch.testing.assert_close(_gradients(loss, step, *batch), expected, rtol=1e-12, atol=1e-12)
    assert all(part.grad is flat.places[id(part)] for part in flat.parts)


@needs_kernels
@pytest.mark.parametrize("kind", ["row", "planar"])
def test_kernels_write_to_flat_gradients(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = _planar(3, 4).inv if kind == "planar" else _chain()
    loss = pf.MaximumLikelihood(pf.Flow(chain, pf.StandardNormal(3).double()))
    flat = FlatParameters(loss.parameters())
    written: list[bool] = []

    def gather(flat: FlatParameters) -> None:
        written.extend(part.grad is flat.places[id(part)] for part in flat.parts)

    monkeypatch.setattr(FlatParameters, "gather", gather)
    gradient_function(loss, flat)(_draw(70, 3), *([] if kind == "planar" else [_draw(70, 2, seed=1)]))
    assert written and all(written)


@needs_kernels
def test_parameters_apart_from_the_graph() -> None:
    """Nothing but `backward` after the block adds to them; hooks and parameters made of others are served as ever."""
    layer, x = _coupling(MAPS["affine"], [True, False], hidden_features=(8,)), _draw(20, 2).requires_grad_()
    parameters = list(layer.parameters())
    with parameters_apart():
        outputs = layer.inverse(x)
        (inner,) = torch.autograd.grad(_loss(outputs), x, retain_graph=True)
        assert all(p.grad is None for p in parameters)
    expected = torch.autograd.grad(_loss(layer.inverse(x)), [x, *parameters])
    torch.testing.assert_close(inner, expected[0])
    for times in (1, 2):
        _loss(outputs).backward(retain_graph=True)
        torch.testing.assert_close([p.grad for p in parameters], [times * grad for grad in expected[1:]])
    assert _names_of_nodes(outputs).count("torch::autograd::AccumulateGrad") == 1

    seen: list[Tensor] = []
    parameters[0].register_hook(seen.append)
    with parameters_apart():
        outputs = layer.inverse(x)
    _loss(outputs).backward()
    torch.testing.assert_close(seen, [expected[1]])

    class Recomputed(pf.Coupling):
        def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
            return checkpoint(super().inverse, x, use_reentrant=False)

    parametrize.register_parametrization(layer.conditioner.layers[0], "weight", nn.Tanh())
    recomputed = _shaken(Recomputed([True, False], pf.Affine(), hidden_features=(8,)))
    for changed in (layer, recomputed):
        loss = pf.MaximumLikelihood(pf.Flow(changed, pf.StandardNormal(2).double()))
        found = _gradients(loss, gradient_function(loss), x.detach())
        by_backward = _gradients(loss, lambda x, loss=loss: loss(x).backward(), x.detach())
        torch.testing.assert_close(found, by_backward, rtol=1e-12, atol=1e-12)


def test_parameters_of_another_size_are_refused() -> None:
    for transformer in MAPS.values():
        for change in (-1, 1):
            with pytest.raises((RuntimeError, ValueError, IndexError)):
                transformer(_draw(4), _draw(4, transformer.num_params + change))


@needs_kernels
def test_parts_put_in_later() -> None:
    """The kernel is told of the network as it is, and gets none that does not fit."""
    layer, x = _layer(MAPS["affine"], 3, hidden_features=(8,)), _draw(4, 3)
    layer.inverse(x)
    layer.conditioner = pf.MaskedMLP(3, 2, (12, 12), activation=nn.ReLU, residual=True).double()
    found = layer.inverse(x)
    with without_kernels():
        torch.testing.assert_close(found, layer.inverse(x), rtol=1e-10, atol=1e-10)
    layer.transformer = pf.RationalQuadratic(16)
    with pytest.raises((RuntimeError, ValueError, IndexError)):
        layer.inverse(x)


@needs_kernels
@pytest.mark.parametrize("kind", ["autoregressive", "coupling"])
def test_threads_make_no_difference(kind: str) -> None:
    """None but the order in which the gradients of weights are summed, which is one order for each number of them."""
    layer: pf.Bijection = _layer(MAPS["linear tails"], 16, hidden_features=(128, 128))
    if kind == "coupling":
        layer = _coupling(MAPS["linear tails"], [True, False] * 8, hidden_features=(128, 120))
    x, h = _draw(3000, 16).requires_grad_(), _draw(3000, 16, MAPS["linear tails"].num_params, seed=1)
    answers, gradients = [], []
    before = torch.get_num_threads()
    try:
        for threads in (1, 3, 3):
            torch.set_num_threads(threads)
            outputs = layer.inverse(x)
            by_x, *by_parameters = torch.autograd.grad(_loss(outputs), [x, *layer.parameters()])
            answers.append([*outputs, by_x, *MAPS["linear tails"](x, h)])
            gradients.append(by_parameters)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for part in answers for one, other in zip(answers[0], part, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(*gradients[1:], strict=True))
    torch.testing.assert_close(*gradients[:2], rtol=1e-9, atol=1e-9)


def _status(**environment: str) -> subprocess.CompletedProcess[str]:
    code = "import pushforward as pf; print(pf.native_status())"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )


def test_switches() -> None:
    assert (
        _status(PUSHFORWARD_NATIVE="0").stdout == "not in use, torch's operations do the same: PUSHFORWARD_NATIVE=0\n"
    )
    wrong = _status(PUSHFORWARD_ISA="sse9", PUSHFORWARD_NATIVE="")
    assert wrong.returncode and "expected one of baseline, avx2, avx512, got 'sse9'" in wrong.stderr
    wrong = _status(PUSHFORWARD_NATIVE="off")
    assert wrong.returncode and "expected 0, require or nothing, got 'off'" in wrong.stderr
    if HAS_KERNELS:
        assert _status(PUSHFORWARD_ISA="baseline", PUSHFORWARD_NATIVE="").stdout.startswith("in use, baseline: ")


def test_a_library_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "FOLDER", tmp_path)
    monkeypatch.setenv("PUSHFORWARD_NATIVE", "")
    load = library._load.__wrapped__
    assert load() == (None, pf.NativeStatus(None, load()[1].reason)) and "not built" in load()[1].reason
    (tmp_path / "kernels_baseline.so").write_bytes(b"no library")
    assert load()[0] is None and "kernels_baseline.so" in load()[1].reason
    monkeypatch.setenv("PUSHFORWARD_NATIVE", "require")
    with pytest.raises(RuntimeError, match="PUSHFORWARD_NATIVE=require"):
        load()


def _wheel(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    source = tmp_path / "source"
    if not source.exists():
        ignored = shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info")
        shutil.copytree(ROOT / "src", source / "src", ignore=ignored)
        for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
            shutil.copy(ROOT / name, source)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        str(source),
    ]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)


def test_installation_without_a_compiler(tmp_path: Path) -> None:
    none = {"CC": "/nonexistent", "CXX": "/nonexistent"}
    done = _wheel(tmp_path, **none, PUSHFORWARD_NATIVE="")
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "installed")
    assert not [name for name in names if name.endswith((".so", ".cpp", ".h"))]
    status = _status(PYTHONPATH=str(tmp_path / "installed"), PUSHFORWARD_NATIVE="")
    assert status.stdout.startswith("not in use, torch's operations do the same: the library was not built")
    assert _wheel(tmp_path, **none, PUSHFORWARD_NATIVE="require").returncode != 0
    wheel.unlink()
    assert _wheel(tmp_path, PUSHFORWARD_NATIVE="0").returncode == 0
    assert [path.name for path in tmp_path.glob("*.whl")] == [wheel.name]


@pytest.mark.slow
def test_a_wheel_with_kernels_runs_where_it_is_installed(tmp_path: Path) -> None:
    done = _wheel(tmp_path, PUSHFORWARD_NATIVE="require")
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert "-py3-none-" in wheel.name and not wheel.name.endswith("any.whl")
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(tmp_path / "installed"), str(wheel)]
    subprocess.run(command, check=True, capture_output=True)
    code = """
import torch, pushforward as pf
assert pf.__file__.startswith(%r), pf.__file__
assert pf.native_status().instruction_set
print(pf.maf(5).sample((3,)).shape)
"""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed"), "PUSHFORWARD_NATIVE": "require"}
    run = [sys.executable, "-c", code % str(tmp_path)]
    shown = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert shown.stdout == "torch.Size([3, 5])\n"
