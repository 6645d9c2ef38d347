"""The scikit-learn estimators: its own checks, and its tools."""

import pickle
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from pushforward.tabular.estimators import ConditionalFlowDensity, FlowAnomalyDetector, FlowDensity

QUICK: dict[str, Any] = {"max_seconds": 0.5, "quality": "fast", "random_state": 0}
# Some checks fit twice and compare predictions: with time to spare the number of steps does not follow the clock.
UNHURRIED = {**QUICK, "max_seconds": 4.0}
ESTIMATORS = [FlowDensity(**QUICK), ConditionalFlowDensity(**UNHURRIED), FlowAnomalyDetector(**QUICK)]
FAST = (
    "check_no_attributes_set_in_init",
    "check_estimator_tags_renamed",
    "check_estimators_nan_inf",
    "check_n_features_in",
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def _expected(estimator: Any) -> dict[str, str]:
    reason = "flows are trained on batches of rows, of which a row of weight 2 is one and its copies are two"
    return {"check_sample_weight_equivalence_on_dense_data": reason}


@pytest.mark.slow
@parametrize_with_checks(ESTIMATORS, expected_failed_checks=_expected)
def test_all_checks(estimator: Any, check: Any) -> None:
    check(estimator)


SOME = [(e, check) for e in ESTIMATORS for _, check in estimator_checks_generator(e) if check.func.__name__ in FAST]


@pytest.mark.parametrize(
    ("estimator", "check"), SOME, ids=lambda part: getattr(getattr(part, "func", None), "__name__", None)
)
def test_some_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def test_density_in_the_tools_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(3.0, 2.0, size=(200, 2))
    density = FlowDensity(**QUICK).fit(X)
    exact = -np.log(2 * np.pi * 4) - ((X - 3) ** 2).sum(1) / 8
    assert np.abs(density.score_samples(X) - exact).mean() < 0.15
    assert density.score(X) == pytest.approx(density.score_samples(X).mean())
    assert density.sample(5, random_state=1).shape == (5, 2)
    assert np.array_equal(density.sample(5, random_state=1), density.sample(5, random_state=1))
    again = pickle.loads(pickle.dumps(density))
    assert np.array_equal(again.score_samples(X), density.score_samples(X))
    assert cross_val_score(FlowDensity(**QUICK), X, cv=2).mean() == pytest.approx(exact.mean(), abs=0.2)
    search = GridSearchCV(FlowDensity(**QUICK), {"quality": ["fast"]}, cv=2).fit(X)
    assert search.best_params_ == {"quality": "fast"}
    assert make_pipeline(StandardScaler(), FlowDensity(**QUICK)).fit(X).score_samples(X).shape == (200,)


def test_weights_move_the_density() -> None:
    X = np.random.default_rng(0).normal(size=(300, 1)) + np.repeat([0.0, 6.0, 0.0], 100)[:, None]
    weights = np.repeat([1.0, 0.0, 1.0], 100)
    density = FlowDensity(**QUICK).fit(X, sample_weight=weights)
    assert density.sample(1000, random_state=0).mean() == pytest.approx(0.0, abs=0.3)


def test_regression_with_intervals() -> None:
    """y ~ N(x, (1 + |x|)^2 / 4): medians on the diagonal, intervals that widen and cover."""
    rng = np.random.default_rng(0)

    def draw(n: int) -> tuple[Any, Any]:
        x = rng.uniform(-2, 2, size=(n, 1))
        return x, x[:, 0] + 0.5 * (1 + np.abs(x[:, 0])) * rng.normal(size=n)

    model = ConditionalFlowDensity(max_seconds=2, quality="fast", random_state=0).fit(*draw(1000))
    at = np.array([[-1.5], [0.0], [1.5]])
    assert np.abs(model.predict(at) - at[:, 0]).max() < 0.4
    intervals = model.predict_interval(at, level=0.8)
    assert intervals.shape == (3, 2)
    X, y = draw(500)
    low, high = model.predict_interval(X, level=0.8).T
    assert ((low < y) & (y < high)).mean() == pytest.approx(0.8, abs=0.08)
    assert model.sample(at, n_samples=7, random_state=0).shape == (7, 3)
    assert model.log_prob(X, y).shape == (500,)
    with pytest.raises(ValueError, match="level between 0 and 1, got 90"):
        model.predict_interval(at, level=90)


def test_anomalies() -> None:
    """Points far from a curve: found as well as by another method."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, 400)
    X = np.stack([x, x**2 + 0.1 * rng.normal(size=400)], axis=1)
    odd = rng.uniform([-2, -1], [2, 5], size=(40, 2))
    labels = np.repeat([0, 1], [400, 40])
    detector = FlowAnomalyDetector(max_seconds=4, contamination=0.05, random_state=0).fit(X)
    found = roc_auc_score(labels, -detector.score_samples(np.vstack([X, odd])))
    forest = roc_auc_score(labels, -IsolationForest(random_state=0).fit(X).score_samples(np.vstack([X, odd])))
    assert found > max(forest, 0.9)
    assert (detector.predict(X) == -1).mean() == pytest.approx(0.05, abs=0.01)
    with pytest.raises(ValueError, match=r"contamination in \(0, 0.5\], got 0.9"):
        FlowAnomalyDetector(contamination=0.9).fit(X)


def test_data_frames_keep_their_kinds() -> None:
    pd = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"colour": rng.choice(["red", "green"], 200), "size": rng.gamma(2.0, size=200)})
    density = FlowDensity(kinds={"size": "positive"}, **QUICK).fit(frame)
    assert density.feature_names_in_.tolist() == ["colour", "size"]
    rows = density.sample(50, random_state=0)
    assert list(rows.columns) == ["colour", "size"] and (rows["size"] > 0).all()
    assert density.score_samples(frame).shape == (200,)
