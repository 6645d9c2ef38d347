"""Numeric tables: what is taken for one, what a density can be fitted to, and in which words the rest is refused."""

import numpy as np
import pytest

from pushforward.tabular import Table, TableError, check_fittable, numeric_table
from pushforward.tabular.table import check_names


def test_numeric_table() -> None:
    table = numeric_table({"a": [1, 2], "b": np.array([0.5, 1.5], dtype=np.float32)}, "here.csv")
    assert table.columns == ("a", "b") and table.source == "here.csv"
    assert table.values.dtype == np.float64
    assert table.values.tolist() == [[1, 0.5], [2, 1.5]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, None], "column 'a', row 2: expected a number, got a missing entry"),
        ([np.inf, 1.0], "column 'a', row 1: expected a finite number, got inf"),
        (["x", "y"], "column 'a': expected numbers, for the kind real, got text or categories"),
        ([True, False], "column 'a': expected numbers, for the kind real, got booleans"),
    ],
)
def test_numeric_table_refuses(values: list[object], message: str) -> None:
    with pytest.raises(TableError) as caught:
        numeric_table({"a": values})
    assert str(caught.value) == message


def test_check_fittable() -> None:
    values = np.arange(20.0).reshape(10, 2)
    check_fittable(Table(("a", "b"), values))
    with pytest.raises(TableError, match=r"^here\.csv: expected 10 or more rows to fit, got 9$"):
        check_fittable(Table(("a", "b"), values[:9], "here.csv"))
    values[:, 1] = 3
    with pytest.raises(TableError, match=r"^here\.csv: column 'b' is constant: 3\.0 in every row$"):
        check_fittable(Table(("a", "b"), values, "here.csv"))


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
def test_check_names_refuses(columns: str | tuple[str, ...], expected: str, message: str) -> None:
    check_names(tuple(expected), tuple(reversed(expected)))
    with pytest.raises(TableError) as caught:
        check_names(tuple(columns), tuple(expected), "here.csv")
    assert str(caught.value) == f"here.csv: its columns are not the model's: {message}"
