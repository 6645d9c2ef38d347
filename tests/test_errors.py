"""Bad use gets an error that says what was expected and what came, at construction where that can be."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn

import pushforward as pf
from pushforward.numerics import InversionWarning, SolverError
from pushforward.recipes import RECIPES

F64 = torch.float64

BUILDERS: dict[str, Callable[..., nn.Module]] = {
    **{
        cls.__name__: cls
        for cls in (
            pf.ActNorm,
            pf.BatchNorm,
            pf.BlockAutoregressive,
            pf.Continuous,
            pf.ConvexPotential,
            pf.Householder,
            pf.LU,
            pf.MatrixExponential,
            pf.Orthogonal,
            pf.Planar,
            pf.QR,
            pf.Radial,
            pf.Residual,
            pf.Sylvester,
            pf.Triangular,
            pf.DiagonalNormal,
            pf.StudentT,
        )
    },
    "Elementwise": lambda features, **kwargs: pf.Elementwise(pf.Affine(), features, **kwargs),
    "MaskedAutoregressive": lambda features, **kwargs: pf.MaskedAutoregressive(pf.Affine(), features, **kwargs),
    "GaussianMixture": lambda features, **kwargs: pf.GaussianMixture(features, 2, **kwargs),
    **RECIPES,
}


@pytest.mark.parametrize("name", BUILDERS)
def test_sizes(name: str) -> None:
    """Of every layer, base and recipe of vectors."""
    for features in (0, -1, 2.5):
        with pytest.raises(ValueError, match=f"{name}: expected features, an integer >= 1, got {features}"):
            BUILDERS[name](features)
    for context_features in (-1, 1.0):
        with pytest.raises(ValueError, match=f"context_features, an integer >= 0, got {context_features}"):
            BUILDERS[name](2, context_features=context_features)
    with pytest.raises(ValueError, match="hidden_features, a sequence of widths, got 8"):
        BUILDERS[name](2, hidden_features=8)
    with pytest.raises(ValueError, match="width of hidden_features, an integer >= 1, got 0"):
        BUILDERS[name](2, hidden_features=(8, 0))


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_without_layers(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected layers, an integer >= 1, got 0"):
        RECIPES[name](2, layers=0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: pf.Coupling([True, True], pf.Affine()), "at least one false entry"),
        (lambda: pf.Coupling([False, False], pf.Affine()), "use Elementwise"),
        (lambda: pf.Coupling(torch.ones(2, 2), pf.Affine()), r"a mask of shape \(2, 2\)"),
        (lambda: pf.Coupling([True, False], pf.Affine(), context_features=-1), "context_features"),
        (lambda: pf.ImageCoupling(pf.channel_mask(2, 2, 2), pf.Affine(), hidden_channels=0), "hidden_channels"),
        (lambda: pf.TransformerAutoregressive(pf.Affine(), (2, 2), hidden_features=8), "a sequence of widths"),
        (lambda: pf.Permutation([]), "expected a permutation"),
        (lambda: pf.StandardNormal(0), "an integer >= 1, got 0"),
        (lambda: pf.GaussianMixture(2, 0), "components, an integer >= 1, got 0"),
        (lambda: pf.glow((1, 4, 4), levels=0), "levels, an integer >= 1, got 0"),
        (lambda: pf.Flow(pf.LU(2), pf.StandardNormal(3)), r"event shape \(2,\), got \(3,\)"),
        (lambda: pf.Flow(pf.Affine(), pf.StandardNormal(2)), "expected a Bijection, got Affine"),  # type: ignore[arg-type]
        (
            lambda: pf.Flow(pf.LU(2, context_features=2), pf.DiagonalNormal(2, context_features=3)),
            "context_features=2, got 3",
        ),
        (lambda: pf.Flow(pf.LU(2), pf.StandardNormal(2), embedding=nn.Linear(3, 3)), "neither .* takes a context"),
    ],
)
def test_construction(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


LAYERS: dict[str, pf.Bijection] = {
    "Coupling": pf.Coupling([True, False], pf.Affine()),
    "Coupling(interleaved)": pf.Coupling([True, False, True], pf.Affine()),
    "Elementwise": pf.Elementwise(pf.Affine(), 3),
    "Permutation": pf.Permutation([2, 0, 1]),
    "Planar": pf.Planar(3),
    "Planar.inv": pf.Planar(3).inv,
    "ActNorm": pf.ActNorm(3),
    "Standardize": pf.Standardize([0.0, 1.0], [1.0, 1.0]),
    "Chain": pf.Chain(pf.LU(3), pf.Planar(3)),
    "Squeeze": pf.Squeeze(1, 4, 4),
    "Squeeze.inv": pf.Squeeze(1, 4, 4).inv,
}


@pytest.mark.parametrize("name", LAYERS)
def test_events_of_another_shape(name: str) -> None:
    """Also where broadcasting or indexing would let them through, to an answer of another size."""
    layer = LAYERS[name]
    for direction, shape in ((layer, layer.event_shape), (layer.inverse, layer.data_shape)):
        assert shape is not None
        for size in {1, shape[-1] + 1}:
            with pytest.raises(ValueError, match=rf"trailing shape .*, got .* {size}\)"):
                direction(torch.zeros(5, *shape[:-1], size))
        with pytest.raises(ValueError, match=r"trailing shape .*, got \(\)"):
            direction(torch.zeros(()))
    with pytest.raises(ValueError, match=r"x of at least 2 dimensions, got shape \(3,\)"):
        pf.Cholesky().inverse(torch.zeros(3))


@pytest.mark.parametrize("layer", [pf.Planar(2), pf.Chain(pf.LU(2)), pf.Elementwise(pf.Affine(), 2), pf.Exp()])
def test_context_given_to_a_layer_without(layer: pf.Bijection) -> None:
    for direction in (layer, layer.inverse):
        with pytest.raises(ValueError, match=r"got a context of shape \(5, 3\), but it takes none"):
            direction(torch.ones(5, 2), torch.zeros(5, 3))


@pytest.mark.parametrize("build", [pf.Planar, lambda n, **kwargs: pf.Chain(pf.LU(n, **kwargs), pf.Planar(n))])
def test_context_missing_or_of_another_size(build: Callable[..., pf.Bijection]) -> None:
    layer = build(2, context_features=3)
    for direction in (layer, layer.inverse):
        with pytest.raises(ValueError, match=r"expected a context of shape \(\*batch, 3\), got none"):
            direction(torch.ones(5, 2))
        with pytest.raises(ValueError, match=r"trailing shape \(3,\), got \(5, 4\)"):
            direction(torch.ones(5, 2), torch.zeros(5, 4))


@pytest.mark.parametrize("sample_shape", [-1, (3, -1), 2.5])
def test_sample_shape(sample_shape: int) -> None:
    with pytest.raises(ValueError, match="a sample_shape of integers >= 0"):
        pf.planar(2).sample(sample_shape)


@pytest.mark.parametrize("name", RECIPES)
def test_dtype_of_the_input_is_that_of_the_flow(name: str) -> None:
    """Rather than an answer in fewer digits than the input, or an error from within."""
    flow = RECIPES[name](2, layers=1).eval()
    for dtype in (F64, torch.long):
        for method in (flow.log_prob, flow.to_base, flow.from_base):
            with pytest.raises(ValueError, match=rf"in torch.float32, as the flow's own numbers, got {dtype}"):
                method(torch.ones(5, 2, dtype=dtype))


def test_a_triangular_system_does_not_round_its_input() -> None:
    with pytest.raises(ValueError, match=r"dtype torch\.float32, got torch\.float64"):
        pf.LU(2).inverse(torch.ones(5, 2, dtype=F64))


@pytest.mark.parametrize("name", RECIPES)
def test_density_at_infinity_is_zero(name: str) -> None:
    """And the gradients are those of the other rows."""
    torch.manual_seed(0)
    flow = RECIPES[name](2, layers=1).eval()
    inside = torch.tensor([[0.5, 0.2]])
    x = torch.cat([inside, torch.tensor([[torch.inf, 0.0], [0.3, -torch.inf]])]).requires_grad_()
    log_prob = flow.log_prob(x)
    assert log_prob.tolist()[1:] == [-torch.inf, -torch.inf]
    assert torch.allclose(log_prob[:1], flow.log_prob(inside), atol=1e-6)
    (gradient,) = torch.autograd.grad(log_prob[0], x)
    assert gradient.isfinite().all()
    assert (gradient[1:] == 0).all()


@pytest.mark.parametrize("name", sorted(RECIPES.keys() - {"ncsf"}))
def test_outliers_in_float32(name: str) -> None:
    """A thousand standard deviations out: finite, without a warning, and far below the bulk."""
    torch.manual_seed(0)
    flow = RECIPES[name](2, layers=2).eval()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        log_prob = flow.log_prob(torch.tensor([[1e3, 0.5], [0.3, -1e3], [0.1, 0.2]]))
    assert log_prob.isfinite().all()
    assert (log_prob[:2] < log_prob[2] - 10).all()


NUMERICAL: dict[str, pf.Bijection] = {
    **{
        type(layer).__name__: layer
        for layer in (
            pf.Planar(2),
            pf.Sylvester(2),
            pf.BlockAutoregressive(2, (2,)),
            pf.Residual(2, hidden_features=(8,)),
            pf.ConvexPotential(2, hidden_features=(8,)),
        )
    },
    **{
        f"Elementwise({type(transformer).__name__})": pf.Elementwise(transformer, 2)
        for transformer in (
            pf.DeepSigmoidal(),
            pf.LogisticMixture(),
            pf.Gaussianization(),
            pf.SumOfSquares(),
            pf.Bernstein(),
            pf.UnconstrainedMonotone(),
            pf.Moebius(),
        )
    },
}


@pytest.mark.parametrize("name", NUMERICAL)
def test_an_inverse_that_does_not_converge_says_so(name: str) -> None:
    """And the rows that do are what they are alone."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        z, _ = NUMERICAL[name].inverse(torch.tensor([[torch.nan, 0.5], [0.3, -0.5]]))
    assert {w.category for w in caught} == {InversionWarning}
    assert "check that the input and the parameters are finite" in str(caught[0].message)
    alone, _ = NUMERICAL[name].inverse(torch.tensor([[0.3, -0.5]]))
    assert torch.allclose(z[1:], alone, atol=1e-6)


def test_a_differential_equation_that_cannot_be_solved_says_so() -> None:
    with pytest.raises(SolverError, match="non-finite"):
        pf.Continuous(2).inverse(torch.tensor([[torch.nan, 0.5]]))
