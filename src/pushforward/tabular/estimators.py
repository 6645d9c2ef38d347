"""Densities of tables as scikit-learn estimators. Needs `pip install "pushforward[sklearn]"`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

try:
    from sklearn.base import BaseEstimator, DensityMixin, OutlierMixin, RegressorMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "sklearn":
        raise
    message = 'the estimators need scikit-learn: pip install "pushforward[sklearn]"'
    raise ModuleNotFoundError(message, name=error.name) from error

from pushforward.tabular.columns import Kind
from pushforward.tabular.data_fit import DataFit
from pushforward.tabular.engine import Quality
from pushforward.tabular.fit_to_data import fit_to_data

Floats = NDArray[np.float64]
Kinds = Mapping[Any, str | Kind] | None


class _FlowEstimator(BaseEstimator):  # type: ignore[misc]
    """What the estimators share: their parameters, and a `DataFit` in `fit_`."""

    fit_: DataFit

    def __init__(
        self,
        *,
        kinds: Kinds = None,
        quality: Quality = "balanced",
        max_seconds: float = 60.0,
        random_state: Any = None,
    ) -> None:
        self.kinds = kinds
        self.quality = quality
        self.max_seconds = max_seconds
        self.random_state = random_state

    def _fit(self, data: Any, context: Any = None, sample_weight: Any = None) -> None:
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self.fit_ = fit_to_data(
            data,
            context,
            kinds=self.kinds,
            weights=None if sample_weight is None else torch.as_tensor(sample_weight),
            quality=self.quality,
            max_seconds=self.max_seconds,
            seed=seed,
            progress=False,
        )
        self.n_iter_ = 1
