"""Fits to log densities against known evidences, and verdicts on fits that are made to fail."""

import json
import math
import time
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Gamma, Normal, constraints

import pushforward as pf
from pushforward.cli import main
from pushforward.diagnostics import effective_sample_size, log_evidence
from pushforward.inference.budget import Budget
from pushforward.inference.certify import weighted_draws
from pushforward.inference.density import Density
from pushforward.inference.exact import annealed_draws
from pushforward.inference.locate import Located, locate
from pushforward.inference.mixture import Mixture, population
from pushforward.targets import (
    CorrelatedNormal,
    EightSchools,
    Funnel,
    ManyWell,
    NormalMixture,
    PhiFour,
    Potential,
    StudentTs,
    Target,
)

NINE = NormalMixture([[5.0 * i, 5.0 * j] for i in (-1, 0, 1) for j in (-1, 0, 1)], scale=0.5477)
QUICK: dict[str, Any] = {"max_seconds": 120.0, "progress": False}


def bowl(x: Tensor) -> Tensor:
    return -0.5 * x.square().sum(-1)


class TestDensity:
    def test_a_batched_function(self) -> None:
        density = Density(bowl, 3)
        assert density.batched and density.differentiable
        u = torch.randn(5, 3, dtype=torch.float64)
        value, gradient = density.value_and_gradient(u)
        assert torch.allclose(value, bowl(u)) and torch.allclose(gradient, -u)
        assert torch.allclose(density.hessian(u), -torch.eye(3, dtype=torch.float64).expand(5, 3, 3), atol=1e-6)

    def test_a_function_of_one_point(self) -> None:
        density = Density(lambda x: -0.5 * (x * x).sum(), 3)
        u = torch.randn(5, 3, dtype=torch.float64)
        assert density.batched and density.differentiable  # by vmap
        assert torch.allclose(density(u), bowl(u))

    def test_a_function_of_one_point_with_branches(self) -> None:
        density = Density(lambda x: -0.5 * (x * x).sum() if x[0].item() < 9 else x[0] * 0, 3)
        u = torch.randn(5, 3, dtype=torch.float64)
        assert not density.batched
        assert torch.allclose(density(u), bowl(u))

    def test_a_function_without_gradient(self) -> None:
        density = Density(lambda x: torch.from_numpy(-0.5 * np.square(x.numpy()).sum(-1)), 3)
        u = torch.randn(5, 3, dtype=torch.float64)
        assert not density.differentiable
        assert torch.allclose(density.value_and_gradient(u)[1], -u, atol=1e-6)

    def test_evaluations_are_counted(self) -> None:
        calls = 0

        def count(x: Tensor) -> Tensor:
            nonlocal calls
            calls += len(x)
            return bowl(x)

        density = Density(count, 2)
        before, seen = density.evaluations, calls
        density(torch.zeros(7, 2))
        density.value_and_gradient(torch.zeros(4, 2))
        assert density.evaluations - before == calls - seen == 11

    def test_a_support(self) -> None:
        """The density of u = log x for x ~ Gamma(3, 2)."""
        density = Density(lambda x: Gamma(3.0, 2.0).log_prob(x).sum(-1), 2, constraints.positive)
        u = torch.randn(5, 2, dtype=torch.float64)
        assert torch.allclose(density(u), (Gamma(3.0, 2.0).log_prob(u.exp()) + u).sum(-1), atol=1e-6)

    def test_named_sites(self) -> None:
        """A simplex of three has two free coordinates."""

        def log_density(site: dict[str, Tensor]) -> Tensor:
            assert site["p"].shape[-1] == 3 and site["w"].shape[-2:] == (2, 2)
            return bowl(site["mu"]) + bowl(site["w"].flatten(-2)) + site["p"].log().sum(-1)

        support = {"p": constraints.simplex}
        density = Density(log_density, {"mu": 1, "p": 3, "w": (2, 2)}, support)
        assert density.features == 1 + 2 + 4
        assert density(torch.randn(5, 7, dtype=torch.float64)).shape == (5,)

    def test_sites_of_any_shape(self) -> None:
        """A number, a batch of simplexes, matrices of two kinds, and intervals that differ from row to row."""
        low = torch.tensor([[0.0], [-1.0]], dtype=torch.float64)
        support = {
            "p": constraints.simplex,
            "L": constraints.corr_cholesky,
            "a": constraints.interval(low, 2.0),
            "S": constraints.independent(constraints.positive_definite, 1),
        }
        shapes = {"m": (), "p": (5, 3), "L": (2, 3, 3), "a": (2, 2), "S": (1, 2, 2)}
        density = Density(lambda site: site["m"] * 0, shapes, support)
        assert density.features == 1 + 10 + 6 + 4 + 3
        u = torch.randn(4, density.features, dtype=torch.float64)
        x = density.named(density.bijection(u)[0])
        assert isinstance(x, dict)
        assert {name: value.shape[1:] for name, value in x.items()} == shapes
        assert all(support[name].check(x[name]).all() for name in support)
        _, p, factor, a, s = u.split([1, 10, 6, 4, 3], dim=-1)
        expected = pf.PositiveDefinite()(s)[1]
        for name, piece in (
            ("p", p.unflatten(-1, (5, 2))),
            ("L", factor.unflatten(-1, (2, 3))),
            ("a", a.unflatten(-1, (2, 2))),
        ):
            transform = torch.distributions.biject_to(support[name])
            assert torch.allclose(transform(piece), x[name])
            expected = expected + transform.log_abs_det_jacobian(piece, x[name]).flatten(1).sum(-1)
        assert torch.allclose(density(u), expected)
        assert torch.equal(density.flat(x), density.bijection(u)[0])

    def test_points_without_a_factorisation_have_density_zero(self) -> None:
        def log_density(x: Tensor) -> Tensor:
            one = torch.ones_like(x[..., 0])
            matrix = torch.stack([torch.stack([one, x[..., 0]], -1), torch.stack([x[..., 0], one], -1)], -1)
            return torch.linalg.cholesky(matrix).diagonal(dim1=-2, dim2=-1).log().sum(-1)

        density = Density(log_density, 1)
        u = torch.tensor([[0.5], [2.0], [-3.0], [0.0]], dtype=torch.float64)
        value, gradient = density.value_and_gradient(u)
        assert density.batched
        assert value.tolist() == pytest.approx([math.log(0.75) / 2, -math.inf, -math.inf, 0.0])
        assert gradient[:, 0].tolist() == pytest.approx([-0.5 / 0.75, 0.0, 0.0, 0.0])

    @pytest.mark.parametrize(
        ("function", "message"),
        [
            (lambda x: bowl(x) * torch.nan, r"got nan at x = \[-?0\.\d+"),
            (lambda x: bowl(x) + torch.inf, r"got inf at x = \["),
            (lambda x: x.square(), r"expected a number for one point .* got shape \(3,\) at x = \["),
            (lambda x: x.nonsense, r"it raised AttributeError: .*nonsense"),
        ],
    )
    def test_unusable_functions(self, function: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Density(function, 3)

    def test_unusable_arguments(self) -> None:
        with pytest.raises(ValueError, match="features >= 1"):
            Density(bowl, 0)
        with pytest.raises(ValueError, match=r"a support for some of the sites \['a'\]"):
            Density(bowl, {"a": 1}, {"b": constraints.positive})
        with pytest.raises(ValueError, match=r"^a: no map onto CorrCholesky\(\) of shape \(2, 3\)"):
            Density(bowl, {"a": (2, 3)}, {"a": constraints.corr_cholesky})
        with pytest.raises(ValueError, match=r"^a: no map onto Boolean\(\)"):
            Density(bowl, {"a": 2}, {"a": constraints.boolean})

    def test_nan_met_on_the_way_names_the_point(self) -> None:
        density = Density(lambda x: torch.where(x[..., 0] > 5, torch.nan, bowl(x)), 2)
        with pytest.raises(ValueError, match=r"got nan at x = \[6, 0\]"):
            density(torch.tensor([[1.0, 0.0], [6.0, 0.0]]))


def located(target: Target) -> Located:
    density = Density(target.log_density, target.features)
    return locate(density, torch.Generator().manual_seed(0), budget=Budget(density, 60.0, None, False), until=1.0)


class TestLocate:
    def test_one_mode_gives_its_own_normal(self) -> None:
        target = CorrelatedNormal(8)
        found = located(target)
        covariance = target.rotation @ target.scales.square().diag() @ target.rotation.T
        assert found.complete and found.connected
        q = torch.distributions.MultivariateNormal(found.means[0], scale_tril=found.scales[0])
        p = torch.distributions.MultivariateNormal(torch.zeros(8, dtype=torch.float64), covariance)
        assert torch.distributions.kl_divergence(q, p) < 0.5

    def test_all_of_nine_modes(self) -> None:
        found = located(NINE)
        assert found.complete and not found.connected
        assert sorted(NINE.component(found.means).tolist()) == list(range(9))

    def test_it_knows_that_it_did_not_find_all(self) -> None:
        found = located(ManyWell(20))
        assert not found.complete

    def test_modes_far_apart(self) -> None:
        target = NormalMixture([[0.0] * 10, [60.0] * 10], [0.7, 0.3])
        found = located(target)
        assert set(target.component(found.means).tolist()) == {0, 1}


# Largest gap log Z - ELBO and error of log Z, nats.
FITS: dict[str, tuple[Target, float, float]] = {
    "normal": (CorrelatedNormal(10), 0.01, 0.005),
    "nine": (NINE, 0.01, 0.005),
    "two": (NormalMixture([[0.0] * 10, [10 / math.sqrt(10)] * 10], [0.7, 0.3]), 0.02, 0.02),
    "student": (StudentTs(10), 0.05, 0.02),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in ("two", "student") else []) for name in FITS]
)
def test_fits(name: str) -> None:
    target, gap, error = FITS[name]
    fit = pf.fit_to_log_density(target.log_density, target.features, max_steps=300, **QUICK)
    assert fit.verdict == "good", fit.report
    assert target.log_normalizer - fit.elbo < gap
    assert abs(fit.log_evidence - target.log_normalizer) < error
    assert fit.report.startswith("verdict: good") and "never visited" in fit.report


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "error"),
    [(Funnel(), 0.02), (EightSchools(), 0.02), (PhiFour(16, 4.0, 4.0), 0.03)],
    ids=["funnel", "eight schools", "phi four"],
)
def test_harder_fits(target: Target, error: float) -> None:
    fit = pf.fit_to_log_density(target.log_density, target.features, **QUICK)
    assert fit.verdict != "failed", fit.report
    assert abs(fit.log_evidence - target.log_normalizer) < error


@pytest.mark.slow
def test_positive_coordinates_and_the_user_scale() -> None:
    """Two Gamma(3, 2) times a constant: the evidence is the constant, and draws are positive with mean 3/2."""
    fit = pf.fit_to_log_density(
        lambda x: Gamma(3.0, 2.0).log_prob(x).sum(-1) + 4.0, 2, support=constraints.positive, max_steps=300, **QUICK
    )
    assert fit.verdict == "good", fit.report
    assert fit.log_evidence == pytest.approx(4.0, abs=0.01)
    x = fit.sample(20_000, seed=0)
    assert isinstance(x, Tensor)
    assert (x > 0).all()
    assert x.mean(0).tolist() == pytest.approx([1.5, 1.5], abs=0.05)
    expected = Gamma(3.0, 2.0).log_prob(x[:1000]).sum(-1)
    assert (fit.log_prob(x[:1000]) - expected).abs().median() < 0.05


def test_named_sites_come_back_by_name(tmp_path: Any) -> None:
    def log_density(site: dict[str, Tensor]) -> Tensor:
        return Normal(3.0, 1.0).log_prob(site["theta"]).sum(-1) + Gamma(5.0, 5.0).log_prob(site["tau"]).sum(-1)

    fit = pf.fit_to_log_density(
        log_density, {"tau": 1, "theta": 2}, support={"tau": constraints.positive}, max_steps=200, **QUICK
    )
    draws = fit.sample(500, exact=True, seed=0)
    assert isinstance(draws, dict)
    assert draws["tau"].shape == (500, 1) and draws["theta"].shape == (500, 2)
    assert draws["tau"].mean().item() == pytest.approx(1.0, abs=0.08)  # 4 standard errors
    assert draws["theta"].mean(0).tolist() == pytest.approx([3.0, 3.0], abs=0.18)  # 4 standard errors
    fit.save(tmp_path / "fit.safetensors")
    again = pf.load(tmp_path / "fit.safetensors")
    x = torch.cat([draws["tau"], draws["theta"]], dim=-1)
    assert torch.equal(again.log_prob(x), fit.log_prob(x))
    assert pf.load_info(tmp_path / "fit.safetensors")["fit"]["verdict"] == fit.verdict


def test_without_gradients() -> None:
    target = CorrelatedNormal(4, 0.1, 10.0)

    def log_density(x: Tensor) -> Tensor:
        return torch.from_numpy(target.log_density(x.detach()).numpy())

    fit = pf.fit_to_log_density(log_density, 4, max_steps=200, **QUICK)
    assert fit.verdict == "good", fit.report
    assert fit.log_evidence == pytest.approx(0.0, abs=0.01)


def test_the_same_seed_gives_the_same_fit() -> None:
    fits = [pf.fit_to_log_density(bowl, 3, max_steps=20, seed=3, **QUICK) for _ in range(2)]
    assert fits[0].elbo == fits[1].elbo and fits[0].evaluations == fits[1].evaluations


class TestBudget:
    """Kept by every stage; the first ascents alone, of tens of thousands of evaluations, are not cut short."""

    def test_of_evaluations(self) -> None:
        fit = pf.fit_to_log_density(Funnel(5).log_density, 5, max_evaluations=40_000, **QUICK)
        assert 20_000 < fit.evaluations < 42_000

    def test_of_time_with_a_slow_function_of_one_point(self) -> None:
        def log_density(x: Tensor) -> Tensor:
            time.sleep(1e-4)
            return -0.5 * (x * x).sum() * float(x[0] == x[0])  # of one point alone, which vmap cannot map either

        fit = pf.fit_to_log_density(log_density, 3, max_seconds=3.0, progress=False)
        # So many fit into the time, and some thousands are made in any case; without a budget it were over 100,000.
        assert fit.evaluations < 3.0 / 1e-4 + 6000
        assert fit.verdict == "good", fit.report


def test_a_curved_mode_gets_the_components_that_it_needs() -> None:
    """A sine-shaped ridge: normal distributions where the ascents end leave a gap, their halves fill it."""
    target = Potential(4)
    density = Density(target.log_density, 2)
    generator = torch.Generator().manual_seed(0)
    budget = Budget(density, 60.0, None, False)
    found = locate(density, generator, budget=budget, until=1.0)
    start = Mixture(found.elbos.softmax(0), found.means, found.scales)
    gaps = []
    for mixture in (start, population(density, start, generator, budget=budget, until=1.0)):
        x = mixture.sample(20_000, generator)
        gaps.append(target.log_normalizer - (density(x) - mixture.log_terms(x).logsumexp(-1)).mean().item())
    assert gaps[0] > 0.3 and gaps[1] < 0.05, gaps


def test_annealed_draws_have_the_evidence_for_mean_weight() -> None:
    """From a flow that is too narrow by a half: their weights are far more even than those of its draws."""
    density = Density(lambda x: -0.5 * x.square().sum(-1), 4)
    flow = pf.Flow(pf.Standardize(torch.zeros(4), torch.full((4,), 0.5)), pf.StandardNormal(4)).double()
    torch.manual_seed(0)
    x, log_weights = annealed_draws(flow, density, 4000)
    evidence, error = log_evidence(log_weights)
    assert abs(evidence - 2 * math.log(2 * math.pi)) < 4.5 * error < 0.2
    _, plain = weighted_draws(flow, density, 4000)
    assert effective_sample_size(log_weights) > 2 * effective_sample_size(plain)
    second = (log_weights.softmax(0).unsqueeze(-1) * x.square()).sum(0)
    assert second.tolist() == pytest.approx([1.0] * 4, abs=0.15)


class TestHonesty:
    def test_an_improper_density(self) -> None:
        fit = pf.fit_to_log_density(lambda x: -0.5 * x[..., 0].square(), 2, max_steps=50, **QUICK)
        assert fit.verdict == "failed"
        assert "no finite integral" in fit.report

    def test_a_flow_that_cannot_hold_the_modes(self) -> None:
        torch.manual_seed(0)
        fit = pf.fit_to_log_density(NINE.log_density, 2, flow=pf.planar(2, layers=2), max_steps=300, **QUICK)
        assert fit.verdict != "good", fit.report

    @pytest.mark.parametrize(
        "seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]
    )
    def test_too_small_a_budget(self, seed: int) -> None:
        """A twentieth of what the funnel needs."""
        fit = pf.fit_to_log_density(Funnel().log_density, 10, max_evaluations=80_000, seed=seed, **QUICK)
        assert fit.verdict != "good", fit.report

    @pytest.mark.slow
    def test_too_small_a_budget_for_many_modes(self) -> None:
        fit = pf.fit_to_log_density(ManyWell().log_density, 32, max_evaluations=60_000, **QUICK)
        assert fit.verdict != "good", fit.report


def test_arguments() -> None:
    with pytest.raises(ValueError, match="expected positive max_seconds"):
        pf.fit_to_log_density(bowl, 2, max_seconds=0)
    with pytest.raises(ValueError, match=r"a flow of event shape \(2,\) without context, got \(3,\)"):
        pf.fit_to_log_density(bowl, 2, flow=pf.planar(3))


@pytest.mark.slow
def test_the_benchmark_prints_and_writes_its_figures(tmp_path: Any, capsys: Any) -> None:
    assert main(["bench", "inference", "--out", str(tmp_path), "--only", "nine", "--seeds", "1"]) == 0
    table = capsys.readouterr().out
    assert "left out: Brownian motion and Seeds" in table
    assert table.count("met") == 2 and "1 good" in table
    (outcome,) = json.loads((tmp_path / "inference.json").read_text())
    assert outcome["row"] == "nine" and outcome["values"]["delta"][0] < 0.005


def test_pictures_of_a_fit() -> None:
    pytest.importorskip("matplotlib")
    for features in (2, 3):
        figure = pf.fit_to_log_density(bowl, features, max_steps=5, **QUICK).plot()
        assert len(figure.axes) == (2 if features == 2 else 6)


@pytest.mark.slow
def test_export_to_arviz() -> None:
    pytest.importorskip("arviz_base")
    tree = pf.fit_to_log_density(bowl, 2, max_steps=5, **QUICK).to_arviz(400)
    assert tree["posterior"]["x"].shape == (4, 100, 2)
