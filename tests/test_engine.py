"""The density engine: margins, baselines, training within a budget, and the choice of the best."""

import copy
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import pushforward as pf
from pushforward.benchmarks import density as bench
from pushforward.cli import main
from pushforward.tabular import engine, fitting, margins, pace
from pushforward.tabular.engine import DensityResult, fit_density
from pushforward.tabular.flows import Size, build, joined, prepare, sizes
from pushforward.tabular.gaussians import fit_gaussians
from pushforward.tabular.rows import Rows
from pushforward.targets import CorrelatedNormal, MixedCopula, StudentTs, TwoMoons

QUICK: dict[str, Any] = {"max_seconds": 60.0, "progress": False}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small flows, and as many steps as a quick test can wait for, by the rows and not by the clock."""
    small, alone = Size(1, 6, (16, 16), 6), Size(0, 0, (), 8)
    monkeypatch.setattr(engine, "sizes", lambda rows, features, context: [small if features + context > 1 else alone])
    monkeypatch.setattr(engine, "FOLD_ROWS", 1000)
    monkeypatch.setattr(engine, "EPOCHS", 3)
    monkeypatch.setattr(fitting, "FEWEST_STEPS", 10)
    monkeypatch.setattr(fitting, "seconds_per_step", lambda *_: 1e-9)


class TestMargins:
    def test_quantiles_are_those_of_repeated_rows(self) -> None:
        x = normal(40, 2)
        weights = torch.randint(0, 3, (40,), generator=torch.Generator().manual_seed(1)).double()
        levels = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
        ones = torch.ones(40, dtype=torch.float64)
        # The rows sit in the middle of their weights: Hazen's definition.
        expected = torch.as_tensor(np.quantile(x.numpy(), levels.numpy(), axis=0, method="hazen"))
        torch.testing.assert_close(margins.weighted_quantiles(x, levels, ones), expected)
        some = margins.weighted_quantiles(x, levels, weights)
        rows = x.repeat_interleave(weights.long(), 0)
        all_rows = margins.weighted_quantiles(rows, levels, torch.ones(len(rows), dtype=torch.float64))
        assert (some - all_rows).abs().max() < 0.2

    @pytest.mark.parametrize("df", [1.0, 2.0, 4.0])
    def test_tail_index_of_a_student(self, df: float) -> None:
        """1 / df on both sides, to the bias of so many rows and three standard errors; the test sees it."""
        x = StudentTs(1, df).sample(20_000, torch.Generator().manual_seed(0))
        ones = torch.ones(len(x), dtype=torch.float64)
        index, error = margins.tail_indices(x, ones)
        assert ((index - 1 / df).abs() < 0.05 + 3 * error).all()
        assert margins.heavy_columns(x, ones).all()

    @pytest.mark.parametrize("seed", range(3))
    def test_light_tails_are_not_heavy(self, seed: int) -> None:
        z = normal(5000, 1, seed=seed)
        light = torch.cat([z, z.abs(), torch.special.ndtr(z), (z > 0).double()], dim=1)
        assert not margins.heavy_columns(light, torch.ones(5000, dtype=torch.float64)).any()

    def test_spline_goes_through_the_quantiles(self) -> None:
        """Uniform rows and exponential rows become nearly normal; nothing is learned."""
        x = torch.rand(20_000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        x[:, 1] = -(x[:, 1]).log() * 50 + 1000
        layer = margins.spline_layer(x, torch.ones(len(x), dtype=torch.float64), 32)
        z, _ = layer.inverse(x)
        levels = torch.linspace(0.001, 0.999, 200, dtype=torch.float64)
        found = torch.quantile(z, levels, dim=0)
        expected = torch.special.ndtri(levels).unsqueeze(-1)
        assert (torch.special.ndtr(found) - torch.special.ndtr(expected)).abs().max() < 0.005

    def test_spline_reaches_the_farthest_rows(self) -> None:
        """Rows far beyond the outer quantiles, and others still farther, are unlikely but not absurd."""
        x = normal(20_000, 1)
        x[:3] = torch.tensor([[50.0], [60.0], [-80.0]])
        layer = margins.spline_layer(x, torch.ones(len(x), dtype=torch.float64), 16)
        z, _ = layer.inverse(torch.tensor([[50.0], [-80.0], [200.0]], dtype=torch.float64))
        assert (z[:2].abs() < 6).all() and z[2].abs() < 12

    def test_spline_of_few_distinct_values_is_finite(self) -> None:
        x = (normal(500, 2) > 1).double()
        layer = margins.spline_layer(x, torch.ones(500, dtype=torch.float64), 16)
        z, log_det = layer.inverse(x)
        assert z.isfinite().all() and log_det.isfinite().all()

    def test_tail_layer_makes_a_student_nearly_normal(self) -> None:
        x = StudentTs(2, 2.0).sample(20_000, torch.Generator().manual_seed(0))
        z, _ = margins.tail_layer(x, torch.ones(len(x), dtype=torch.float64)).inverse(x)
        assert z.abs().max() < 6
        assert (z.std(0) - 1).abs().max() < 0.15

    def test_only_heavy_columns_get_a_tail_layer(self) -> None:
        x = torch.cat([normal(2000, 1), StudentTs(2, 1.5).sample(2000, torch.Generator().manual_seed(0))], dim=1)
        x = x[:, [1, 0, 2]]
        outer = prepare(1e5 + 1e3 * x, torch.ones(2000, dtype=torch.float64))
        tails = outer.layers[0]
        assert isinstance(tails, pf.Concatenate)
        assert [isinstance(part, pf.Elementwise) for part in tails.parts] == [True, False, True]
        z, _ = outer.inverse(1e5 + 1e3 * x)
        assert z.abs().max() < 7


class TestPace:
    def test_a_late_clock_ends_the_schedule(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = pace.Clock(10.0)
        monkeypatch.setattr(pace.time, "monotonic", lambda: clock.start + 1.0)
        plan = pace.cosine(pace.WARM_UP)
        assert pace.paced(clock)(50, 100) == plan(50, 100)
        monkeypatch.setattr(pace.time, "monotonic", lambda: clock.start + 9.0)
        assert pace.paced(clock)(50, 100) == plan(90, 100)
        monkeypatch.setattr(pace.time, "monotonic", lambda: clock.start + 12.0)
        assert pace.paced(clock)(50, 100) == 0.0

    def test_measuring_a_step_changes_nothing(self) -> None:
        torch.manual_seed(0)
        objective = pf.MaximumLikelihood(pf.maf(features=2, layers=1))
        before = copy.deepcopy(objective.state_dict())
        assert 0 < pace.seconds_per_step(objective, {"x": torch.randn(200, 2)}, 64) < 5
        assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())

    def test_the_budget_ends_the_training(self) -> None:
        x = TwoMoons().sample(6000, torch.Generator().manual_seed(0), dtype=torch.float64)
        begun = time.process_time()
        result = fit_density(x, quality="fast", max_seconds=2.0, progress=False)
        assert time.process_time() - begun < 12.0  # the budget, and the first use of everything
        assert result.best.log_likelihood > -2


class TestFitting:
    SMALL = Size(1, 6, (16, 16), 6)

    def fit(self, size: Size = SMALL, seed: int = 0) -> fitting.FlowFit:
        x = TwoMoons().sample(1000, torch.Generator().manual_seed(0), dtype=torch.float64)
        rows = Rows(x, None, torch.ones(1000, dtype=torch.float64))
        return fitting.start(rows[100:], rows[:100], size, seed=seed)

    def test_training_pays(self, few_steps: None) -> None:
        fit = self.fit()
        before = fit.loss
        fitting.advance(fit, 60.0, epochs=20, progress=False)
        assert fit.loss < before - 0.3
        assert fit.steps > 20
        held = fit.held["x"]
        assert -fit.inner.log_prob(held).mean().item() == pytest.approx(fit.loss, abs=1e-5)

    def test_training_that_makes_it_worse_is_undone(self, few_steps: None) -> None:
        fit = self.fit()
        before = copy.deepcopy(fit.inner.state_dict())
        fit.loss = -100.0
        fitting.advance(fit, 60.0, epochs=1, progress=False)
        assert fit.loss == -100.0
        assert all(torch.equal(value, before[name]) for name, value in fit.inner.state_dict().items())

    def test_the_better_size_wins_the_race(self, few_steps: None) -> None:
        fits = [self.fit(Size(1, 2, (2,), 2)), self.fit()]
        assert fitting.race(fits, 60.0, seed=0, progress=False) is fits[1]

    def test_non_finite_training_leaves_the_start(self, few_steps: None, monkeypatch: pytest.MonkeyPatch) -> None:
        fit = self.fit()
        monkeypatch.setattr(fitting, "RATE", math.inf)
        fitting.advance(fit, 60.0, epochs=1, progress=False)
        assert fit.inner.log_prob(fit.held["x"]).isfinite().all()


class TestChoice:
    def test_a_gaussian_wins_on_gaussian_rows(self, few_steps: None) -> None:
        target = CorrelatedNormal(10)
        x = target.sample(200, torch.Generator().manual_seed(0))
        result = fit_density(x, **QUICK)
        assert result.best.name == "Gaussian"
        assert result.lead > 0
        test = target.sample(5000, torch.Generator().manual_seed(1))
        whole = torch.distributions.MultivariateNormal(x.mean(0), x.T.cov(correction=0))
        assert (result.flow.log_prob(test) - whole.log_prob(test)).mean() > -0.02
        assert (
            sorted(c.log_likelihood for c in result.candidates) == [c.log_likelihood for c in result.candidates][::-1]
        )
        assert torch.equal(result.held_out.sort().values, torch.arange(200)) and result.folds == 5

    def test_the_figures_are_those_of_the_rows_left_out(self, few_steps: None, monkeypatch: pytest.MonkeyPatch) -> None:
        """One split; the winner is a flow, fitted to the other rows alone."""
        monkeypatch.setattr(engine, "choose_gaussians", lambda x, **_: fit_gaussians(x))
        x = 100 + 20 * TwoMoons().sample(1500, torch.Generator().manual_seed(0), dtype=torch.float64)
        result = fit_density(x, **QUICK)
        assert result.best.name.startswith("flow") and result.folds == 1
        held = x[result.held_out]
        assert len(held) == 150
        log_prob = result.flow.log_prob(held).detach()
        assert result.best.log_likelihood == pytest.approx(log_prob.mean().item(), abs=1e-9)
        assert result.best.error == pytest.approx(log_prob.std(correction=0).item() / 150**0.5, abs=1e-9)
        gap = result.flow.log_prob(x).detach().mean().item() - log_prob.mean().item()
        assert result.best.gap == pytest.approx(gap / 0.9, abs=1e-6)
        assert result.lead == pytest.approx(result.best.log_likelihood - result.candidates[1].log_likelihood, abs=1e-9)
        assert str(result).count("nats per row") == 1 + len(result.candidates)

    def test_folds_of_flows_are_mixed(self, few_steps: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Without a better baseline the answer is the equal mixture of the five; it is saved like any flow."""
        monkeypatch.setattr(engine, "choose_gaussians", lambda x, **_: fit_gaussians(x))
        monkeypatch.setattr(engine, "EPOCHS", 10)
        x = TwoMoons().sample(300, torch.Generator().manual_seed(0), dtype=torch.float64)
        result = fit_density(x, **QUICK)
        assert result.best.name.startswith("flow") and result.folds == 5
        assert isinstance(result.flow.base, pf.FlowMixture)
        parts = torch.stack([flow.log_prob(x) for flow in result.flow.base.flows]).logsumexp(0) - math.log(5)
        torch.testing.assert_close(result.flow.log_prob(x), parts)
        pf.save(result.flow, tmp_path / "model.safetensors")
        assert torch.equal(pf.load(tmp_path / "model.safetensors").log_prob(x), result.flow.log_prob(x))

    def test_a_blend_wins_if_it_is_clearly_better(self) -> None:
        """Two candidates that are each right about half of the rows, in unequal shares, and a third about none."""
        generator = torch.Generator().manual_seed(0)
        right = torch.rand(2000, generator=generator, dtype=torch.float64) < 0.3
        one, other = torch.where(right, 0.0, -8.0), torch.where(right, -8.0, 0.0)
        flows = [pf.Flow(pf.Standardize([m], [1.0]), pf.StandardNormal(1)) for m in (0.0, 1.0, 2.0)]
        entries = [
            engine._Entry(name, held.double(), 0.0, 3, 1.0, lambda flow=flow: flow)  # type: ignore[misc]
            for name, held, flow in zip("abc", (one, other, torch.full((2000,), -20.0)), flows, strict=True)
        ]
        rows = Rows(torch.zeros(2000, 1), None, torch.ones(2000, dtype=torch.float64))
        (blend,) = engine._blended(entries, rows)
        share = right.double().mean().item()
        assert blend.name == f"blend: {1 - share:.2f} b, {share:.2f} a"
        expected = share * math.log(share) + (1 - share) * math.log(1 - share)
        assert rows.mean(blend.held)[0] == pytest.approx(expected, abs=2e-3)
        base = blend.finish().base
        assert isinstance(base, pf.FlowMixture)
        torch.testing.assert_close(base.weights, torch.tensor([share, 1 - share]).double(), rtol=0, atol=2e-3)
        assert engine._blended(entries[:1] + entries[2:], rows) == []

    def test_quality(self, few_steps: None) -> None:
        x, qualities = normal(1000, 2), ("fast", "balanced", "best")
        folds = {q: fit_density(x, quality=q, **QUICK).folds for q in qualities}  # type: ignore[arg-type]
        assert folds == {"fast": 1, "balanced": 1, "best": 5}

    def test_one_column(self, few_steps: None) -> None:
        target = StudentTs(1, 2.0)
        result = fit_density(target.sample(3000, torch.Generator().manual_seed(0)), **QUICK)
        test = target.sample(20_000, torch.Generator().manual_seed(1))
        assert (target.log_prob(test) - result.flow.log_prob(test)).mean() < 0.02
        assert result.best.name.startswith("spline")

    def test_seeds(self, few_steps: None) -> None:
        x = TwoMoons().sample(300, torch.Generator().manual_seed(0), dtype=torch.float64)
        torch.manual_seed(7)
        before = torch.get_rng_state()
        one, again, other = (fit_density(x, seed=seed, quality="fast", **QUICK) for seed in (1, 1, 2))
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(one.flow.log_prob(x), again.flow.log_prob(x))
        assert not torch.equal(one.flow.log_prob(x), other.flow.log_prob(x))


class TestContext:
    def test_it_is_of_use(self, few_steps: None, tmp_path: Path) -> None:
        """x follows a line in c: the conditional Gaussian is exact, and saved with its units of the context."""
        c = 50 + 10 * normal(1000, 2)
        x = torch.stack([0.3 * c[:, 0], c[:, 1] - c[:, 0]], dim=1) + 0.1 * normal(1000, 2, seed=1)
        with_context, without = fit_density(x, c, **QUICK), fit_density(x, **QUICK)
        assert with_context.best.log_likelihood > without.best.log_likelihood + 2
        noise = torch.distributions.Normal(0.0, 0.1)
        exact = noise.log_prob(x - torch.stack([0.3 * c[:, 0], c[:, 1] - c[:, 0]], dim=1)).sum(-1)
        assert (with_context.flow.log_prob(x, c) - exact).mean().abs() < 0.02
        pf.save(with_context.flow, tmp_path / "model.safetensors")
        again = pf.load(tmp_path / "model.safetensors")
        assert torch.equal(again.log_prob(x, c), with_context.flow.log_prob(x, c))
        assert again.sample((), c).shape == (1000, 2)

    def test_of_rare_values(self, few_steps: None) -> None:
        """Columns of zeros and ones, one of them constant and two of them summing to one."""
        kind = torch.arange(600) % 50 == 0
        context = torch.stack([kind, ~kind, torch.zeros(600)], dim=1).double()
        x = normal(600, 2) + 10 * context[:, :1]
        result = fit_density(x, context, **QUICK)
        assert result.best.log_likelihood > fit_density(x, **QUICK).best.log_likelihood + 0.05
        shift = result.flow.sample(500, context[:2]).mean(0)
        assert ((shift[0] - shift[1]) - 10).abs().max() < 0.5

    def test_one_column_given_another(self, few_steps: None) -> None:
        c = normal(1500, 1)
        x = torch.sin(3 * c) + 0.1 * normal(1500, 1, seed=1)
        result = fit_density(x, c, **QUICK)
        assert result.flow.context_features == 1
        assert result.best.log_likelihood > -1.2  # the line's is -1.1 for a Gaussian of the same width


class TestWeights:
    def test_baselines_count_rows_by_their_weights(self) -> None:
        x, c = normal(80, 3), normal(80, 2, seed=1)
        x = x + c @ normal(2, 3, seed=2)
        weights = torch.randint(0, 4, (80,), generator=torch.Generator().manual_seed(3))
        counted = weights > 0
        rows = Rows(x[counted], c[counted], weights[counted].double())
        repeated = Rows(
            x.repeat_interleave(weights, 0), c.repeat_interleave(weights, 0), torch.ones(int(weights.sum())).double()
        )
        ours, theirs = engine._gaussian(rows), engine._gaussian(repeated)
        torch.testing.assert_close(ours.log_prob(x, c), theirs.log_prob(x, c), rtol=0, atol=1e-10)

    def test_flows_follow_them(self, few_steps: None) -> None:
        """Half of the rows count nine times as much: so does their mode."""
        x = torch.cat([normal(1000, 2) - 5, normal(1000, 2, seed=1) + 5])
        weights = torch.cat([torch.full((1000,), 1.8), torch.full((1000,), 0.2)])
        parts = engine._folds(2000, 2, "fast", 0)[0]
        rows = Rows(x, None, weights.double())
        fit = fitting.start(rows[parts.fitted], rows[parts.held], Size(1, 6, (16, 16), 6), seed=0)
        fitting.advance(fit, 60.0, epochs=30, progress=False)
        torch.manual_seed(0)
        share = (fit.flow.sample(4000)[:, 0] < 0).double().mean().item()
        assert share == pytest.approx(0.9, abs=0.04)

    def test_rows_without_weight_do_not_count(self, few_steps: None) -> None:
        x = normal(100, 2)
        weights = torch.ones(100)
        weights[50:] = 0
        result = fit_density(x, weights=weights, **QUICK)
        assert torch.equal(result.held_out.sort().values, torch.arange(50))


class TestMixture:
    def flows(self) -> list[pf.Flow]:
        return [pf.Flow(pf.Standardize([m, 0.0], [1.0, 2.0]), pf.StandardNormal(2)) for m in (-3.0, 3.0)]

    def test_density_and_draws(self) -> None:
        flow = pf.Flow(pf.Chain(), pf.FlowMixture(self.flows(), [3.0, 1.0])).double()
        x = normal(10, 2)
        parts = torch.stack([f.double().log_prob(x) for f in self.flows()])
        expected = (parts.exp() * torch.tensor([[0.75], [0.25]])).sum(0).log()
        torch.testing.assert_close(flow.log_prob(x), expected)
        torch.manual_seed(0)
        draws = flow.sample(10_000)
        assert draws.dtype == torch.float64
        assert (draws[:, 0] < 0).double().mean().item() == pytest.approx(0.75, abs=0.02)
        assert flow.sample((0,)).shape == (0, 2)

    def test_draws_given_contexts_are_those_of_their_contexts(self) -> None:
        shift = pf.Elementwise(pf.Additive(), 2, context_features=1, hidden_features=())
        with torch.no_grad():
            for parameter in shift.parameters():
                parameter.fill_(1.0 if parameter.dim() == 2 else 0.0)
        flows = [pf.Flow(pf.Chain(pf.Standardize([m, m], [0.1, 0.1]), shift), pf.StandardNormal(2)) for m in (0.0, 1.0)]
        mixture = pf.Flow(pf.Chain(), pf.FlowMixture(flows))
        context = torch.tensor([[0.0], [100.0], [200.0]])
        draws = mixture.sample((50, 4), context)
        assert draws.shape == (50, 4, 3, 2)
        away = draws - context
        assert ((away > -1) & (away < 2)).all()
        assert {int(v) for v in away.round().unique()} == {0, 1}

    def test_refused(self) -> None:
        with pytest.raises(ValueError, match="at least one flow"):
            pf.FlowMixture([])
        with pytest.raises(ValueError, match="one event shape"):
            pf.FlowMixture([pf.maf(features=2), pf.maf(features=3)])
        with pytest.raises(ValueError, match="2 positive weights"):
            pf.FlowMixture(self.flows(), [1.0, 0.0])
        embedded = pf.Flow(pf.Planar(2, context_features=1), pf.StandardNormal(2), embedding=torch.nn.Linear(3, 1))
        with pytest.raises(ValueError, match="embedding"):
            pf.FlowMixture([embedded])


def test_every_size_is_built_saved_and_starts_near_its_rows(tmp_path: Path) -> None:
    for features, context_features in ((1, 0), (1, 2), (2, 0), (3, 1), (70, 0)):
        for n in (400, 20_000):
            x = 5 + 3 * normal(500, features)
            ones = torch.ones(500, dtype=torch.float64)
            outer = prepare(x, ones)
            z, _ = outer.inverse(x)
            for size in sizes(n, features, context_features):
                torch.manual_seed(0)
                flow = joined(build(z, ones, context_features, size), outer)
                context = normal(500, context_features) if context_features else None
                gaussian = -features * (math.log(3) + 0.5 + 0.5 * math.log(2 * math.pi))
                assert flow.log_prob(x, context).mean() > gaussian - 0.3 * features
                assert flow.sample(() if context_features else 3, None if context is None else context[:3]).shape == (
                    3,
                    features,
                )
        pf.save(flow, tmp_path / "model.safetensors")
        again = pf.load(tmp_path / "model.safetensors")
        assert torch.equal(again.log_prob(x, context), flow.log_prob(x, context))
    assert str(Size(3, 8, (64,), 16)) == "3 layers, 8 bins, width 64"


def test_far_scales_and_single_precision(few_steps: None) -> None:
    x = normal(300, 2) * torch.tensor([1e-6, 1e7]).double() + torch.tensor([1.0, -1e8]).double()
    result = fit_density(x, **QUICK)
    assert result.best.log_likelihood == pytest.approx(-2 * 1.4189 - math.log(10), abs=0.15)
    single = fit_density(normal(300, 2).float(), **QUICK)
    assert single.flow.log_prob(normal(300, 2)).dtype == torch.float64


def test_fewer_rows_than_columns(few_steps: None) -> None:
    result = fit_density(normal(12, 20), **QUICK)
    assert result.best.name == "Gaussian"
    assert math.isfinite(result.best.log_likelihood)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"x": torch.zeros(20)}, r"x of real numbers, \(n, features\)"),
        ({"x": torch.zeros(20, 2, dtype=torch.long)}, "real numbers"),
        ({"x": torch.randn(5, 2)}, "10 or more rows, got 5"),
        ({"x": torch.tensor([[0.0, 1.0], [1.0, 1.0]]).repeat(10, 1)}, "column 1 is constant: 1.0"),
        (
            {"x": torch.cat([torch.randn(19, 2), torch.tensor([[0.0, torch.nan]])])},
            r"finite x, got \[0.0, nan\] in row 19",
        ),
        ({"x": torch.randn(20, 2), "context": torch.zeros(19, 1)}, "20 rows of context"),
        ({"x": torch.randn(20, 2), "weights": -torch.ones(20)}, "weights of at least 0, got -1.0 in row 0"),
        ({"x": torch.randn(20, 2), "weights": torch.full((20,), 0.05)}, "sum to 1; a weight is how often"),
        ({"x": torch.randn(20, 2), "quality": "good"}, "'fast', 'balanced' or 'best', got 'good'"),
        ({"x": torch.randn(20, 2), "max_seconds": 0.0}, "max_seconds > 0"),
    ],
)
def test_refused(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        fit_density(**arguments)


class TestBenchmark:
    def test_prints_and_writes_its_figures(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], few_steps: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(bench, "ROWS", 2000)
        assert main(["bench", "density", "--out", str(tmp_path), "--only", "t(3)", "--seeds", "2"]) == 0
        table = capsys.readouterr().out
        assert "left out: the table protein" in table
        assert table.count("Student t(3)") == 1 and "0.002" in table
        (outcome,) = json.loads((tmp_path / "density.json").read_text())
        assert len(outcome["values"]["excess"]) == len(outcome["seconds"]) == 2

    def test_the_copula_is_scored_whole(self, few_steps: None, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its excess over the exact log-probability is positive, and small against that of independent margins."""
        monkeypatch.setattr(bench, "ROWS", 1500)
        figures, result = bench._copula(0, 60.0)
        assert result.rows == 0.9 * bench.ROWS
        assert -0.01 < figures["excess"] < 0.3
        x = MixedCopula().sample(5000, torch.Generator().manual_seed(0))
        independent = MixedCopula(0.0).log_prob(x)
        assert (MixedCopula().log_prob(x) - independent).mean() > 0.3

    def test_tables(self, tmp_path: Path) -> None:
        folder = tmp_path / "wine"
        folder.mkdir()
        generator = np.random.default_rng(0)
        x = np.c_[generator.normal(size=400), generator.integers(0, 6, size=400) / 10]
        mask = np.zeros((400, 10))
        mask[:40, 0] = 1
        np.savetxt(folder / "data.csv.gz", x, delimiter=",")
        np.savetxt(folder / "test_mask.csv.gz", mask, delimiter=",")
        rows, test = bench.read_table(folder)
        assert rows.shape == (360, 2) and test.shape == (40, 2)
        assert rows.mean(0).abs().max() < 1e-12 and (rows.std(0, correction=0) - 1).abs().max() < 1e-12
        back = rows * torch.as_tensor(x[40:].std(0))
        torch.testing.assert_close(back[:, 0] - back[:, 0].mean(), torch.as_tensor(x[40:, 0] - x[40:, 0].mean()))
        assert len(rows[:, 1].unique()) == 360  # dequantised
        names = [row.name for row in bench.rows(tmp_path)]
        assert "wine" in names and "protein" not in names


def excess(target: Any, result: DensityResult) -> float:
    test = target.sample(20_000, torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        log_q = torch.cat([result.flow.log_prob(block) for block in test.split(4096)])
    return (target.log_prob(test) - log_q).mean().item()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "limit"), [("moons", 0.015), ("ring", 0.015), ("eight, narrow", 0.005)])
def test_goals(name: str, limit: float) -> None:
    """With time for the steps that a machine of one's own takes in a minute."""
    (row,) = (row for row in bench.rows() if row.name == name)
    figures, _ = row.fit(0, 240.0)
    assert figures["excess"] < limit
