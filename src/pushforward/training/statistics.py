"""Mean, spread and range of columns, in one pass over blocks of rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class ColumnStatistics:
    """Of each column, over the rows that hold a number there; tensors of shape `(columns,)`, float64.

    Attributes:
        missing: how many rows hold no number; whole numbers.
        mean: in the units of the column, as all that follow; NaN for a column without numbers, as are the range's ends.
        sd: standard deviation, with n - 1; NaN for fewer than two numbers.
        minimum: the smallest number.
        maximum: the largest.
    """

    missing: Tensor
    mean: Tensor
    sd: Tensor
    minimum: Tensor
    maximum: Tensor


class Moments:
    """Moments about a point near the mean, merged block by block, so that a distant origin costs no digits.

    Reference:
        Chan, Golub and LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979,
        Stanford STAN-CS-79-773.
    """

    def __init__(self, columns: int) -> None:
        self.rows = 0
        self.count = np.zeros(columns)
        self.pivot = np.full(columns, np.nan)
        self.mean = np.zeros(columns)  # from the pivot on
        self.squares = np.zeros(columns)  # of the distances from the mean
        self.minimum = np.full(columns, np.nan)
        self.maximum = np.full(columns, np.nan)

    def add(self, block: NDArray[np.float64]) -> None:
        """Take in some rows, (rows, columns), NaN where there is no number."""
        columns = np.ascontiguousarray(block.T)
        absent = np.isnan(columns)
        count = len(block) - absent.sum(1)
        np.fmin(self.minimum, np.fmin.reduce(columns, axis=1), out=self.minimum)
        np.fmax(self.maximum, np.fmax.reduce(columns, axis=1), out=self.maximum)
        self.pivot = np.where(np.isnan(self.pivot), self.minimum / 2 + self.maximum / 2, self.pivot)
        columns -= self.pivot[:, None]
        columns[absent] = 0.0
        mean = columns.sum(1) / np.maximum(count, 1)
        columns -= mean[:, None]
        columns[absent] = 0.0
        total = np.maximum(self.count + count, 1)
        step = mean - self.mean
        self.squares += np.einsum("ij,ij->i", columns, columns) + step**2 * self.count * count / total
        self.mean += step * count / total
        self.count += count
        self.rows += len(block)

    def result(self) -> ColumnStatistics:
        with np.errstate(invalid="ignore", divide="ignore"):
            sd = np.sqrt(self.squares / np.maximum(self.count - 1, 0))
        return ColumnStatistics(
            missing=torch.from_numpy(self.rows - self.count).long(),
            mean=torch.from_numpy(self.pivot + self.mean),
            sd=torch.from_numpy(sd),
            minimum=torch.from_numpy(self.minimum),
            maximum=torch.from_numpy(self.maximum),
        )
