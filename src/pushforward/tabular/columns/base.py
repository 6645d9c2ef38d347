"""What the kind of a column is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from pushforward.tabular.columns.column import Column, Name, refuse


class Coordinates(NamedTuple):
    """A column as the model sees it.

    Attributes:
        state: the discrete coordinate, 0, 1, ..., int64, shape `(n,)`.
        u: the continuous coordinate, float64, shape `(n,)`; `None` for kinds without one.
        log_jacobian: what the column adds to log p(state) + log p(u | state) to make its log-density, shape `(n,)`;
            -inf outside the support.
    """

    state: Tensor
    u: Tensor | None
    log_jacobian: Tensor


@dataclass(frozen=True, kw_only=True)
class Kind(ABC):
    """How the entries of a column become coordinates of a model, and back.

    What the user declares is positional; the rest is found in the data by `fit`, and can be written as JSON.

    Args:
        missing: the share of missing entries; if there are any, being missing is one more state.

    Attributes:
        label: the name of the kind, as in `kinds={"age": "integer"}`.
        declared: the names of the arguments that may follow the label in parentheses.
        continuous: whether there is a continuous coordinate.
    """

    missing: float = 0.0

    label: ClassVar[str]
    declared: ClassVar[tuple[str, ...]] = ()
    continuous: ClassVar[bool]

    @abstractmethod
    def fit(self, column: Column) -> Self:
        """The kind with everything that a column decides.

        Raises:
            TableError: if the column is not of this kind (where).
        """

    @property
    @abstractmethod
    def states(self) -> int:
        """How many values the discrete coordinate takes; at most 1 makes a coordinate unnecessary."""

    @property
    @abstractmethod
    def exact(self) -> bool:
        """Whether encoding draws no noise, so that log-densities are exact."""

    @abstractmethod
    def encode(self, column: Column, generator: torch.Generator | None = None) -> Coordinates:
        """The coordinates of the entries.

        Raises:
            TableError: for entries of another type, infinite ones, or missing ones where there were none to fit to.
        """

    @abstractmethod
    def decode(self, name: Name, state: Tensor, u: Tensor | None) -> Column:
        """The entries that have these coordinates, of the dtype of the column that was fitted."""

    @abstractmethod
    def __str__(self) -> str:
        """The kind in words."""

    def to_json(self) -> dict[str, Any]:
        """What JSON can hold, to build the kind from again."""
        return {"kind": self.label, **{f.name: getattr(self, f.name) for f in fields(self)}}

    def _check_missing(self, column: Column) -> None:
        if not self.missing:
            filled = ~column.missing
            if not filled.all():
                row = int(filled.argmin())
                refuse(column.name, "is missing, but no entry was where the kinds were inferred", row)
