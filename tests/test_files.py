"""Files of tables: what is read, what is refused and in which words, and that nothing is half written."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pushforward.tabular import Table, TableError, read_file, write_file
from pushforward.tabular.files import FORMATS, check_writable
from pushforward.tabular.sources import columns_as_lists, select, some_rows

MIXED: dict[str, Any] = {
    "size": [1.5, None, -0.0, 1e300],
    "count": [1, 2, 3, 4],
    "name": ["a", "b, c", None, 'd "e" ü'],
    "yes": [True, False, True, True],
}


def refusal(path: Path) -> str:
    """The message of a refused file, less the path in front; one line."""
    with pytest.raises(TableError) as caught:
        read_file(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def csv_columns(tmp_path: Path, content: bytes) -> dict[str, Any]:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    return {name: list(column) for name, column in read_file(path).items()}


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_is_written_is_read(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"table{suffix}"
    numbers = {name: MIXED[name] for name in ("size", "count")}
    table = {"x1": numbers["size"], "x2": numbers["count"]} if suffix == ".npy" else MIXED
    write_file(path, table)
    assert columns_as_lists(read_file(path)) == table
    assert list(read_file(path)) == list(table) if suffix in (".csv", ".h5") else True
    assert list(tmp_path.iterdir()) == [path]


def test_dtypes_are_kept_where_the_format_has_them(tmp_path: Path) -> None:
    table = {"a": np.array([1, 2], dtype=np.int16), "b": np.array([0.5, 1.5], dtype=np.float32)}
    write_file(tmp_path / "t.h5", table)
    assert {k: v.dtype for k, v in read_file(tmp_path / "t.h5").items()} == {"a": np.int16, "b": np.float32}
    np.save(tmp_path / "a.npy", np.eye(3, dtype=np.float32))
    assert read_file(tmp_path / "a.npy").dtype == np.float32


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a,b\n1,2\n3,4\n", {"a": [1, 3], "b": [2, 4]}),
        (b"1,2\n3,4\n", {"x1": [1, 3], "x2": [2, 4]}),
        (b"a,b\n1,2", {"a": [1], "b": [2]}),
        (b"a,b\r\n1,2\r\n\r\n  \r\n", {"a": [1], "b": [2]}),
        (b"\xef\xbb\xbfa,b\n1,2\n", {"a": [1], "b": [2]}),
        (b"\xef\xbb\xbf1,2\n", {"x1": [1], "x2": [2]}),
        (b"7\n", {"x1": [7]}),
        ("höhe,重さ\n1,2\n".encode(), {"höhe": [1], "重さ": [2]}),
        (b'"a, left", "b"\n "1",2\n', {"a, left": [1], "b": [2]}),
        (b" a , b \n 1 ,\t2\n", {"a": [1], "b": [2]}),
        (b"year,2019\n1,2\n", {"year": [1], "2019": [2]}),
        (b"a,b\n-1.5e-3,+.25\n1E5,-0\n", {"a": [-0.0015, 1e5], "b": [0.25, 0]}),
        (b"a\n5e-324\n1.7976931348623157e308\n", {"a": [5e-324, 1.7976931348623157e308]}),
        (b"a\nTrue\nfalse\n\n", {"a": [True, False]}),
        (b"a,b\nx, y \nNA,\n", {"a": ["x", None], "b": ["y", None]}),
        (b"a\n1_000\n2_000\n", {"a": ["1_000", "2_000"]}),
        (b'a,b\n1,"2\n3"\n', {"a": [1], "b": ["2\n3"]}),
        (b"a\n9223372036854775808\n", {"a": [2.0**63]}),
    ],
)
def test_csv_is_read(tmp_path: Path, content: bytes, expected: dict[str, list[Any]]) -> None:
    assert csv_columns(tmp_path, content) == expected


def test_gaps_and_mixed_types_in_csv(tmp_path: Path) -> None:
    """Gaps make whole numbers float; fewer than nine tenths of numbers make text."""
    found = csv_columns(tmp_path, b"a,b\n1,1\n,two\nnan,3\n4,4\n")
    assert np.array_equal(found["a"], [1, np.nan, np.nan, 4], equal_nan=True)
    assert found["b"] == ["1", "two", "3", "4"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"a,b\n1,2\n3\n", "row 2 (line 3): expected 2 cells, got 1"),
        (b"a,b\n1,2,3\n", "row 1 (line 2): expected 2 cells, got 3"),
        (b"1\n2,3\n", "row 2 (line 2): expected 1 cell, got 2"),
        (b"a,b\n1,2\n3;4\n", "row 2 (line 3): expected 2 cells, got 1 (cells are separated by commas)"),
        (
            b"a,b\n" + b"1,2\n" * 9 + b"3,two\n",
            "column 'b', row 10 (line 11): expected a number like most others of its column, got 'two'",
        ),
        (
            b"a\n" + b"1\n" * 9 + b"z" * 99 + b"\n",
            "column 'a', row 10 (line 11): expected a number like most others of its column, got '" + "z" * 37 + "...'",
        ),
        (b"a,b,a\n1,2,3\n", "columns 1 and 3 are both called 'a'"),
        (b"a, \n1,2\n", "column 2 has no name in the header"),
        (b"a\n1\n\n2\n", "line 3: is blank"),
        (b"\na\n1\n", "line 1: is blank"),
        (b"a,b\n1,2\n3,\xff\n", "line 3: is not UTF-8 text"),
        ("a,b\n1,2\n".encode("utf-16"), "line 1: is not UTF-8 text"),
        (b"a\n" + b"1\n" * 9000 + b"\xe9\n", "line 9002: is not UTF-8 text"),
        (b'a,b\n1,"2\n', "line 2: unexpected end of data"),
        (b'a,b\n1,"2"3\n', "line 2: ',' expected after '\"'"),
        (b"a\n" + b"1" * 200_000, "line 2: field larger than field limit (131072)"),
    ],
)
def test_csv_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    assert refusal(path) == message


def npy_bytes(values: object, **options: bool) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npy", b"", "is not a whole .npy file of numbers: "),
        ("a.npy", b"a,b\n1,2\n", "is not a whole .npy file of numbers: "),
        ("a.npy", npy_bytes(np.ones((4, 3)))[:-1], "is not a whole .npy file of numbers: "),
        ("a.npy", npy_bytes(np.ones((4, 3))).replace(b"(4, 3)", b"(4 3) "), "is not a whole .npy file of numbers: "),
        ("a.npy", npy_bytes(np.array([1, "a"], dtype=object), allow_pickle=True), "is not a whole .npy file of"),
        ("a.parquet", b"", "cannot be read: "),
        ("a.parquet", b"PAR1" + bytes(40), "cannot be read: "),
        ("a.feather", b"nothing of that sort", "cannot be read: "),
        ("a.h5", b"nothing of that sort", "cannot be read: "),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert refusal(tmp_path / name).startswith(message)


def hdf5(fill: Callable[[Any], None]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        import h5py

        with h5py.File(path, "w") as file:
            fill(file)

    return write


RECORDS = np.array([(1, 0.5), (2, 1.5)], dtype=[("a", "i4"), ("b", "f8")])


@pytest.mark.parametrize(
    ("fill", "expected"),
    [
        (lambda file: file.create_dataset("x", data=np.eye(2)), {"x1": [1, 0], "x2": [0, 1]}),
        (lambda file: file.create_dataset("x", data=RECORDS), {"a": [1, 2], "b": [0.5, 1.5]}),
        (lambda file: file.create_dataset("x", data=np.arange(2)), {"x": [0, 1]}),
        (lambda file: file.create_dataset("x", data=np.array([b"p", b"q"])), {"x": ["p", "q"]}),
    ],
    ids=["matrix", "records", "vector", "text"],
)
def test_hdf5_is_read(tmp_path: Path, fill: Callable[[Any], None], expected: dict[str, list[Any]]) -> None:
    hdf5(fill)(tmp_path / "t.hdf5")
    assert columns_as_lists(read_file(tmp_path / "t.hdf5")) == expected


@pytest.mark.parametrize("fill", [lambda file: None, lambda file: file.create_dataset("x", data=np.ones((2, 2, 2)))])
def test_hdf5_is_refused(tmp_path: Path, fill: Callable[[Any], None]) -> None:
    hdf5(fill)(tmp_path / "t.h5")
    assert refusal(tmp_path / "t.h5").startswith("expected one array of two dimensions")


def test_path_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(tmp_path) == "is a folder, not a file"
    assert refusal(tmp_path / "none.csv") == "no such file"
    table = tmp_path / "table.xlsx"
    table.touch()
    assert refusal(table) == "expected a file that ends in .csv, .parquet, .feather, .npy, .h5, .hdf5"
    assert refusal(tmp_path / ("a" * 300 + ".csv")).startswith("cannot be read: ")

    def denied(*args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    for suffix in ("csv", "npy"):
        table = tmp_path / f"table.{suffix}"
        table.touch()
        assert refusal(table) == "cannot be read: Permission denied"


@pytest.mark.parametrize(("suffix", "package"), [(".parquet", "pyarrow"), (".feather", "pyarrow"), (".h5", "h5py")])
def test_missing_packages_are_named(suffix: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("h5py", "pyarrow", "pyarrow.parquet", "pyarrow.feather"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    for use in (lambda path: path.touch() or read_file(path), check_writable):
        with pytest.raises(ModuleNotFoundError, match=rf"{package}: pip install 'pushforward\[tables\]'"):
            use(tmp_path / f"table{suffix}")


def test_written_numbers_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    values = np.random.default_rng(0).integers(0, 2**64, size=(2000, 3), dtype=np.uint64).view(np.float64)
    values = values[np.isfinite(values).all(axis=1)]
    values[0] = [0.1, -0.0, 5e-324]
    columns = ("plain", "with, comma", 'with "quotes" and ü')
    write_file(path, Table(columns, values))
    table = read_file(path)
    assert tuple(table) == columns
    assert np.stack(list(table.values()), axis=1).tobytes() == values.tobytes()
    assert path.read_bytes().splitlines()[1] == b"0.1,-0.0,5e-324"


def test_infinite_numbers_are_written(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    write_file(path, {"a": np.array([-np.inf])})
    assert path.read_bytes() == b"a\n-inf\n"


def test_write_refuses(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"out\.npy: a \.npy file cannot hold the text of column 'name'"):
        write_file(tmp_path / "out.npy", MIXED)
    for use in (check_writable, lambda path: write_file(path, MIXED)):
        folder = tmp_path / "none"
        with pytest.raises(ValueError, match=f"cannot be written: there is no folder {folder}"):
            use(folder / "out.csv")
        with pytest.raises(ValueError, match="expected a file that ends in"):
            use(tmp_path / "out.txt")
        (tmp_path / "a.csv").mkdir(exist_ok=True)
        with pytest.raises(ValueError, match="is a folder"):
            use(tmp_path / "a.csv")
    assert list(tmp_path.iterdir()) == [tmp_path / "a.csv"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_failed_write_leaves_the_old_file(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"out{suffix}"
    write_file(path, {"x1": [1.0]})

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(TableError) as caught:
        write_file(path, {"x1": [2.0]})
    assert str(caught.value) == f"{path}: cannot be written: No space left on device"
    assert columns_as_lists(read_file(path)) == {"x1": [1.0]}
    assert list(tmp_path.iterdir()) == [path]


def test_some_columns_and_some_rows() -> None:
    assert select(MIXED, ["yes", "name"]) == {"yes": MIXED["yes"], "name": MIXED["name"]}
    array = np.arange(12.0).reshape(4, 3)
    assert {k: v.tolist() for k, v in select(array, ["x3"]).items()} == {"x3": [2, 5, 8, 11]}
    gaps = np.array([[1, None], [2, 3]], dtype=object)
    assert select(gaps, ["x2"]) == {"x2": [None, 3]}
    assert some_rows(array, 2).tolist() == [[0, 1, 2], [9, 10, 11]]
    assert some_rows(MIXED, 2) == {name: [column[0], column[-1]] for name, column in MIXED.items()}
    assert some_rows(MIXED, 9) is MIXED
