"""A density fitted to a table, and what can be asked of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from pushforward.io import load_info, load_module, save
from pushforward.tabular.columns import Name
from pushforward.tabular.conditional import Conditional, Marginal
from pushforward.tabular.given import PROPOSALS, Completion, Places, completion_for
from pushforward.tabular.history import History
from pushforward.tabular.judge import Judgement, Verdict
from pushforward.tabular.row_model import RowModel, context_vector
from pushforward.tabular.schema import Encoded, Schema
from pushforward.tabular.sources import read_columns
from pushforward.tabular.table import TableError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BOUND_DRAWS = 16  # of the noise, where log-likelihoods are lower bounds
BLOCK = 512  # rows completed at once


@dataclass(frozen=True)
class DataFit:
    """A density of the rows of a table, in the table's own units, and how far to trust it.

    Rows go in and come out in the form of the table that was fitted: a DataFrame, an array, a tensor.

    Attributes:
        schema: the kinds of the columns.
        context_schema: of the columns that the density is conditional on; None if there are none.
        model: of the encoded rows.
        judgement: the figures behind the verdict, on rows that the fit has not seen.
        history: how the fit came about.
    """

    schema: Schema
    context_schema: Schema | None
    model: RowModel
    judgement: Judgement
    history: History
    _completions: dict[Any, Completion]

    @property
    def verdict(self) -> Verdict:
        """ "good", "doubtful" or "failed"."""
        return self.judgement.verdict

    @property
    def seconds(self) -> float:
        """Wall-clock time of the fit."""
        return self.history.seconds

    @property
    def report(self) -> str:
        """The verdict in words, with the figures and the kinds of the columns."""
        return f"{self.judgement}\n\n{self.schema}"

    def log_prob(self, data: Any, context: Any = None, *, draws: int | None = None, seed: int = 0) -> Tensor:
        """log p(row | context) in nats, in the units of the table: `(n,)`, float64; -inf outside the support.

        Where numbers are rounded, missing or atoms, a lower bound: the log of the mean density over draws of the noise
        that stands for what is not known, whose expectation rises to the truth as the draws grow.

        Args:
            data: a table with the schema's columns, in any order and form.
            context: a table with the context's columns and as many rows.
            draws: of the noise; by default 16 where the schema is not exact.
            seed: of the noise.

        Raises:
            TableError: columns are missing or unexpected, or entries unusable (which column and row).
        """
        generator = torch.Generator().manual_seed(seed)
        y = self._context(context)
        draws = (1 if self.schema.exact else BOUND_DRAWS) if draws is None else draws
        terms = []
        for _ in range(draws):
            rows = self.schema.encode(data, generator)
            self._check_lengths(len(rows.inside), y)
            terms.append(self._log_prob(rows, y))
        return torch.stack(terms).logsumexp(0) - math.log(draws)

    def sample(self, n: int | None = None, context: Any = None, *, seed: int | None = None) -> Any:
        """New rows, as a table of the form, dtypes and categories of the one that was fitted.

        Args:
            n: number of rows; with a context, rows for each of its rows, by default 1.
            context: a table with the context's columns.
            seed: of the draws; by default torch's random state.
        """
        y = self._context(context)
        if y is None and n is None:
            raise ValueError("sample: expected a number of rows")
        with _seeded(seed):
            if y is None:
                return self.schema.decode(*self.model.sample(cast(int, n)))
            y = y.repeat_interleave(n or 1, 0)
            return self.schema.decode(*self.model.sample(len(y), y))

    def anomaly_score(self, data: Any, context: Any = None) -> Tensor:
        """-log p(row) in nats, `(n,)`: the larger, the less usual."""
        return -self.log_prob(data, context)

    def conditional(
        self, given: Mapping[Name, Any] | None = None, *, context: Any = None, seed: int = 0, **columns: Any
    ) -> Conditional:
        """The density of the other columns, given the values of some.

        Args:
            given: values by column, or as keyword arguments.
            context: one row of the context's columns.
            seed: of the proposals.

        Raises:
            ValueError: there is no such column, all columns are given, or a value cannot be one of its column.
        """
        values: dict[Name, Any] = dict(given or {})
        values.update(columns)
        self._check_names(values)
        if len(values) == len(self.schema.kinds):
            raise ValueError("conditional: expected a column that is not given, got values for all")
        y = self._context(context)
        if y is not None and len(y) != 1:
            raise ValueError(f"conditional: expected a context of one row, got {len(y)}")
        with _seeded(seed):
            return Conditional.of(self.schema, values, self._completion(self._places(values), y, ()), y)

    def marginal(self, columns: Iterable[Name], *, context: Any = None, seed: int = 0) -> Marginal:
        """The density of some columns, whatever the others are."""
        names = list(columns)
        self._check_names(names)
        y = self._context(context)
        if y is not None and len(y) != 1:
            raise ValueError(f"marginal: expected a context of one row, got {len(y)}")
        with _seeded(seed):
            return Marginal(self.schema, self.schema.subset(names), self._completion(self._places(names), y, ()), y)

    def impute(self, data: Any, context: Any = None, *, seed: int = 0) -> Any:
        """The table with its missing entries drawn from the model, given all else in their row, which stays as it is.

        Whether an entry is missing is taken to tell nothing about it beyond what the rest of the row tells.

        Args:
            data: a table with the schema's columns, some entries missing.
            context: a table with the context's columns and as many rows.
            seed: of the draws.

        Raises:
            TableError: a row has probability zero, as one with a new category (which).
        """
        generator = torch.Generator().manual_seed(seed)
        y = self._context(context)
        rows = self.schema.encode(data, generator)
        self._check_lengths(len(rows.inside), y)
        if not bool(rows.inside.all()):
            row = int((~rows.inside).nonzero()[0])
            raise TableError(f"row {row + 1}: holds an entry that the model has never seen and gives probability zero")
        c, u = rows.discrete.clone(), rows.continuous.clone()
        _, columns = read_columns(data)
        missing = torch.stack([torch.from_numpy(columns[name].missing) for name in self.schema.kinds], dim=1)
        patterns, which = missing.unique(dim=0, return_inverse=True)
        with _seeded(seed):
            for k, pattern in enumerate(patterns):
                if not bool(pattern.any()):
                    continue
                names = [name for name, gone in zip(self.schema.kinds, pattern.tolist(), strict=True) if gone]
                place = (which == k).nonzero().squeeze(-1)
                given = self._places(set(self.schema.kinds) - set(names))
                forbidden = self._missing_states(names)
                contexts = None if y is None else y[place]
                c[place], u[place] = self._complete(c[place], u[place], contexts, given, forbidden)
        return self.schema.decode(c, u, observed=columns)

    def save(self, path: str | Path) -> None:
        """Write the model, the kinds of the columns and the figures to one file, for `DataFit.load`."""
        info = {
            "schema": self.schema.to_json(),
            "context_schema": self.context_schema.to_json() if self.context_schema else None,
            "judgement": self.judgement.to_json(),
            "history": self.history.to_json(),
        }
        save(self.model, path, info={"table": info})

    @classmethod
    def load(cls, path: str | Path) -> DataFit:
        """Read what `save` wrote; nothing in the file is executed.

        Raises:
            ValueError: the file is damaged, or holds another kind of model.
            FileNotFoundError: there is no such file.
        """
        info = load_info(path).get("table")
        if info is None:
            raise ValueError(f"{path}: a model, but not one that was fitted to a table")
        model = load_module(path)
        if not isinstance(model, RowModel):
            raise ValueError(f"{path}: expected a model of rows, got {type(model).__name__}")
        context = info["context_schema"]
        return cls(
            Schema.from_json(info["schema"]),
            Schema.from_json(context) if context else None,
            model,
            Judgement.from_json(info["judgement"]),
            History.from_json(info["history"]),
            {},
        )

    def plot(self, data: Any = None, context: Any = None) -> Figure:
        """New rows, and those of a table if one is given: all pairs of columns of numbers, or else each by itself.

        Args:
            data: a table with the schema's columns, to compare with.
            context: a table with the context's columns, where there are any; a draw for each of its rows.
        """
        from pushforward.tabular.plot import plot

        return plot(self, data, context)

    def __repr__(self) -> str:
        return self.report

    def _log_prob(self, rows: Encoded, y: Tensor | None) -> Tensor:
        value = self.model.log_prob(rows.discrete, rows.continuous, y) + rows.log_jacobian
        return torch.where(rows.inside, value, -math.inf)

    def _context(self, context: Any) -> Tensor | None:
        if self.context_schema is None:
            if context is not None:
                raise ValueError("got a context, but the density was fitted without one")
            return None
        if context is None:
            names = ", ".join(map(repr, self.context_schema.kinds))
            raise ValueError(f"expected a context with the columns {names}, got none")
        return context_vector(self.context_schema, context)

    def _check_lengths(self, n: int, y: Tensor | None) -> None:
        if y is not None and len(y) != n:
            raise ValueError(f"expected a context with a row for each of {n}, got {len(y)}")

    def _check_names(self, names: Iterable[Name]) -> None:
        names = list(names)
        unknown = [name for name in names if name not in self.schema.kinds]
        if unknown or not names:
            known = ", ".join(map(repr, self.schema.kinds))
            raise ValueError(f"expected some of the columns {known}, got {repr(unknown[0]) if unknown else 'none'}")

    def _places(self, names: Iterable[Name]) -> Places:
        """Where the coordinates of some columns are."""
        names = set(names)
        c = tuple(i for i, name in enumerate(self.schema.discrete_names) if name in names)
        return Places(c, tuple(i for i, name in enumerate(self.schema.continuous_names) if name in names))

    def _missing_states(self, names: Iterable[Name]) -> tuple[tuple[int, int], ...]:
        """The discrete coordinates of some columns, and the states in which their entries are missing."""
        places = {name: i for i, name in enumerate(self.schema.discrete_names)}
        return tuple((places[n], self.schema.kinds[n].states - 1) for n in names if self.schema.kinds[n].missing)

    def _completion(self, given: Places, y: Tensor | None, forbidden: tuple[tuple[int, int], ...]) -> Completion:
        """Learnt once for each set of given coordinates; anew for each context."""
        if y is not None:
            return completion_for(self.model, given, y, forbidden)
        if (given, forbidden) not in self._completions:
            self._completions[given, forbidden] = completion_for(self.model, given, None, forbidden)
        return self._completions[given, forbidden]

    def _complete(
        self,
        c: Tensor,
        u: Tensor,
        y: Tensor | None,
        given: Places,
        forbidden: tuple[tuple[int, int], ...],
    ) -> tuple[Tensor, Tensor]:
        """Rows with the coordinates that are not given drawn, none of them in a forbidden state."""
        completion = self._completion(given, y, forbidden)
        parts = []
        for rows in torch.arange(len(c)).split(BLOCK):
            weighted = completion(c[rows], u[rows], None if y is None else y[rows], PROPOSALS)
            log_weights = weighted.log_weights
            for coordinate, state in forbidden:
                log_weights = torch.where(weighted.c[..., coordinate] == state, -1e30, log_weights)
            parts.append(weighted._replace(log_weights=log_weights).pick(1))
        return torch.cat([p[0][:, 0] for p in parts]), torch.cat([p[1][:, 0] for p in parts])


@contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    """Under a seed of its own, or with the global random state."""
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        yield
