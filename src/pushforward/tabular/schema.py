"""The kinds of a table's columns: from rows to coordinates of a model, and back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pushforward.tabular.columns import Column, Kind, Name, infer_kind, kind_from_json, parse_kind
from pushforward.tabular.sources import Columns, Source, read_columns, source_from_json
from pushforward.tabular.table import TableError, check_names


class Encoded(NamedTuple):
    """Rows of a table as a model sees them.

    Attributes:
        discrete: states, 0 to `levels` - 1 of each coordinate, int64, `(n, len(schema.levels))`.
        continuous: standardised coordinates, float64, `(n, schema.features)`.
        log_jacobian: what is added to log p(discrete) + log p(continuous | discrete) to get the log-density of a row,
            or a draw whose mean is at most that, in the units of the table, `(n,)`; -inf outside the support.
        inside: whether a row is in the support, `(n,)`. The coordinates of other rows are finite, and mean nothing.
    """

    discrete: Tensor
    continuous: Tensor
    log_jacobian: Tensor
    inside: Tensor


@dataclass(frozen=True)
class Schema:
    """What each column of a table holds, and so how its rows become vectors of discrete and continuous coordinates.

    Made by `Schema.infer`. A row is a vector c of states and a vector u in R^d, with
    log p(row) = log p(c) + log p(u | c) + log |du / dx|. Categorical and ordered columns have a state each, columns of
    numbers a continuous coordinate. Numbers that may be missing, or that have atoms (values with a probability of their
    own), have a state too, which says whether there is a number. Constant columns have neither.

    Where numbers are rounded, missing or atoms, the coordinates hold noise, and the log-likelihood is a lower bound:
    see `exact`, and `Encoded.log_jacobian`.

    Attributes:
        kinds: by column, in order.
        rows: how many rows there were.
        source: the form of the table, in which rows are decoded.

    Example:
        >>> table = {"age": [34, 57, 29], "height": [1.62, None, 1.8], "colour": ["red", "blue", "red"]}
        >>> schema = Schema.infer(table, kinds={"height": "positive"})
        >>> print(schema)
        3 columns, 3 rows: 2 discrete and 2 continuous coordinates; log-likelihoods are lower bounds (age, height)
        column  kind                    missing
        age     integer, 0 or more            -
        height  positive                 33.3 %
        colour  categorical: blue, red        -
        >>> encoded = schema.encode(table, torch.Generator().manual_seed(0))
        >>> encoded.discrete.tolist()
        [[0, 1], [1, 0], [0, 1]]
        >>> schema.decode(encoded.discrete, encoded.continuous) == table
        True
    """

    kinds: dict[Name, Kind]
    rows: int
    source: Source

    @classmethod
    def infer(cls, data: Any, kinds: Mapping[Name, str | Kind] | None = None) -> Schema:
        """The kinds of the columns of a table.

        Args:
            data: a DataFrame of pandas or polars, an Arrow table or what can be read as one, an array or a tensor of
                one or two dimensions, a mapping of names to arrays, tensors and lists, or a `Table`. Columns of arrays
                and tensors are called x1, x2, ...
            kinds: of some columns: "real", "positive", "bounded(0, 1)", "integer", "integer(0, 10)", "angle",
                "angle(360)", "ordered", "categorical" or "constant", or an instance of such a class. Those of other
                columns are inferred; see `infer_kind` for the rules.

        Raises:
            TableError: for tables with less than two rows, and for columns that cannot be modelled, or not as the kind
                that was given (which column, and in which row, counted from 1).
            ValueError: for a kind of a column that does not exist, and for a kind that does not exist.
        """
        source, columns = read_columns(data)
        rows = len(next(iter(columns.values())))
        if rows < 2:
            raise TableError(f"expected two or more rows to infer the kinds of columns from, got {rows}")
        kinds = dict(kinds or {})
        unknown = [name for name in kinds if name not in columns]
        if unknown:
            known = ", ".join(map(repr, columns))
            raise ValueError(f"kinds: there is no column {unknown[0]!r}; the columns are {known}")
        return cls({name: _kind_of(column, kinds.get(name)) for name, column in columns.items()}, rows, source)

    @property
    def discrete_names(self) -> tuple[Name, ...]:
        """The columns that the discrete coordinates come from."""
        return tuple(name for name, kind in self.kinds.items() if kind.states > 1)

    @property
    def continuous_names(self) -> tuple[Name, ...]:
        """The columns that the continuous coordinates come from."""
        return tuple(name for name, kind in self.kinds.items() if kind.continuous)

    @property
    def levels(self) -> tuple[int, ...]:
        """How many states each discrete coordinate has."""
        return tuple(self.kinds[name].states for name in self.discrete_names)

    @property
    def features(self) -> int:
        """The number of continuous coordinates."""
        return len(self.continuous_names)

    @property
    def exact(self) -> bool:
        """Whether the log-likelihood is exact, and not a lower bound."""
        return all(kind.exact for kind in self.kinds.values())

    def encode(self, data: Any, generator: torch.Generator | None = None) -> Encoded:
        """The coordinates of the rows of a table.

        Outside the support are rows with a level, a constant or a bound that the schema does not have, with numbers
        beyond the bounds, and with numbers that are not whole in a column of integers. Their log-density is -inf.

        Args:
            data: a table of any form with the schema's columns, in any order.
            generator: of the noise that stands for what is rounded or missing.

        Raises:
            TableError: if columns are missing or unexpected, if entries are of another type or infinite, or missing
                where none were when the kinds were inferred (where).
        """
        return self.encoder(data)(generator)

    def encoder(self, data: Any) -> Callable[[torch.Generator | None], Encoded]:
        """The rows of a table, read once, to be encoded again and again with fresh noise; as `encode`."""
        _, columns = read_columns(data)
        check_names(columns, self.kinds)
        return lambda generator: self._encode(columns, generator)

    def _encode(self, columns: Mapping[Name, Column], generator: torch.Generator | None) -> Encoded:
        parts = {name: kind.encode(columns[name], generator) for name, kind in self.kinds.items()}
        log_jacobian = torch.stack([part.log_jacobian for part in parts.values()]).sum(0)
        return Encoded(
            _beside([parts[name].state for name in self.discrete_names], log_jacobian.long()),
            _beside([part.u for part in parts.values() if part.u is not None], log_jacobian),
            log_jacobian,
            log_jacobian > -torch.inf,
        )

    def decode(self, discrete: Tensor, continuous: Tensor, *, observed: Columns | None = None) -> Any:
        """The rows that have these coordinates, as a table of the form, dtypes and categories that the kinds came from.

        Every decoded row is in the support. Rounded numbers are those of the grid.

        Args:
            discrete: `(n, len(levels))`, whole numbers.
            continuous: `(n, features)`, finite.
            observed: the rows' own columns, whose numbers are kept to the last digit where they are not missing.

        Raises:
            ValueError: for other shapes, states that do not exist, or coordinates that are not finite (which row).
        """
        discrete, continuous = discrete.detach().cpu().long(), continuous.detach().cpu().double()
        self._check_coordinates(discrete, continuous)
        states = dict(zip(self.discrete_names, discrete.unbind(-1), strict=True))
        coordinates = dict(zip(self.continuous_names, continuous.unbind(-1), strict=True))
        nothing = discrete.new_zeros(len(discrete))
        columns: dict[Name, Column] = {}
        for name, kind in self.kinds.items():
            columns[name] = kind.decode(name, states.get(name, nothing), coordinates.get(name))
            if observed is not None:
                columns[name] = columns[name].updated(observed[name])
        return self.source.write(columns)

    def subset(self, names: Collection[Name]) -> Schema:
        """The schema of some of the columns, in its own order."""
        places = [i for i, name in enumerate(self.kinds) if name in names]
        kinds = {name: kind for name, kind in self.kinds.items() if name in names}
        return Schema(kinds, self.rows, self.source.take(places))

    def to_json(self) -> dict[str, Any]:
        """What JSON can hold, to build the schema from again."""
        return {
            "columns": [{"name": name, **kind.to_json()} for name, kind in self.kinds.items()],
            "rows": self.rows,
            **self.source.to_json(),
        }

    @classmethod
    def from_json(cls, description: Mapping[str, Any]) -> Schema:
        """The schema that `to_json` described.

        Raises:
            ValueError: if it is not such a description.
        """
        try:
            rest = dict(description)
            kinds = {column["name"]: kind_from_json(column) for column in rest.pop("columns")}
            return cls(kinds, rest.pop("rows"), source_from_json(rest))
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"not the description of a schema ({error!r})") from error

    def __str__(self) -> str:
        noisy = [str(name) for name, kind in self.kinds.items() if not kind.exact]
        bound = f"; log-likelihoods are lower bounds ({', '.join(noisy)})" if noisy else ""
        head = (
            f"{len(self.kinds)} columns, {self.rows} rows: {len(self.levels)} discrete and {self.features} continuous "
            f"coordinates{bound}"
        )
        rows = [("column", "kind", "missing")]
        rows += [(str(name), str(kind), _share(kind.missing)) for name, kind in self.kinds.items()]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        lines = [f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {gone:>{widths[2]}}" for name, kind, gone in rows]
        return "\n".join([head, *lines])

    def _check_coordinates(self, discrete: Tensor, continuous: Tensor) -> None:
        n = len(discrete)
        expected = (n, len(self.levels)), (n, self.features)
        if (tuple(discrete.shape), tuple(continuous.shape)) != expected:
            raise ValueError(
                f"decode: expected shapes (n, {len(self.levels)}) and (n, {self.features}), "
                f"got {tuple(discrete.shape)} and {tuple(continuous.shape)}"
            )
        wrong = ((discrete < 0) | (discrete >= torch.tensor(self.levels))).any(-1)
        _refuse_row(wrong, discrete, f"states below {list(self.levels)}")
        _refuse_row((~continuous.isfinite()).any(-1), continuous, "finite coordinates")


def _refuse_row(wrong: Tensor, rows: Tensor, expected: str) -> None:
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise ValueError(f"decode: expected {expected}, got {rows[row].tolist()} in row {row + 1}")


def _kind_of(column: Column, given: str | Kind | None) -> Kind:
    kind = parse_kind(given) if isinstance(given, str) else given or infer_kind(column)
    return kind.fit(column)


def _beside(columns: list[Tensor], like: Tensor) -> Tensor:
    return torch.stack(columns, dim=-1) if columns else like.new_zeros(len(like), 0)


def _share(part: float) -> str:
    return f"{100 * part:.1f} %" if part >= 5e-4 else "< 0.1 %" if part else "-"
