"""Densities of tables as scikit-learn estimators. Needs `pip install "pushforward[sklearn]"`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

try:
    from sklearn.base import BaseEstimator, DensityMixin, OutlierMixin, RegressorMixin
    from sklearn.utils import _safe_indexing, check_random_state
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, column_or_1d, validate_data
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "sklearn":
        raise
    message = 'the estimators need scikit-learn: pip install "pushforward[sklearn]"'
    raise ModuleNotFoundError(message, name=error.name) from error

from pushforward.tabular.columns import Kind
from pushforward.tabular.data_fit import DataFit
from pushforward.tabular.engine import Quality
from pushforward.tabular.fit_to_data import fit_to_data
from pushforward.tabular.row_model import context_vector
from pushforward.tabular.table import FEWEST_ROWS_TO_FIT

Floats = NDArray[np.float64]
PREDICT_DRAWS = 500


class _FlowEstimator(BaseEstimator):  # type: ignore[misc]
    """What the estimators share: their parameters, the checks of their input, and a `DataFit` in `fit_`."""

    fit_: DataFit

    def __init__(
        self,
        *,
        kinds: Mapping[Any, str | Kind] | None = None,
        quality: Quality = "balanced",
        max_seconds: float = 60.0,
        random_state: Any = None,
    ) -> None:
        self.kinds = kinds
        self.quality = quality
        self.max_seconds = max_seconds
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.non_deterministic = False
        return tags

    def _checked(self, X: Any, *, first: bool) -> Any:
        """A DataFrame as it is, with columns of any kind; all else as an array of numbers."""
        if hasattr(X, "columns"):
            return validate_data(self, X, reset=first, skip_check_array=True)
        return validate_data(
            self,
            X,
            reset=first,
            dtype=[np.float64, np.float32],
            ensure_all_finite="allow-nan",
            ensure_min_samples=FEWEST_ROWS_TO_FIT if first else 1,
        )

    def _fit(self, data: Any, context: Any, weights: Any, kinds: str) -> None:
        self.fit_ = fit_to_data(
            data,
            context,
            **{kinds: self.kinds},
            weights=weights,
            quality=self.quality,
            max_seconds=self.max_seconds,
            seed=self._seed(self.random_state),
            progress=False,
        )
        self.n_iter_ = 1

    @staticmethod
    def _seed(random_state: Any) -> int:
        return int(check_random_state(random_state).randint(2**31 - 1))


class FlowDensity(DensityMixin, _FlowEstimator):  # type: ignore[misc]
    """The density of the rows of a table, as `pushforward.fit_to_data` finds it.

    Args:
        kinds: of some columns, as {"age": "integer"}; the columns of an array are called x1, x2, ...
        quality: "fast", "balanced" or "best".
        max_seconds: budget of time of a fit.
        random_state: seed or random state of the fit.

    Attributes:
        fit_: the `DataFit`, with its verdict, its conditional densities and more.
        n_features_in_: number of columns.

    Example:
        >>> from pushforward.tabular.estimators import FlowDensity
        >>> X = np.random.default_rng(0).normal(size=(200, 2))
        >>> density = FlowDensity(max_seconds=5, random_state=0).fit(X)
        >>> density.score_samples(X[:3]).shape, density.sample(4, random_state=0).shape
        ((3,), (4, 2))
    """

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Fit to the rows of X, each as often as its weight says."""
        X = self._checked(X, first=True)
        weights = None if sample_weight is None else _check_sample_weight(sample_weight, X, ensure_non_negative=True)
        self._fit(X, None, weights, "kinds")
        return self

    def score_samples(self, X: Any) -> Floats:
        """The log-density of each row, nats, `(n,)`."""
        check_is_fitted(self)
        return self.fit_.log_prob(self._checked(X, first=False)).numpy()

    def score(self, X: Any, y: Any = None) -> float:
        """The mean log-density of the rows, nats."""
        return float(self.score_samples(X).mean())

    def sample(self, n_samples: int = 1, random_state: Any = None) -> Any:
        """New rows, in the form of the table that was fitted."""
        check_is_fitted(self)
        return self.fit_.sample(n_samples, seed=self._seed(random_state))


class ConditionalFlowDensity(RegressorMixin, _FlowEstimator):  # type: ignore[misc]
    """p(y | X): a regression that knows the whole distribution of its answer.

    Args:
        kinds: of some columns of X, as {"age": "integer"}; the columns of an array are called x1, x2, ...
        quality: "fast", "balanced" or "best".
        max_seconds: budget of time of a fit.
        random_state: seed or random state of the fit and of the draws that predictions are made of.

    Attributes:
        fit_: the `DataFit` of y given X.
        n_features_in_: number of columns of X.

    Example:
        >>> from pushforward.tabular.estimators import ConditionalFlowDensity
        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(size=(300, 1))
        >>> y = X[:, 0] + rng.normal(size=300)
        >>> model = ConditionalFlowDensity(max_seconds=5, random_state=0).fit(X, y)
        >>> model.predict([[0.5]]).shape, model.predict_interval([[0.5]], level=0.9).shape
        ((1,), (1, 2))
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the density of y, `(n,)` or `(n, outputs)`, given X."""
        if y is None:
            raise ValueError("ConditionalFlowDensity: requires y to be passed, but the target y is None")
        X = self._checked(X, first=True)
        y = np.asarray(y)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if y.dtype.kind not in "iufb":
            y = y.astype(np.float64)
        if y.ndim not in (1, 2) or len(y) != len(X) or not np.isfinite(y).all():
            raise ValueError(f"expected finite y of shape ({len(X)},) or ({len(X)}, outputs), got {y.shape}")
        weights = None if sample_weight is None else _check_sample_weight(sample_weight, X, ensure_non_negative=True)
        self._fit(y, X, weights, "context_kinds")
        return self

    def predict(self, X: Any) -> Floats:
        """The median of y given each row of X, `(n,)` or `(n, outputs)`."""
        return np.asarray(np.median(self._draws(X), axis=0))

    def predict_interval(self, X: Any, level: float = 0.9) -> Floats:
        """The bounds between which y lies with this probability, as often above as below: `(n, [outputs,] 2)`."""
        if not 0 < level < 1:
            raise ValueError(f"predict_interval: expected a level between 0 and 1, got {level}")
        bounds = np.quantile(self._draws(X), [(1 - level) / 2, (1 + level) / 2], axis=0)
        return np.asarray(np.moveaxis(bounds, 0, -1))

    def sample(self, X: Any, n_samples: int = 1, random_state: Any = None) -> Any:
        """Draws of y for each row of X: `(n_samples, n)` or `(n_samples, n, outputs)`."""
        check_is_fitted(self)
        X = self._checked(X, first=False)
        drawn = np.asarray(self.fit_.sample(n_samples, X, seed=self._seed(random_state)))
        return drawn.reshape(len(X), n_samples, *drawn.shape[1:]).swapaxes(0, 1)

    def log_prob(self, X: Any, y: Any) -> Floats:
        """log p(y | X) of each row, nats, `(n,)`."""
        check_is_fitted(self)
        return self.fit_.log_prob(np.asarray(y), self._checked(X, first=False)).numpy()

    def _draws(self, X: Any) -> Any:
        """Draws of y for each row of X, `(PREDICT_DRAWS, n, [outputs])`, whatever the order of the rows."""
        check_is_fitted(self)
        X = self._checked(X, first=False)
        assert self.fit_.context_schema is not None
        order = np.lexsort(context_vector(self.fit_.context_schema, X).numpy().T)
        drawn = self.sample(_safe_indexing(X, order), PREDICT_DRAWS, random_state=0)
        return drawn[:, np.argsort(order)]


class FlowAnomalyDetector(OutlierMixin, _FlowEstimator):  # type: ignore[misc]
    """Rows of low density, as anomalies.

    Args:
        contamination: share of the fitted rows that are taken for anomalies, in (0, 0.5].
        kinds: of some columns, as {"age": "integer"}; the columns of an array are called x1, x2, ...
        quality: "fast", "balanced" or "best".
        max_seconds: budget of time of a fit.
        random_state: seed or random state of the fit.

    Attributes:
        fit_: the `DataFit`.
        offset_: log-density below which a row is an anomaly, nats.
        n_features_in_: number of columns.

    Example:
        >>> from pushforward.tabular.estimators import FlowAnomalyDetector
        >>> X = np.random.default_rng(0).normal(size=(200, 2))
        >>> FlowAnomalyDetector(max_seconds=5, random_state=0).fit(X).predict([[0.0, 0.0], [9.0, 9.0]]).tolist()
        [1, -1]
    """

    def __init__(
        self,
        *,
        contamination: float = 0.1,
        kinds: Mapping[Any, str | Kind] | None = None,
        quality: Quality = "balanced",
        max_seconds: float = 60.0,
        random_state: Any = None,
    ) -> None:
        super().__init__(kinds=kinds, quality=quality, max_seconds=max_seconds, random_state=random_state)
        self.contamination = contamination

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Fit the density, and the offset to the share of anomalies."""
        if not 0 < self.contamination <= 0.5:
            raise ValueError(f"FlowAnomalyDetector: expected contamination in (0, 0.5], got {self.contamination}")
        X = self._checked(X, first=True)
        weights = None if sample_weight is None else _check_sample_weight(sample_weight, X, ensure_non_negative=True)
        self._fit(X, None, weights, "kinds")
        self.offset_ = float(np.quantile(self.fit_.log_prob(X).numpy(), self.contamination))
        return self

    def score_samples(self, X: Any) -> Floats:
        """The log-density of each row, nats, `(n,)`: the lower, the less usual."""
        check_is_fitted(self)
        return self.fit_.log_prob(self._checked(X, first=False)).numpy()

    def decision_function(self, X: Any) -> Floats:
        """`score_samples` less the offset: negative for anomalies."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> NDArray[np.int64]:
        """-1 for anomalies, 1 for others."""
        return np.where(self.decision_function(X) < 0, -1, 1)
