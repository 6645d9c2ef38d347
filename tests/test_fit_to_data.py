"""Densities of tables: what follows from a model whose truth is known, and fits of small tables."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

import pushforward as pf
from pushforward.tabular import Schema, TableError
from pushforward.tabular.data_fit import DataFit
from pushforward.tabular.discrete import AutoregressiveCategorical
from pushforward.tabular.given import LearnedCompletion, OwnCompletion, Places, Weighted, completion_for
from pushforward.tabular.history import History
from pushforward.tabular.judge import Judgement
from pushforward.tabular.row_model import RowModel, fit_rows

QUICK: dict[str, Any] = {"max_seconds": 1.0, "quality": "fast", "progress": False}
COVARIANCE = torch.tensor([[1.0, 0.8, 0.3], [0.8, 2.0, -0.4], [0.3, -0.4, 1.5]], dtype=torch.float64)
MEAN = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
JOINT = torch.tensor([[0.1, 0.2, 0.1], [0.3, 0.05, 0.25]], dtype=torch.float64)  # of two discrete coordinates


def gaussian() -> pf.Flow:
    bijection = pf.Standardize(MEAN, torch.linalg.cholesky(COVARIANCE))
    return pf.Flow(pf.Chain(bijection), pf.StandardNormal(3)).double()


def judged(**changes: Any) -> Judgement:
    figures: dict[str, Any] = {
        "rows": 500,
        "unseen": True,
        "log_likelihood": -3.0,
        "error": 0.1,
        "candidates": {"flow": (-3.0, 0.1), "Gaussian": (-3.5, 0.1)},
        "chosen": "flow",
        "gap": 0.01,
        "gap_error": 0.02,
        "calibration": {"a": 0.02},
        "calibration_p": {"a": 0.5},
        "distance": 0.01,
        "distance_p": 0.4,
        "round_trip": 1e-12,
        "bound": False,
    }
    return Judgement(**{**figures, **changes})


def known() -> DataFit:
    """Three columns of numbers whose density is normal: standardised columns, and a flow that makes them so."""
    x = MultivariateNormal(MEAN, COVARIANCE).sample((4000,))
    schema = Schema.infer({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2]})
    u = schema.encode({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2]}).continuous
    slope, shift = u.std(0) / x.std(0), u.mean(0) - x.mean(0) * u.std(0) / x.std(0)
    scale = torch.diag(slope) @ torch.linalg.cholesky(COVARIANCE)
    flow = pf.Flow(pf.Chain(pf.Standardize(slope * MEAN + shift, scale)), pf.StandardNormal(3))
    return DataFit(schema, None, RowModel(None, flow), judged(), History(500, 0.0), {})


@pytest.fixture(scope="module")
def fit() -> DataFit:
    torch.manual_seed(0)
    return known()


class TestOfAKnownDensity:
    def test_log_prob(self, fit: DataFit) -> None:
        x = torch.randn(20, 3, dtype=torch.float64)
        table = {"c": x[:, 2], "a": x[:, 0], "b": x[:, 1]}
        assert torch.allclose(fit.log_prob(table), MultivariateNormal(MEAN, COVARIANCE).log_prob(x), atol=1e-6)
        assert torch.equal(fit.anomaly_score(table), -fit.log_prob(table))

    def test_sample(self, fit: DataFit) -> None:
        rows = fit.sample(4000, seed=0)
        assert list(rows) == ["a", "b", "c"] and isinstance(rows["a"], Tensor)
        assert (torch.stack(list(rows.values()), dim=1).mean(0) - MEAN).abs().max() < 0.12  # 5 standard errors

    def test_conditional(self, fit: DataFit) -> None:
        """Given b: its own density, and the normal regression of the others on it."""
        found = fit.conditional(b=0.5)
        assert found.log_evidence == pytest.approx(
            Normal(-2.0, math.sqrt(2.0)).log_prob(torch.tensor(0.5)).item(), abs=0.01
        )
        assert found.error < 0.005 and found.ess > 0.5
        rest = COVARIANCE[[0, 2]][:, [0, 2]] - torch.outer(COVARIANCE[[0, 2], 1], COVARIANCE[1, [0, 2]]) / 2.0
        mean = MEAN[[0, 2]] + COVARIANCE[[0, 2], 1] / 2.0 * 2.5
        expected = MultivariateNormal(mean, rest)
        draws = found.sample(4000, seed=1)
        assert list(draws) == ["a", "c"]
        values = torch.stack([draws["a"], draws["c"]], dim=1)
        assert (values.mean(0) - mean).abs().max() < 0.1
        assert (values.T.cov() - rest).abs().max() < 0.15
        assert torch.allclose(found.log_prob(draws), expected.log_prob(values), atol=0.02)

    def test_marginal(self, fit: DataFit) -> None:
        x = torch.tensor([[0.0, 0.0], [2.0, -1.0], [-1.0, 1.5]], dtype=torch.float64)
        found = fit.marginal(["c", "a"])
        values, errors = found.log_prob({"a": x[:, 0], "c": x[:, 1]}, draws=2000)
        expected = MultivariateNormal(MEAN[[0, 2]], COVARIANCE[[0, 2]][:, [0, 2]]).log_prob(x)
        assert ((values - expected).abs() < 4.5 * errors + 1e-3).all() and errors.max() < 0.05
        assert list(found.sample(5, seed=0)) == ["a", "c"]

    def test_errors(self, fit: DataFit) -> None:
        with pytest.raises(ValueError, match="expected some of the columns 'a', 'b', 'c', got 'd'"):
            fit.conditional(d=1.0)
        with pytest.raises(ValueError, match="expected a column that is not given"):
            fit.conditional(a=0.0, b=0.0, c=0.0)
        with pytest.raises(ValueError, match="got none"):
            fit.marginal([])
        with pytest.raises(TableError, match="missing 'c'"):
            fit.log_prob({"a": [0.0], "b": [0.0]})
        with pytest.raises(ValueError, match="got a context"):
            fit.sample(3, {"a": [1.0]})


class TestCompletions:
    def model(self) -> RowModel:
        """Two discrete coordinates of known probabilities, and a number with the mean 3 c_1."""
        torch.manual_seed(0)
        discrete = AutoregressiveCategorical((2, 3), hidden_features=(8,))
        c = torch.cartesian_prod(torch.arange(2), torch.arange(3))
        counts = (1000 * JOINT.reshape(-1)).long()
        pf.train(
            pf.MaximumLikelihood(discrete),  # type: ignore[arg-type]
            c.repeat_interleave(counts, 0),
            max_steps=300,
            learning_rate=0.03,
            batch_size=1000,
        )
        shift = pf.Elementwise(pf.Additive(), 1, context_features=5, hidden_features=())
        with torch.no_grad():
            (linear,) = (m for m in shift.modules() if isinstance(m, torch.nn.Linear))
            linear.weight.copy_(torch.tensor([[0.0, 3.0, 0.0, 0.0, 0.0]]))
        return RowModel(discrete, pf.Flow(pf.Chain(shift), pf.StandardNormal(1)))

    def test_the_first_states_given_are_exact(self) -> None:
        model = self.model()
        given = Places((0,), ())
        completion = completion_for(model, given, None, ())
        assert isinstance(completion, OwnCompletion)
        c = torch.tensor([[0, 0], [1, 0]])
        found = completion(c, torch.zeros(2, 1, dtype=torch.float64), None, 2000)
        states = torch.cartesian_prod(torch.arange(2), torch.arange(3))
        exact = torch.stack([model.discrete(states[states[:, 0] == k]).logsumexp(0) for k in (0, 1)])  # type: ignore[misc]
        assert torch.allclose(found.log_mean, exact.double(), atol=1e-12)
        assert found.error.max() < 1e-12
        assert (found.u.mean((1, 2)) - torch.tensor([0.0, 3.0])).abs().max() < 0.1  # 4.5 standard errors

    def test_a_learned_proposal_is_weighted_right(self) -> None:
        """Given the number, the odds of the states by Bayes."""
        model = self.model()
        given = Places((), (0,))
        completion = completion_for(model, given, None, ())
        assert isinstance(completion, LearnedCompletion)
        u = torch.tensor([[0.4], [2.6]], dtype=torch.float64)
        found = completion(torch.zeros(2, 2, dtype=torch.int64), u, None, 20_000)
        states = torch.cartesian_prod(torch.arange(2), torch.arange(3))
        prior = model.discrete(states).exp().reshape(2, 3).sum(1)  # type: ignore[misc]
        joint = prior * Normal(torch.tensor([0.0, 3.0]), 1.0).log_prob(u).exp()
        assert torch.allclose(found.log_mean, joint.sum(1).log(), atol=0.02)
        picked = found.pick(5000)[0][..., 0].double().mean(1)
        assert torch.allclose(picked, joint[:, 1] / joint.sum(1), atol=0.04)

    def test_figures_of_weighted_draws(self) -> None:
        weights = torch.tensor([[1.0, 1.0, 2.0, 4.0]], dtype=torch.float64)
        found = Weighted(torch.zeros(1, 4, 1), torch.zeros(1, 4, 1), weights.log())
        assert found.log_mean.item() == pytest.approx(math.log(2))
        assert found.ess.item() == pytest.approx(64 / 22 / 4)
        assert found.error.item() == pytest.approx(weights.std().item() / 2 / 2)


def mixed_table(n: int = 400, seed: int = 0) -> dict[str, Any]:
    """A category, a count that depends on it, a number that depends on both, with gaps."""
    rng = np.random.default_rng(seed)
    colour = rng.choice(["red", "green"], n, p=[0.7, 0.3])
    count = rng.poisson(np.where(colour == "red", 3.0, 8.0))
    size = np.exp(0.1 * count + 0.3 * rng.normal(size=n))
    gone = rng.random(n) < 0.2
    return {
        "colour": colour.tolist(),
        "count": count,
        "size": [None if g else float(s) for g, s in zip(gone, size, strict=True)],
    }


@pytest.fixture(scope="module")
def mixed() -> DataFit:
    return pf.fit_to_data(mixed_table(), **QUICK)


class TestOfAMixedTable:
    def test_the_report(self, mixed: DataFit) -> None:
        assert mixed.verdict in mixed.report.splitlines()[0]
        assert "at least" in mixed.report and "positive" in mixed.report and "categorical: green, red" in mixed.report

    def test_draws_have_the_form_of_the_table(self, mixed: DataFit) -> None:
        rows = mixed.sample(500, seed=0)
        assert set(rows["colour"]) == {"red", "green"}
        assert rows["count"].dtype == np.int64 and rows["count"].min() >= 0
        sizes = [s for s in rows["size"] if s is not None]
        assert min(sizes) > 0 and 0.1 < 1 - len(sizes) / 500 < 0.3

    def test_more_draws_of_the_noise_raise_the_bound(self, mixed: DataFit) -> None:
        table = mixed_table(200, seed=1)
        one, many = (mixed.log_prob(table, draws=k).mean() for k in (1, 64))
        assert one < many

    def test_masses_of_categories_sum_to_one(self, mixed: DataFit) -> None:
        log_p, error = mixed.marginal(["colour"]).log_prob({"colour": ["red", "green"]})
        assert log_p.exp().sum().item() == pytest.approx(1.0, abs=1e-9)
        assert error.max() < 1e-9
        assert log_p[0].exp().item() == pytest.approx(0.7, abs=0.08)

    def test_a_condition_on_a_category(self, mixed: DataFit) -> None:
        means = []
        for colour in ("red", "green"):
            found = mixed.conditional(colour=colour)
            assert found.error == pytest.approx(0.0, abs=1e-9)
            means.append(found.sample(1000, seed=0)["count"].mean())
        assert means[0] == pytest.approx(3.0, abs=0.8) and means[1] == pytest.approx(8.0, abs=1.6)
        with pytest.raises(ValueError, match="outside the support"):
            mixed.conditional(colour="blue")

    def test_imputed_entries_follow_the_rest_of_the_row(self, mixed: DataFit) -> None:
        table = mixed_table(600, seed=2)
        filled = mixed.impute(table)
        gone = [s is None for s in table["size"]]
        assert all(s is not None and s > 0 for s in filled["size"])
        kept = [a == b for a, b, g in zip(filled["size"], table["size"], gone, strict=True) if not g]
        assert all(kept) and filled["colour"] == table["colour"] and (filled["count"] == table["count"]).all()
        logs, counts = np.log(np.array(filled["size"]))[gone], table["count"][gone]
        assert np.corrcoef(logs, counts)[0, 1] > 0.4  # 0.65 in truth
        assert filled["size"] == mixed.impute(table)["size"]

    def test_save_and_load(self, mixed: DataFit, tmp_path: Any) -> None:
        mixed.save(tmp_path / "fit.safetensors")
        again = DataFit.load(tmp_path / "fit.safetensors")
        table = mixed_table(20, seed=3)
        assert torch.equal(again.log_prob(table), mixed.log_prob(table))
        assert again.report == mixed.report
        pf.save(pf.nsf(2), tmp_path / "flow.safetensors")
        with pytest.raises(ValueError, match="not one that was fitted to a table"):
            DataFit.load(tmp_path / "flow.safetensors")


def test_a_context() -> None:
    """p(y | x) for y ~ N(2 x, 1): the mean of draws, and the density."""
    torch.manual_seed(0)
    x = torch.randn(600, 1, dtype=torch.float64)
    y = 2 * x + torch.randn(600, 1, dtype=torch.float64)
    fit = pf.fit_to_data(y, x, **QUICK)
    at = torch.tensor([[-1.0], [0.0], [1.5]], dtype=torch.float64)
    draws = fit.sample(2000, at, seed=0).reshape(3, 2000)
    assert (draws.mean(1) - 2 * at[:, 0]).abs().max() < 0.25
    found = fit.log_prob(2 * at, at)
    assert (found - Normal(0.0, 1.0).log_prob(torch.tensor(0.0))).abs().max() < 0.15
    with pytest.raises(ValueError, match="expected a context with the columns 'x1', got none"):
        fit.sample(3)
    with pytest.raises(ValueError, match="a row for each of 3, got 2"):
        fit.log_prob(at, at[:2])


def test_weights_count_rows() -> None:
    """Rows of weight zero do not matter: the mean of the others is found."""
    torch.manual_seed(0)
    x = torch.randn(400, 1, dtype=torch.float64)
    x[:200] += 8.0
    weights = torch.cat([torch.zeros(200), torch.ones(200)])
    fit = pf.fit_to_data(x, weights=weights, **QUICK)
    assert fit.sample(2000, seed=0).mean().item() == pytest.approx(x[200:].mean().item(), abs=0.15)


def test_the_same_seed_gives_the_same_fit() -> None:
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    a, b = (pf.fit_to_data(x, seed=3, quality="fast", max_seconds=60, progress=False) for _ in range(2))
    assert torch.equal(a.log_prob(x), b.log_prob(x))


class TestVerdict:
    def test_good(self) -> None:
        assert judged().verdict == "good" and judged().findings == []
        assert Judgement.from_json(judged().to_json()) == judged()

    @pytest.mark.parametrize(
        ("changes", "grade", "words"),
        [
            ({"log_likelihood": -math.inf}, "failed", "density zero"),
            ({"gap": 0.5}, "doubtful", "overfits"),
            ({"calibration": {"a": 0.1}, "calibration_p": {"a": 1e-9}}, "doubtful", "'a' is off by 0.10"),
            ({"calibration": {"a": 0.4}, "calibration_p": {"a": 1e-9}}, "failed", "'a' is off by 0.40"),
            ({"distance": 0.1, "distance_p": 0.005}, "doubtful", "0.10 apart"),
            ({"round_trip": 1e-3}, "doubtful", "return changed by 0.001"),
        ],
    )
    def test_findings(self, changes: dict[str, Any], grade: str, words: str) -> None:
        found = judged(**changes)
        assert found.verdict == grade
        assert words in str(found)

    def test_a_wrong_density_is_found_out(self) -> None:
        """A model of other rows, judged on these."""
        from pushforward.tabular.fit_to_data import judge

        torch.manual_seed(0)
        x = torch.randn(800, 2, dtype=torch.float64)
        schema = Schema.infer(x)
        rows = schema.encode(x)
        right, wrong = (
            RowModel(None, pf.Flow(pf.Chain(pf.Standardize([m, 0.0], [1.0, 1.0])), pf.StandardNormal(2)))
            for m in (0.0, 1.5)
        )
        for model, expected in ((right, "good"), (wrong, "failed")):
            assert judge(model, schema, rows, None, seen=None, found=None, seed=0).verdict == expected


class TestUnusableData:
    @pytest.mark.parametrize(
        ("table", "message"),
        [
            (np.zeros((0, 2)), "two or more rows"),
            (np.random.default_rng(0).normal(size=(5, 2)), "10 or more rows to fit, got 5"),
            ({"a": [1.0] * 20}, "a column that is not constant"),
            ({"a": [1.0, math.inf] * 10}, "column 'a', row 2: expected a finite number"),
            ({"a": [1.0, "x"] * 10}, "entries of one type"),
        ],
    )
    def test_tables(self, table: Any, message: str) -> None:
        with pytest.raises(TableError, match=message):
            pf.fit_to_data(table, **QUICK)

    def test_arguments(self) -> None:
        x = torch.randn(20, 2)
        with pytest.raises(ValueError, match="max_seconds > 0"):
            pf.fit_to_data(x, max_seconds=0)
        with pytest.raises(ValueError, match="a context with 20 rows, got 19"):
            pf.fit_to_data(x, x[1:])
        for weights, message in ((torch.ones(3), "a weight for each of 20 rows"), (-torch.ones(20), "not negative")):
            with pytest.raises(ValueError, match=message):
                pf.fit_to_data(x, weights=weights)

    def test_new_categories_have_density_zero(self, mixed: DataFit) -> None:
        table = {"colour": ["red", "blue"], "count": np.array([3, 3]), "size": [1.0, 1.0]}
        found = mixed.log_prob(table)
        assert found[0].isfinite() and found[1] == -math.inf


def test_rows_of_states_alone() -> None:
    c = torch.tensor([[0], [1], [1]]).repeat(100, 1)
    fitted = fit_rows(c, torch.zeros(300, 0, dtype=torch.float64), (2,), max_seconds=1.0, progress=False)
    assert fitted.continuous is None
    assert fitted.model.log_prob(torch.tensor([[1]]), torch.zeros(1, 0)).exp().item() == pytest.approx(2 / 3, abs=0.02)
