"""Tables of other libraries: their columns read, and tables like them written."""

from __future__ import annotations

import base64
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, NoReturn, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pushforward.tabular.columns import Column, Name, Scalar
from pushforward.tabular.columns.column import refuse
from pushforward.tabular.table import Table, TableError, numbered

Columns = dict[Name, Column]


@dataclass(frozen=True)
class Source(ABC):
    """A form of table, and what is needed to write one like the table that was read; all of it JSON can hold."""

    label: ClassVar[str]

    @classmethod
    @abstractmethod
    def read(cls, data: Any) -> tuple[Self, Columns]:
        """The form of a table, and its columns."""

    @abstractmethod
    def write(self, columns: Columns) -> Any:
        """A table of this form."""

    def take(self, places: Sequence[int]) -> Self:
        """The form of a table that has only the columns at these places."""
        return self

    def to_json(self) -> dict[str, Any]:
        """What JSON can hold, to build the source from again."""
        return {"source": self.label, **asdict(self)}


def read_columns(data: Any) -> tuple[Source, Columns]:
    """The columns of a table, and its form.

    Args:
        data: a DataFrame of pandas or polars, an Arrow table or what can be read as one, an array or a tensor of one or
            two dimensions, a mapping of names to arrays, lists and tensors, or a `Table`. Columns of arrays and tensors
            are called x1, x2, ...

    Raises:
        TableError: for other data; for a table without columns, with columns of the same name, or with entries that
            are neither numbers, nor text, nor booleans (where).
    """
    source = _source_of(data)
    form, columns = source.read(data)
    if not columns:
        raise TableError("expected a table with columns, got none")
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise TableError(f"expected columns of equal length, got {lengths}")
    return form, columns


def numeric_table(data: Any, source: str = "table") -> Table:
    """The columns of a table of finite numbers, float64.

    Args:
        data: of any form that `read_columns` takes.
        source: where it came from, for messages.

    Raises:
        TableError: a column holds text, booleans, or an entry that is missing or infinite (where).

    Example:
        >>> numeric_table({"a": [1, 2], "b": [0.5, 1.5]}).values.tolist()
        [[1.0, 0.5], [2.0, 1.5]]
    """
    columns = read_columns(data)[1]
    numbers = []
    for name, column in columns.items():
        numbers.append(column.numbers("real"))
        if column.missing.any():
            refuse(name, "expected a number, got a missing entry", int(column.missing.argmax()))
    return Table(tuple(map(str, columns)), np.stack(numbers, axis=1), source)


def columns_as_lists(data: Any) -> dict[str, list[Any]]:
    """Python numbers, text and booleans by column; None where missing."""
    return {str(name): _to_objects(column).tolist() for name, column in read_columns(data)[1].items()}


def select(data: Any, names: Sequence[Name]) -> Any:
    """A table of only these columns, in this order.

    Args:
        data: of any form that `read_columns` takes; of an array or tensor the answer is a dict, so that the columns
            keep their names.
        names: of columns that there are.
    """
    source, columns = read_columns(data)
    if isinstance(source, Array | Tensors):
        return {name: _by_itself(columns[name]) for name in names}
    places = list(columns)
    return source.take([places.index(name) for name in names]).write({name: columns[name] for name in names})


def some_rows(data: Any, most: int) -> Any:
    """At most so many rows of a table, evenly from its first to its last; itself if it has no more."""
    source, columns = read_columns(data)
    n = len(next(iter(columns.values())))
    if n <= most:
        return data
    index = np.linspace(0, n - 1, most).astype(np.int64)
    rows = {k: replace(c, values=c.values[index], missing=c.missing[index]) for k, c in columns.items()}
    return source.write(rows)


def source_from_json(description: Mapping[str, Any]) -> Source:
    """The source that `Source.to_json` described."""
    arguments = {name: tuple(v) if isinstance(v, list) else v for name, v in description.items() if name != "source"}
    return _SOURCES[description["source"]](**arguments)


def _source_of(data: Any) -> type[Source]:
    if isinstance(data, Table):
        return TableSource
    if isinstance(data, np.ndarray):
        return Array
    if isinstance(data, torch.Tensor):
        return Tensors
    if isinstance(data, Mapping):
        return Dictionary
    names = {f"{cls.__module__.partition('.')[0]}.{cls.__name__}" for cls in type(data).__mro__}
    if "pandas.DataFrame" in names:
        return Pandas
    if "polars.DataFrame" in names:
        return Polars
    if hasattr(data, "__arrow_c_stream__") and not names & {"pandas.Series", "polars.Series"}:
        return Arrow
    raise TableError(
        "expected a DataFrame of pandas or polars, an Arrow table, an array, a tensor, or a dict of columns, "
        f"got {type(data).__module__}.{type(data).__qualname__}"
    )


@dataclass(frozen=True)
class TableSource(Source):
    """The table of this library: finite float64 numbers."""

    label: ClassVar[str] = "table"

    @classmethod
    def read(cls, data: Table) -> tuple[Self, Columns]:
        return cls(), _named(map(_of_array, data.columns, data.values.T))

    def write(self, columns: Columns) -> Table:
        values = [_to_array(column, "float64") for column in columns.values()]
        return Table(tuple(map(str, columns)), np.stack(values, axis=1))


@dataclass(frozen=True)
class Array(Source):
    """A NumPy array; missing entries are NaN, among objects None."""

    dtype: str
    dimensions: int

    label: ClassVar[str] = "numpy"

    @classmethod
    def read(cls, data: NDArray[Any]) -> tuple[Self, Columns]:
        rows = _two_dimensions(data)
        return cls(data.dtype.str, data.ndim), _named(map(_of_array, numbered(rows.shape[1]), rows.T))

    def write(self, columns: Columns) -> NDArray[Any]:
        written = np.stack([_to_array(column, self.dtype) for column in columns.values()], axis=1)
        return written if self.dimensions == 2 else written[:, 0]


@dataclass(frozen=True)
class Tensors(Source):
    """A tensor of any device; what is written is on the CPU. Missing entries are NaN."""

    dtype: str
    dimensions: int

    label: ClassVar[str] = "torch"

    @classmethod
    def read(cls, data: Tensor) -> tuple[Self, Columns]:
        rows = _two_dimensions(_plain(data, "the tensor"))
        return cls(_name(data.dtype), data.dim()), _named(map(_of_array, numbered(rows.shape[1]), rows.T))

    def write(self, columns: Columns) -> Tensor:
        written = torch.stack([_to_tensor(column, self.dtype) for column in columns.values()], dim=1)
        return written if self.dimensions == 2 else written[:, 0]


@dataclass(frozen=True)
class Dictionary(Source):
    """A mapping of names to arrays, tensors and lists of one dimension; lists get None for missing entries."""

    forms: tuple[str, ...]

    label: ClassVar[str] = "dict"

    @classmethod
    def read(cls, data: Mapping[Name, Any]) -> tuple[Self, Columns]:
        forms, columns = [], []
        for name, values in data.items():
            if isinstance(values, list | tuple):
                forms.append("list")
                columns.append(Column.of_objects(name, values))
                continue
            tensor = isinstance(values, Tensor)
            if not (tensor or isinstance(values, np.ndarray)) or values.ndim != 1:
                got = f"shape {tuple(values.shape)}" if hasattr(values, "shape") else type(values).__name__
                refuse(name, f"expected an array, tensor or list of one dimension, got {got}")
            forms.append(f"torch.{_name(values.dtype)}" if tensor else values.dtype.str)
            columns.append(_of_array(name, _plain(values, f"column {name!r}") if tensor else values))
        return cls(tuple(forms)), _named(columns)

    def take(self, places: Sequence[int]) -> Self:
        return replace(self, forms=tuple(self.forms[i] for i in places))

    def write(self, columns: Columns) -> dict[Name, Any]:
        pairs = zip(columns.items(), self.forms, strict=True)
        return {name: self._write(column, form) for (name, column), form in pairs}

    @staticmethod
    def _write(column: Column, form: str) -> Any:
        if form == "list":
            return _to_objects(column).tolist()
        return _to_tensor(column, form[6:]) if form.startswith("torch.") else _to_array(column, form)


@dataclass(frozen=True)
class Pandas(Source):
    """A DataFrame of pandas; the index is not kept. Missing entries are those of the dtype, among objects None."""

    dtypes: tuple[str | dict[str, Any], ...]

    label: ClassVar[str] = "pandas"

    @classmethod
    def read(cls, data: Any) -> tuple[Self, Columns]:
        names = data.columns.tolist()
        series = [data.iloc[:, i] for i in range(len(names))]
        columns = _named(map(cls._read, names, series))
        return cls(tuple(cls._form(s.dtype) for s in series)), columns

    def take(self, places: Sequence[int]) -> Self:
        return replace(self, dtypes=tuple(self.dtypes[i] for i in places))

    def write(self, columns: Columns) -> Any:
        import pandas as pd

        written = [self._write(column, form) for column, form in zip(columns.values(), self.dtypes, strict=True)]
        frame = pd.DataFrame(dict(enumerate(written)))
        frame.columns = pd.Index(list(columns))
        return frame

    @staticmethod
    def _form(dtype: Any) -> str | dict[str, Any]:
        if str(dtype) != "category":
            return str(dtype)
        categories = dtype.categories
        return {"categories": categories.tolist(), "dtype": str(categories.dtype), "ordered": bool(dtype.ordered)}

    @staticmethod
    def _read(name: Name, series: Any) -> Column:
        import pandas as pd

        dtype = series.dtype
        missing = series.isna().to_numpy(dtype=bool)
        if isinstance(dtype, pd.CategoricalDtype):
            codes = series.cat.codes.to_numpy().astype(np.int64)
            return Column(name, codes, missing, _levels(name, dtype.categories.tolist()), bool(dtype.ordered))
        if dtype.kind in "iufb" and not isinstance(dtype, pd.SparseDtype):
            plain = getattr(dtype, "numpy_dtype", dtype)
            fill = {"na_value": plain.type(0)} if missing.any() else {}
            return Column.of_numbers(name, series.to_numpy(dtype=plain, **fill), missing)
        if dtype == np.dtype(object) or isinstance(dtype, pd.StringDtype) or str(dtype).endswith("string[pyarrow]"):
            return Column.of_objects(name, series.to_numpy(dtype=object), missing)
        refuse_dtype(name, dtype)

    @staticmethod
    def _write(column: Column, form: str | dict[str, Any]) -> Any:
        import pandas as pd

        if isinstance(form, dict):
            dtype = pd.CategoricalDtype(pd.Index(form["categories"], dtype=form["dtype"]), form["ordered"])
            return pd.Series(pd.Categorical.from_codes(_positions(column, form["categories"], -1), dtype=dtype))
        if form == "object" or column.levels is not None:
            return pd.Series(_to_objects(column), dtype=form)
        if isinstance(pd.api.types.pandas_dtype(form), np.dtype):
            return pd.Series(_to_array(column, form))
        series = pd.Series(pd.array(column.values, dtype=form))
        series[column.missing] = pd.NA
        return series


@dataclass(frozen=True)
class Polars(Source):
    """A DataFrame of polars; missing entries are written as null."""

    dtypes: tuple[str | dict[str, Any], ...]

    label: ClassVar[str] = "polars"

    @classmethod
    def read(cls, data: Any) -> tuple[Self, Columns]:
        series = data.get_columns()
        columns = _named(map(cls._read, series))
        return cls(tuple(cls._form(s) for s in series)), columns

    def take(self, places: Sequence[int]) -> Self:
        return replace(self, dtypes=tuple(self.dtypes[i] for i in places))

    def write(self, columns: Columns) -> Any:
        import polars as pl

        return pl.DataFrame(
            [self._write(column, form) for column, form in zip(columns.values(), self.dtypes, strict=True)]
        )

    @staticmethod
    def _form(series: Any) -> str | dict[str, Any]:
        name = str(series.dtype.base_type())
        return {"categories": series.dtype.categories.to_list()} if name == "Enum" else name

    @staticmethod
    def _read(series: Any) -> Column:
        import polars as pl

        name, dtype = series.name, series.dtype
        missing = series.is_null().to_numpy()
        if dtype == pl.Enum:
            codes = series.to_physical().fill_null(0).to_numpy().astype(np.int64)
            return Column(name, codes, missing, tuple(series.dtype.categories.to_list()))
        if dtype in (pl.String, pl.Categorical):
            return Column.of_objects(name, series.cast(pl.String).to_list(), missing)
        if dtype == pl.Null:
            return Column(name, np.zeros(len(series)), missing)
        if dtype == pl.Boolean or dtype.is_integer() or dtype.is_float():
            return Column.of_numbers(name, series.fill_null(False if dtype == pl.Boolean else 0).to_numpy(), missing)
        refuse_dtype(name, dtype)

    @staticmethod
    def _write(column: Column, form: str | dict[str, Any]) -> Any:
        import polars as pl

        dtype = pl.Enum(form["categories"]) if isinstance(form, dict) else getattr(pl, form)
        if column.levels is not None or form == "Null":
            return pl.Series(str(column.name), _to_objects(column).tolist(), dtype=dtype)
        written = pl.Series(column.values).cast(dtype)
        gone = pl.Series(column.missing)
        return pl.select(pl.when(gone).then(None).otherwise(written).alias(str(column.name))).to_series()


@dataclass(frozen=True)
class Arrow(Source):
    """An Arrow table; missing entries are written as null. `schema` is Arrow's own description of it, as base64."""

    schema: str

    label: ClassVar[str] = "arrow"

    @classmethod
    def read(cls, data: Any) -> tuple[Self, Columns]:
        pa = _pyarrow()
        table = data if isinstance(data, pa.Table) else pa.table(data)
        columns = _named(map(cls._read, table.column_names, table.columns))
        return cls(_packed(table.schema.remove_metadata())), columns

    def take(self, places: Sequence[int]) -> Self:
        pa = _pyarrow()
        whole = self._schema()
        return replace(self, schema=_packed(pa.schema([whole.field(i) for i in places])))

    def write(self, columns: Columns) -> Any:
        pa = _pyarrow()
        schema = self._schema()
        written = [self._write(column, form.type) for column, form in zip(columns.values(), schema, strict=True)]
        return pa.Table.from_arrays(written, schema=schema)

    def _schema(self) -> Any:
        pa = _pyarrow()
        return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(self.schema)))

    @staticmethod
    def _read(name: Name, chunked: Any) -> Column:
        pa = _pyarrow()
        t, kind = pa.types, chunked.type
        missing = chunked.is_null().to_numpy()
        if t.is_dictionary(kind):
            whole = pa.chunked_array(chunked.unify_dictionaries().chunks or [[]], type=kind).combine_chunks()
            codes = whole.indices.fill_null(0).to_numpy().astype(np.int64)
            return Column(name, codes, missing, _levels(name, whole.dictionary.to_pylist()), bool(kind.ordered))
        if str(kind) in ("string", "large_string", "string_view"):
            return Column.of_objects(name, chunked.to_numpy(), missing)
        if t.is_null(kind):
            return Column(name, np.zeros(len(chunked)), missing)
        if t.is_boolean(kind) or t.is_integer(kind) or t.is_floating(kind):
            return Column.of_numbers(name, chunked.fill_null(pa.scalar(0).cast(kind)).to_numpy(), missing)
        refuse_dtype(name, kind)

    @staticmethod
    def _write(column: Column, kind: Any) -> Any:
        pa = _pyarrow()
        if not pa.types.is_dictionary(kind):
            plain = column.levels is None and not pa.types.is_null(kind)
            if plain:
                return pa.array(column.values, type=kind, mask=column.missing)
            return pa.array(_to_objects(column).tolist(), type=kind)
        codes = pa.array(column.values, type=kind.index_type, mask=column.missing)
        levels = pa.array(column.levels, type=kind.value_type)
        return pa.DictionaryArray.from_arrays(codes, levels, ordered=kind.ordered)


_SOURCES: dict[str, type[Source]] = {
    cls.label: cls for cls in (TableSource, Array, Tensors, Dictionary, Pandas, Polars, Arrow)
}


def refuse_dtype(name: Name, dtype: object) -> NoReturn:
    """Refuse a column for its dtype."""
    dates = "date" in str(dtype).lower() or "time" in str(dtype).lower()
    hint = "; give dates and times as numbers, as days since the first" if dates else ""
    refuse(name, f"expected numbers, text, booleans or categories, got {dtype}{hint}")


def _named(columns: Iterable[Column]) -> Columns:
    found: Columns = {}
    for position, column in enumerate(columns, 1):
        if not isinstance(column.name, str | int) or isinstance(column.name, bool):
            raise TableError(f"column {position}: expected a name that is text or a whole number, got {column.name!r}")
        if column.name in found:
            earlier = list(found).index(column.name) + 1
            raise TableError(f"columns {earlier} and {position} are both called {column.name!r}")
        found[column.name] = column
    return found


def _two_dimensions(values: NDArray[Any]) -> NDArray[Any]:
    if values.ndim not in (1, 2):
        raise TableError(f"expected an array or tensor of 1 or 2 dimensions, got shape {values.shape}")
    return values if values.ndim == 2 else values[:, None]


def _plain(tensor: Tensor, where: str) -> NDArray[Any]:
    if tensor.dtype in (torch.bfloat16, torch.complex32):
        raise TableError(f"{where}: expected a dtype that NumPy knows, got {tensor.dtype}; convert it with .float()")
    return tensor.detach().cpu().numpy()


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _of_array(name: Name, values: NDArray[Any]) -> Column:
    if isinstance(values, np.ma.MaskedArray):
        refuse(name, "expected an array without a mask; fill what is missing with NaN")
    if values.dtype.kind in "UO":
        return Column.of_objects(name, values.tolist())
    if values.dtype.kind not in "iufb" or values.dtype.itemsize > 8:
        refuse_dtype(name, values.dtype)
    return Column.of_numbers(name, values)


def _levels(name: Name, values: Sequence[Any]) -> tuple[Scalar, ...]:
    for value in values:
        if not isinstance(value, str | int | float):
            refuse(name, f"expected categories that are text, numbers or booleans, got {value!r}; rename them")
    return tuple(values)


def _positions(column: Column, categories: Sequence[Scalar], missing: int) -> NDArray[np.int64]:
    """Where the entries of a column with levels are in another list of them."""
    assert column.levels is not None
    places = {level: i for i, level in enumerate(categories)}
    table = np.array([places[level] for level in column.levels] or [missing], dtype=np.int64)
    return np.where(column.missing, missing, table[column.values])


def _to_objects(column: Column) -> NDArray[np.object_]:
    """The entries as Python objects; None where missing."""
    if column.levels is None:
        entries = column.values.astype(object)
    else:
        entries = np.array([*column.levels, None], dtype=object)[column.values]
    entries[column.missing] = None
    return entries


def _by_itself(column: Column) -> Any:
    """An array of numbers or booleans, or a list where that cannot hold the entries."""
    if column.levels is not None or (column.missing.any() and column.values.dtype.kind != "f"):
        return _to_objects(column).tolist()
    return _to_array(column, column.values.dtype.str)


def _to_array(column: Column, dtype: str) -> NDArray[Any]:
    """The entries as an array of the dtype that was read; NaN where missing."""
    if np.dtype(dtype).kind in "UO":
        return _to_objects(column).astype(dtype)
    values = column.values.astype(dtype)
    if values.dtype.kind == "f":
        values[column.missing] = np.nan
    return values


def _to_tensor(column: Column, dtype: str) -> Tensor:
    return torch.from_numpy(_to_array(column, dtype))


def _packed(schema: Any) -> str:
    """Arrow's own description of a table, as text."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def _pyarrow() -> Any:
    try:
        import pyarrow as pa
        import pyarrow.ipc
    except ModuleNotFoundError:
        raise ModuleNotFoundError("Arrow tables need pyarrow: pip install 'pushforward[tables]'") from None
    return pa
