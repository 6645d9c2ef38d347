"""Numeric tables: what is read, what is refused and in which words, and that nothing is half written."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pushforward.tabular import Table, TableError, check_columns, check_fittable, read_table, write_csv


def refusal(path: Path, **options: int) -> str:
    """The message of a refused file, less the path in front; one line."""
    with pytest.raises(TableError) as caught:
        read_table(path, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def npy_bytes(values: object, **options: bool) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "columns", "values"),
    [
        (b"a,b\n1,2\n3,4\n", ("a", "b"), [[1, 2], [3, 4]]),
        (b"1,2\n3,4\n", ("x1", "x2"), [[1, 2], [3, 4]]),
        (b"a,b\n1,2", ("a", "b"), [[1, 2]]),
        (b"a,b\r\n1,2\r\n\r\n  \r\n", ("a", "b"), [[1, 2]]),
        (b"\xef\xbb\xbfa,b\n1,2\n", ("a", "b"), [[1, 2]]),
        (b"\xef\xbb\xbf1,2\n", ("x1", "x2"), [[1, 2]]),
        (b"7\n", ("x1",), [[7]]),
        ("höhe,重さ\n1,2\n".encode(), ("höhe", "重さ"), [[1, 2]]),
        (b'"a, left", "b"\n "1",2\n', ("a, left", "b"), [[1, 2]]),
        (b" a , b \n 1 ,\t2\n", ("a", "b"), [[1, 2]]),
        (b"year,2019\n1,2\n", ("year", "2019"), [[1, 2]]),
        (b"a,b\n-1.5e-3,+.25\n1E5,-0\n", ("a", "b"), [[-0.0015, 0.25], [1e5, 0]]),
        (b"a\n5e-324\n1.7976931348623157e308\n", ("a",), [[5e-324], [1.7976931348623157e308]]),
    ],
)
def test_csv_is_read(tmp_path: Path, content: bytes, columns: tuple[str, ...], values: list[list[float]]) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    table = read_table(path)
    assert table.columns == columns
    assert table.values.dtype == np.float64
    assert table.values.tolist() == values
    assert table.source == str(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"a,b\n", "expected 1 or more rows of numbers, got 0"),
        (b"a,b\n1,2\n3\n", "row 2 (line 3): expected 2 cells, got 1"),
        (b"a,b\n1,2,3\n", "row 1 (line 2): expected 2 cells, got 3"),
        (b"1\n2,3\n", "row 2 (line 2): expected 1 cell, got 2"),
        (b"a,b\n1,2\n3,\n", "column 'b', row 2 (line 3): the cell is empty"),
        (b"1,2\n ,4\n", "column 'x1', row 2 (line 2): the cell is empty"),
        (b"1,,3\n", "column 'x2', row 1 (line 1): the cell is empty"),
        (b'a\n1\n""\n', "column 'a', row 2 (line 3): the cell is empty"),
        (b"a,b\n1,two\n", "column 'b', row 1 (line 2): expected a number, got 'two'"),
        (b"a,b\n1,2_000\n", "column 'b', row 1 (line 2): expected a number, got '2_000'"),
        (b"a\n1,5;2\n", "row 1 (line 2): expected 1 cell, got 2"),
        (b"a;b\n1;2\n", "column 'a;b', row 1 (line 2): expected a number, got '1;2' (cells are separated by commas)"),
        (b'a,b\n1,"2\n3"\n', r"column 'b', row 1 (line 3): expected a number, got '2\n3'"),
        (b"a\n" + b"z" * 99 + b"\n", "column 'a', row 1 (line 2): expected a number, got '" + "z" * 37 + "...'"),
        (b"a,b\n1,2\n3,NaN\n", "column 'b', row 2 (line 3): expected a finite number, got 'NaN'"),
        (b"1,2\n-inf,4\n", "column 'x1', row 2 (line 2): expected a finite number, got '-inf'"),
        (b"nan,2\n3,4\n", "column 'x1', row 1 (line 1): expected a finite number, got 'nan'"),
        (b"a\n1e999\n", "column 'a', row 1 (line 2): expected a finite number, got '1e999'"),
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


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([1, 2, 3]), [[1], [2], [3]]),
        (np.array([[1.5, 2], [3, 4]]), [[1.5, 2], [3, 4]]),
        (np.asfortranarray([[1.5, 2], [3, 4]]), [[1.5, 2], [3, 4]]),
        (np.array([[1, 2]], dtype=">i2"), [[1, 2]]),
        (np.array([[255]], dtype=np.uint8), [[255]]),
        (np.array([[0.5]], dtype=np.float16), [[0.5]]),
    ],
)
def test_npy_is_read(tmp_path: Path, values: np.ndarray, expected: list[list[float]]) -> None:
    path = tmp_path / "table.NPY"
    path.write_bytes(npy_bytes(values))
    table = read_table(path)
    assert table.columns == tuple(f"x{i + 1}" for i in range(len(expected[0])))
    assert table.values.dtype == np.float64
    assert table.values.dtype.isnative
    assert table.values.tolist() == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a whole .npy file of numbers: "),
        (b"a,b\n1,2\n", "is not a whole .npy file of numbers: "),
        (npy_bytes(np.ones((4, 3)))[:-1], "is not a whole .npy file of numbers: "),
        (npy_bytes(np.ones((4, 3)))[:20], "is not a whole .npy file of numbers: "),
        (npy_bytes(np.ones((4, 3))).replace(b"(4, 3)", b"(4 3) "), "is not a whole .npy file of numbers: "),
        (npy_bytes(np.array([1, "a"], dtype=object), allow_pickle=True), "is not a whole .npy file of numbers: Object"),
        (b"PK\x03\x04" + bytes(60), "is not a whole .npy file of numbers: "),
        (npy_bytes(np.array([1j])), "expected an array of real numbers, got dtype complex128"),
        (npy_bytes(np.array(["a"])), "expected an array of real numbers, got dtype <U1"),
        (npy_bytes(np.array([True])), "expected an array of real numbers, got dtype bool"),
        (npy_bytes(np.ones((2, 2, 2))), "expected an array with 1 or 2 dimensions, got shape (2, 2, 2)"),
        (npy_bytes(np.array(1.0)), "expected an array with 1 or 2 dimensions, got shape ()"),
        (npy_bytes(np.ones((2, 0))), "has no columns"),
        (npy_bytes(np.ones((0, 2))), "expected 1 or more rows of numbers, got 0"),
        (npy_bytes(np.array([[1, 2], [3, np.nan]])), "column 'x2', row 2: expected a finite number, got nan"),
        (npy_bytes(np.array([1.0, -np.inf])), "column 'x1', row 2: expected a finite number, got -inf"),
    ],
)
def test_npy_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "table.npy"
    path.write_bytes(content)
    assert refusal(path).startswith(message)


def test_path_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(tmp_path) == "is a folder, not a file"
    assert refusal(tmp_path / "none.csv") == "no such file"
    table = tmp_path / "table.xlsx"
    table.touch()
    assert refusal(table) == "expected a file that ends in .csv or .npy"
    assert refusal(tmp_path / ("a" * 300 + ".csv")).startswith("cannot be read: ")

    def denied(*args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    for suffix in ("csv", "npy"):
        table = tmp_path / f"table.{suffix}"
        table.touch()
        assert refusal(table) == "cannot be read: Permission denied"


def test_minimum_rows(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("a,b\n1,2\n3,4\n")
    assert len(read_table(path, minimum_rows=2).values) == 2
    assert refusal(path, minimum_rows=3) == "expected 3 or more rows of numbers, got 2"
    path.write_text("a,b\n")
    assert read_table(path, minimum_rows=0).values.shape == (0, 2)


def test_check_fittable() -> None:
    values = np.arange(20.0).reshape(10, 2)
    check_fittable(Table(("a", "b"), values))
    with pytest.raises(TableError, match=r"^here\.csv: expected 10 or more rows to fit, got 9$"):
        check_fittable(Table(("a", "b"), values[:9], "here.csv"))
    values[:, 1] = 3
    with pytest.raises(TableError, match=r"^here\.csv: column 'b' is constant: 3\.0 in every row$"):
        check_fittable(Table(("a", "b"), values, "here.csv"))


def test_check_columns() -> None:
    table = Table(("a", "b", "c"), np.array([[1.0, 2.0, 3.0]]), "here.csv")
    assert check_columns(table, ["a", "b", "c"]) is table
    reordered = check_columns(table, ["c", "a", "b"])
    assert reordered.columns == ("c", "a", "b")
    assert reordered.values.tolist() == [[3, 1, 2]]
    assert reordered.source == "here.csv"


@pytest.mark.parametrize(
    ("columns", "expected", "message"),
    [
        ("ab", "abc", "missing 'c'"),
        ("abc", "ab", "unexpected 'c'"),
        ("abd", "abc", "missing 'c'; unexpected 'd'"),
        ("a", "bcdefgh", "missing 'b', 'c', 'd', 'e', 'f' and 2 more; unexpected 'a'"),
        (
            ("x1", "x2"),
            "ab",
            "missing 'a', 'b'; unexpected 'x1', 'x2'; a table without a header has columns x1, x2, ...",
        ),
    ],
)
def test_check_columns_refuses(columns: str | tuple[str, ...], expected: str, message: str) -> None:
    table = Table(tuple(columns), np.zeros((1, len(columns))), "here.csv")
    with pytest.raises(TableError) as caught:
        check_columns(table, tuple(expected))
    assert str(caught.value) == f"here.csv: its columns are not the model's: {message}"


def test_written_numbers_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2**64, size=(2000, 3), dtype=np.uint64).view(np.float64)
    values = values[np.isfinite(values).all(axis=1)]
    values[0] = [0.1, -0.0, 5e-324]
    columns = ("plain", "with, comma", 'with "quotes" and ü')
    write_csv(path, columns, values)
    table = read_table(path)
    assert table.columns == columns
    assert table.values.tobytes() == values.tobytes()
    assert path.read_bytes().splitlines()[1] == b"0.1,-0.0,5e-324"
    assert list(tmp_path.iterdir()) == [path]


def test_no_rows_and_infinite_numbers_are_written(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    write_csv(path, ["a"], np.zeros((0, 1)))
    assert path.read_bytes() == b"a\n"
    write_csv(path, ["a"], [[-np.inf]])
    assert path.read_bytes() == b"a\n-inf\n"


def test_write_refuses(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^expected values with shape \(rows, 2\), got \(1, 3\)$"):
        write_csv(tmp_path / "out.csv", ["a", "b"], [[1, 2, 3]])
    folder = tmp_path / "none"
    with pytest.raises(TableError) as caught:
        write_csv(folder / "out.csv", ["a"], [[1]])
    assert str(caught.value) == f"{folder / 'out.csv'}: cannot be written: there is no folder {folder}"
    folder.mkdir()
    with pytest.raises(TableError, match="cannot be written: "):
        write_csv(folder, ["a"], [[1]])
    assert list(tmp_path.iterdir()) == [folder]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.csv"
    write_csv(path, ["a"], [[1]])

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(TableError) as caught:
        write_csv(path, ["a"], [[2]])
    assert str(caught.value) == f"{path}: cannot be written: No space left on device"
    assert read_table(path).values.tolist() == [[1]]
    assert list(tmp_path.iterdir()) == [path]


def test_reading_tables_does_not_import_torch() -> None:
    code = "import sys, pushforward.tabular.table; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
