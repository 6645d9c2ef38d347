"""Files of tables: read whatever a model takes, write whatever it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from pushforward import files
from pushforward.files import write_atomically
from pushforward.tabular.csv_files import read_csv, write_csv_columns
from pushforward.tabular.sources import columns_as_lists, read_columns
from pushforward.tabular.table import TableError


class Format(NamedTuple):
    """How files of a format are read and written, and what imports the package that this needs."""

    read: Callable[[Path], Any]
    write: Callable[[Path, Any], None]
    needs: Callable[[], Any] = lambda: None


def read_file(path: str | Path) -> Any:
    """A table from a file: a dict of columns, an Arrow table, or an array.

    CSV files are UTF-8 text whose first line names the columns, unless every cell of it is a number; they are then
    called x1, x2, ... Cells that are empty, NA, N/A, NaN, null or None are missing. A column of numbers alone is one of
    numbers, one of true and false alone one of booleans. One of which at least nine tenths are numbers is refused, at
    its first other cell; the rest are text. HDF5 files hold one array of two dimensions, one of records, or an array of
    one dimension for each column; empty text is missing.

    Args:
        path: a .csv, .parquet, .feather, .npy, .h5 or .hdf5 file.

    Raises:
        TableError: the file cannot be read, or holds no table (where).
        ModuleNotFoundError: the format needs pyarrow or h5py.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_file(f"{folder}/people.csv", {"height": [1.62, None], "sex": ["f", "m"]})
        ...     read_file(f"{folder}/people.csv")
        {'height': array([1.62,  nan]), 'sex': ['f', 'm']}
    """
    path = Path(path)
    with _telling(path, "cannot be read"):
        if path.is_dir():
            raise TableError(f"{path}: is a folder, not a file")
        if not path.exists():
            raise TableError(f"{path}: no such file")
        return _format(path).read(path)


def write_file(path: str | Path, table: Any) -> None:
    """Write a table to a file of the format that its name ends in, whole or not at all.

    Args:
        path: a .csv, .parquet, .feather, .npy, .h5 or .hdf5 file.
        table: of any form that `read_columns` takes.

    Raises:
        TableError: the file cannot be written, or the format cannot hold the table.
        ModuleNotFoundError: the format needs pyarrow or h5py.
    """
    path = Path(path)
    check_writable(path)
    with _telling(path, "cannot be written"), write_atomically(path) as temporary:
        _format(path).write(temporary, table)


def check_writable(path: str | Path) -> None:
    """Refuse a file that `write_file` could not write, before the work that makes the table.

    Raises:
        ValueError: it is a folder, or cannot be written.
        TableError: its name does not end in a known format.
        ModuleNotFoundError: the format needs pyarrow or h5py.
    """
    path = Path(path)
    _format(path).needs()
    files.check_writable(path)


@contextmanager
def naming(source: str | Path) -> Iterator[None]:
    """Let every `TableError` say which table it is about."""
    try:
        yield
    except TableError as error:
        if str(error).startswith(f"{source}: "):
            raise
        raise TableError(f"{source}: {error}") from error


def _read_parquet(path: Path) -> Any:
    return _arrow("parquet").read_table(path)


def _write_parquet(path: Path, table: Any) -> None:
    _arrow("parquet").write_table(_as_arrow(table), path)


def _read_feather(path: Path) -> Any:
    return _arrow("feather").read_table(path)


def _write_feather(path: Path, table: Any) -> None:
    _arrow("feather").write_feather(_as_arrow(table), str(path))


def _read_npy(path: Path) -> Any:
    with path.open("rb") as file:
        try:
            return np.lib.format.read_array(file, allow_pickle=False)
        except Exception as error:  # NumPy evaluates the header: a damaged one can raise anything
            reason = str(error).partition("\n")[0]
            raise TableError(f"{path}: is not a whole .npy file of numbers: {reason}") from None


def _write_npy(path: Path, table: Any) -> None:
    if isinstance(table, torch.Tensor):
        table = table.numpy()
    if not isinstance(table, np.ndarray):
        columns = read_columns(table)[1].values()
        texts = [column.name for column in columns if column.levels is not None]
        if texts:
            raise TableError(f"a .npy file cannot hold the text of column {texts[0]!r}; write a .csv file")
        table = np.stack([np.where(c.missing, np.nan, c.values.astype(np.float64)) for c in columns], axis=1)
    with path.open("wb") as file:
        np.lib.format.write_array(file, np.ascontiguousarray(table), allow_pickle=False)


def _read_hdf5(path: Path) -> Any:
    h5py = _h5py()
    with h5py.File(path) as file:
        sets = {name: item for name, item in file.items() if isinstance(item, h5py.Dataset)}
        [first, *others] = [*sets.values()] or [None]
        if first is not None and not others and (first.ndim == 2 or first.dtype.names):
            values = first[()]
            return {name: values[name] for name in values.dtype.names} if values.dtype.names else values
        if not sets or any(item.ndim != 1 for item in sets.values()):
            raise TableError(f"{path}: expected one array of two dimensions, or one of one dimension for each column")
        return {name: _from_hdf5(item) for name, item in sets.items()}


def _from_hdf5(item: Any) -> Any:
    return [text or None for text in item.asstr()[()].tolist()] if item.dtype.kind in "SO" else item[()]


def _write_hdf5(path: Path, table: Any) -> None:
    h5py = _h5py()
    with h5py.File(path, "w", track_order=True) as file:
        for name, column in read_columns(table)[1].items():
            if column.levels is not None:
                texts = np.array([str(level) for level in column.levels] or [""], dtype=object)
                entries = np.where(column.missing, "", texts[column.values])
                file.create_dataset(str(name), data=entries, dtype=h5py.string_dtype())
                continue
            values = column.values
            if column.missing.any():
                values = np.where(column.missing, np.nan, values.astype(np.float64))
            file.create_dataset(str(name), data=values)


def _write_csv(path: Path, table: Any) -> None:
    write_csv_columns(path, columns_as_lists(table))


def _format(path: Path) -> Format:
    if path.suffix.lower() not in FORMATS:
        raise TableError(f"{path}: expected a file that ends in {', '.join(FORMATS)}")
    return FORMATS[path.suffix.lower()]


def _as_arrow(table: Any) -> Any:
    import pyarrow as pa

    if isinstance(table, pa.Table):
        return table
    if hasattr(table, "__arrow_c_stream__"):
        return pa.table(table)
    return pa.table(columns_as_lists(table))


def _arrow(module: str) -> Any:
    try:
        return __import__(f"pyarrow.{module}", fromlist=[module])
    except ModuleNotFoundError:
        raise ModuleNotFoundError(f"{module} files need pyarrow: pip install 'pushforward[tables]'") from None


def _h5py() -> Any:
    try:
        import h5py
    except ModuleNotFoundError:
        raise ModuleNotFoundError("HDF5 files need h5py: pip install 'pushforward[tables]'") from None
    return h5py


@contextmanager
def _telling(path: Path, what: str) -> Iterator[None]:
    """Errors of the system and of pyarrow as one that names the file."""
    try:
        with naming(path):
            yield
    except (TableError, ModuleNotFoundError):
        raise
    except OSError as error:
        raise TableError(f"{path}: {what}: {error.strerror or error}") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "pyarrow":
            raise
        raise TableError(f"{path}: {what}: {str(error).splitlines()[0]}") from error


FORMATS: Mapping[str, Format] = {
    ".csv": Format(read_csv, _write_csv),
    ".parquet": Format(_read_parquet, _write_parquet, lambda: _arrow("parquet")),
    ".feather": Format(_read_feather, _write_feather, lambda: _arrow("feather")),
    ".npy": Format(_read_npy, _write_npy),
    ".h5": Format(_read_hdf5, _write_hdf5, _h5py),
    ".hdf5": Format(_read_hdf5, _write_hdf5, _h5py),
}
