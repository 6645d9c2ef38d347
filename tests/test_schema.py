"""Tables of every form to coordinates and back; what is refused, and in which words."""

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from pushforward.tabular import Bounded, Integer, Kind, Ordered, Real, Schema, TableError, numeric_table, read_file
from pushforward.tabular.sources import read_columns
from pushforward.targets import faithful_path

N = 60


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def mixed() -> dict[str, Any]:
    """Every sort of entry, with and without missing ones, as lists."""
    whole = rng().poisson(20, N).tolist()
    return {
        "real": rng().normal(size=N).tolist(),
        "gaps": [None, *rng().normal(size=N - 1).tolist()],
        "count": whole,
        "count with gaps": [None, *whole[1:]],
        "text": ["b", "a", "ü"] * (N // 3),
        "text with gaps": [None, "b", "a"] * (N // 3),
        "flag": [True, False] * (N // 2),
        "flag with gaps": [None, True, False] * (N // 3),
        "code": [3, 7] * (N // 2),
        "constant": [1.5] * N,
    }


def round_trip(table: Any, **options: Any) -> Any:
    """Encoded and decoded again, by a schema that went through JSON."""
    schema = Schema.infer(table, **options)
    again = Schema.from_json(json.loads(json.dumps(schema.to_json())))
    assert again == schema
    encoded = schema.encode(table, generator())
    assert encoded.inside.all()
    assert encoded.discrete.dtype == torch.int64
    assert encoded.continuous.dtype == encoded.log_jacobian.dtype == torch.float64
    assert encoded.discrete.shape == (len(encoded.inside), len(schema.levels))
    assert encoded.continuous.shape == (len(encoded.inside), schema.features)
    assert all((encoded.discrete[:, i] < levels).all() for i, levels in enumerate(schema.levels))
    return again.decode(encoded.discrete, encoded.continuous)


class TestPandas:
    def test_dtypes_come_back(self) -> None:
        pd = pytest.importorskip("pandas")
        data = mixed()
        columns = {
            "real": pd.array(data["real"], dtype="float32"),
            "index": pd.Series(data["count"], dtype="int8"),
            "unsigned": pd.Series(data["count"], dtype="uint16"),
            "nullable": pd.Series(data["count with gaps"], dtype="Int64"),
            "nullable float": pd.Series(data["gaps"], dtype="Float64"),
            "nullable flag": pd.Series(data["flag with gaps"], dtype="boolean"),
            "flag": pd.Series(data["flag"]),
            "flag with gaps": pd.Series(data["flag with gaps"], dtype=object),
            "text": pd.Series(data["text"]),
            "text with gaps": pd.Series(data["text with gaps"], dtype="str"),
            "string": pd.Series(data["text with gaps"], dtype="string"),
            "object": pd.Series(data["text with gaps"], dtype=object),
            "category": pd.Categorical(data["text with gaps"], categories=["a", "never", "b"]),
            "grade": pd.Categorical(data["text"], categories=["ü", "b", "a"], ordered=True),
            "number": pd.Categorical(data["code"]),
            "constant": data["constant"],
            "date-like": pd.Categorical(["2020-01-01"] * N),
            7: np.arange(N),
        }
        frame = pd.DataFrame(columns).set_index(pd.Index(range(100, 100 + N)))
        found = round_trip(frame)
        assert list(found.columns) == list(frame.columns)
        expected = frame.reset_index(drop=True)
        pd.testing.assert_frame_equal(found, expected, rtol=1e-6, check_categorical=True)

    def test_arrow_dtypes_come_back(self) -> None:
        pd = pytest.importorskip("pandas")
        pytest.importorskip("pyarrow")
        data = mixed()
        names = {"gaps": "double", "count with gaps": "int16", "text with gaps": "string", "flag with gaps": "bool"}
        frame = pd.DataFrame({name: pd.array(data[name], dtype=f"{kind}[pyarrow]") for name, kind in names.items()})
        pd.testing.assert_frame_equal(round_trip(frame), frame, rtol=1e-12)

    def test_order_of_columns_and_index_do_not_matter(self) -> None:
        pd = pytest.importorskip("pandas")
        frame = pd.DataFrame({"a": rng().normal(size=N), "b": ["x", "y"] * (N // 2)})
        schema = Schema.infer(frame)
        there = schema.encode(frame)
        here = schema.encode(frame[["b", "a"]].set_index(pd.Index(range(N, 0, -1))))
        assert all(torch.equal(x, y) for x, y in zip(here, there, strict=True))

    @pytest.mark.parametrize(
        ("build", "message"),
        [
            (lambda pd: pd.DataFrame([[1, 2]] * 3, columns=["a", "a"]), "columns 1 and 2 are both called 'a'"),
            (lambda pd: pd.DataFrame({"a": []}), "expected two or more rows to infer the kinds of columns from, got 0"),
            (
                lambda pd: pd.DataFrame({"a": [1]}),
                "expected two or more rows to infer the kinds of columns from, got 1",
            ),
            (lambda pd: pd.DataFrame(index=[1, 2]), "expected a table with columns, got none"),
            (lambda pd: pd.DataFrame({("a", "b"): [1, 2]}), "column 1: expected a name that is text or a whole number"),
            (
                lambda pd: pd.DataFrame({"a": pd.to_datetime(["2020-01-01"] * 2)}),
                "column 'a': expected numbers, text, booleans or categories, got datetime64",
            ),
            (
                lambda pd: pd.DataFrame({"a": pd.cut(pd.Series([1.0, 2, 3]), 2)}),
                "column 'a': expected categories that are text, numbers or booleans, got Interval(",
            ),
            (
                lambda pd: pd.DataFrame({"a": pd.arrays.SparseArray([1.0, 2.0])}),
                "column 'a': expected numbers, text, booleans or categories, got Sparse",
            ),
            (
                lambda pd: pd.DataFrame({"a": [1j, 2j]}),
                "column 'a': expected numbers, text, booleans or categories, got",
            ),
            (
                lambda pd: pd.DataFrame({"a": [1, "x", 2]}),
                "column 'a': expected entries of one type, got a number in row 1 and text in row 2",
            ),
        ],
    )
    def test_refused(self, build: Callable[[Any], Any], message: str) -> None:
        with pytest.raises(TableError) as caught:
            Schema.infer(build(pytest.importorskip("pandas")))
        assert str(caught.value).startswith(message)

    def test_dates_get_a_hint(self) -> None:
        pd = pytest.importorskip("pandas")
        with pytest.raises(TableError, match=r"give dates and times as numbers, as days since the first$"):
            Schema.infer(pd.DataFrame({"a": pd.to_datetime(["2020-01-01"] * 2)}))


def test_polars_dtypes_come_back() -> None:
    pl = pytest.importorskip("polars")
    data = mixed()
    frame = pl.DataFrame(
        [
            pl.Series("real", data["gaps"], dtype=pl.Float32),
            pl.Series("count", data["count with gaps"], dtype=pl.Int16),
            pl.Series("text", data["text with gaps"]),
            pl.Series("flag", data["flag with gaps"]),
            pl.Series("enum", data["text with gaps"], dtype=pl.Enum(["b", "never", "a"])),
            pl.Series("category", data["text"], dtype=pl.Categorical),
            pl.Series("nothing", [None] * N),
        ]
    )
    found = round_trip(frame)
    assert found.schema == frame.schema
    assert found.drop("real").equals(frame.drop("real"))
    np.testing.assert_allclose(found["real"].to_numpy(), frame["real"].to_numpy(), rtol=1e-5, atol=1e-7)
    with pytest.raises(
        TableError, match="column 'when': expected numbers, text, booleans or categories, got Date; give"
    ):
        Schema.infer(frame.with_columns(when=pl.date(2020, 1, 1)))


def test_arrow_types_come_back() -> None:
    pa = pytest.importorskip("pyarrow")
    data = mixed()
    table = pa.table(
        {
            "real": pa.array(data["gaps"], pa.float64()),
            "half": pa.array(np.array(data["real"], dtype=np.float16)),
            "count": pa.array(data["count with gaps"], pa.int8()),
            "text": pa.array(data["text with gaps"], pa.large_string()),
            "flag": pa.array(data["flag with gaps"]),
            "category": pa.array(data["text with gaps"]).dictionary_encode(),
            "nothing": pa.nulls(N),
        },
        metadata={"pandas": "is not kept"},
    )
    chunked = pa.concat_tables([table.slice(0, 20), table.slice(20)])
    found = round_trip(chunked)
    assert found.schema == table.schema
    assert found.drop(["real", "half"]).equals(table.drop(["real", "half"]))
    np.testing.assert_allclose(found["real"].to_numpy(), table["real"].to_numpy(), rtol=0, atol=1e-12)
    np.testing.assert_array_equal(found["half"].to_numpy(), table["half"].to_numpy())
    with pytest.raises(TableError, match=r"column 'when': .*got date32\[day\]; give dates"):
        Schema.infer(table.append_column("when", pa.array([1] * N, pa.date32())))


def test_anything_that_streams_arrow_is_read() -> None:
    pa = pytest.importorskip("pyarrow")

    class Streams:
        def __init__(self, table: Any) -> None:
            self.table = table

        def __arrow_c_stream__(self, requested_schema: object = None) -> Any:
            return self.table.__arrow_c_stream__(requested_schema)

    table = pa.table({"a": [1.5, 2.5, 4.0]})
    assert round_trip(Streams(table)).equals(table)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.int8, np.float16])
@pytest.mark.parametrize("shape", [(N, 3), (N,)])
def test_arrays_come_back(dtype: type, shape: tuple[int, ...]) -> None:
    x = (10 * rng().normal(size=shape)).astype(dtype)
    found = round_trip(x)
    assert found.dtype == x.dtype
    assert found.shape == x.shape
    np.testing.assert_allclose(found, x, rtol=0, atol=0 if x.dtype.kind == "i" else 20 * np.finfo(dtype).eps)
    tensor = torch.from_numpy(x)
    again = round_trip(tensor)
    assert again.dtype == tensor.dtype
    np.testing.assert_array_equal(again.numpy(), found)


def test_arrays_of_other_dtypes() -> None:
    booleans = rng().random((N, 2)) < 0.3
    np.testing.assert_array_equal(round_trip(booleans), booleans)
    text = np.array([["a", "bb"], ["ü", "c"]] * 9)
    assert round_trip(text).dtype == text.dtype
    np.testing.assert_array_equal(round_trip(text), text)
    objects = np.array([["a", 1, None], ["b", 2, 2.5], ["a", 4, 8.25]] * 4, dtype=object)
    np.testing.assert_array_equal(round_trip(objects), objects)
    gaps = np.where(rng().random((N, 2)) < 0.2, np.nan, rng().normal(size=(N, 2)))
    np.testing.assert_allclose(round_trip(gaps), gaps, rtol=0, atol=1e-12)
    assert Schema.infer(gaps).levels == (2, 2)


def test_dictionaries_come_back() -> None:
    data = mixed()
    data["array"] = rng().normal(size=N).astype(np.float32).round(1)
    data["tensor"] = torch.arange(N, dtype=torch.int32)
    found = round_trip(data)
    assert list(found) == list(data)
    assert found["array"].dtype == np.float32
    assert found["tensor"].dtype == torch.int32
    assert torch.equal(found["tensor"], data["tensor"])
    np.testing.assert_array_equal(found["array"], data["array"])
    for name in ("count", "count with gaps", "text", "text with gaps", "flag", "flag with gaps", "code", "constant"):
        assert found[name] == data[name], name
    assert found["gaps"][0] is None
    np.testing.assert_allclose(found["gaps"][1:], data["gaps"][1:], rtol=0, atol=1e-12)


def test_the_library_s_own_table_comes_back() -> None:
    table = numeric_table(read_file(faithful_path()))
    found = round_trip(table)
    assert found.columns == table.columns
    np.testing.assert_array_equal(found.values, table.values)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            [[1, 2], [3, 4]],
            "expected a DataFrame of pandas or polars, an Arrow table, an array, a tensor, or a dict of",
        ),
        ({}, "expected a table with columns, got none"),
        ({"a": [1, 2], "b": [1]}, "expected columns of equal length, got {'a': 2, 'b': 1}"),
        ({"a": 3}, "column 'a': expected an array, tensor or list of one dimension, got int"),
        ({"a": np.ones((2, 2))}, "column 'a': expected an array, tensor or list of one dimension, got shape (2, 2)"),
        ({1.5: [1, 2]}, "column 1: expected a name that is text or a whole number, got 1.5"),
        (np.ones((2, 2, 2)), "expected an array or tensor of 1 or 2 dimensions, got shape (2, 2, 2)"),
        (np.ones((2, 0)), "expected a table with columns, got none"),
        (np.ones((0, 2)), "expected two or more rows"),
        (np.ma.masked_array([1.0, 2.0], [True, False]), "column 'x1': expected an array without a mask"),
        (np.array(["2020-01-01"] * 2, dtype="datetime64[D]"), "column 'x1': expected numbers, text, booleans or"),
        (np.array([1j, 2j]), "column 'x1': expected numbers, text, booleans or categories, got complex128"),
        (np.array([[1.0, 2.0], [3.0, np.inf]]), "column 'x2', row 2: expected a finite number, got inf"),
        (torch.ones(3, dtype=torch.bfloat16), "the tensor: expected a dtype that NumPy knows, got torch.bfloat16"),
        ({"id": [f"row {i}" for i in range(50)]}, "column 'id': has 50 different entries in 50 rows: leave it out"),
        ({"id": [str(i % 1100) for i in range(4000)]}, "column 'id': has 1100 levels, more than 1000"),
    ],
)
def test_refused(data: Any, message: str) -> None:
    with pytest.raises(TableError) as caught:
        Schema.infer(data)
    assert str(caught.value).startswith(message)


def test_given_kinds() -> None:
    data = mixed()
    kinds: dict[str | int, str | Kind] = {
        "count": "integer(0, 100)",
        "code": "categorical",
        "text": Ordered(["ü", "a", "b"]),
        "real": Real(step=0.5),
    }
    schema = Schema.infer(data, kinds)
    assert [str(schema.kinds[name]) for name in kinds] == [
        "integer, 0 to 100",
        "categorical: 3, 7",
        "ordered: ü < a < b",
        "real, in steps of 0.5",
    ]
    assert isinstance(schema.kinds["count"], Integer)
    with pytest.raises(ValueError, match="kinds: there is no column 'x'; the columns are 'a'"):
        Schema.infer({"a": [1.0, 2.0]}, kinds={"x": "real"})
    with pytest.raises(ValueError, match=r"expected a kind among real, .*, got 'reel'"):
        Schema.infer({"a": [1.0, 2.0]}, kinds={"a": "reel"})
    with pytest.raises(TableError, match=r"column 'a', row 2: expected a number between 0 and 1, got 2\.0"):
        Schema.infer({"a": [0.5, 2.0]}, kinds={"a": Bounded(0, 1)})


def test_scoring_other_tables() -> None:
    schema = Schema.infer({"a": [0.5, 2.0, 1.0, 7.25], "b": ["x", "y", "x", "y"]}, kinds={"a": "positive"})
    encoded = schema.encode({"b": ["x", "z", "y"], "a": np.array([1.5, 2.5, -1.0], dtype=np.float32)})
    assert encoded.inside.tolist() == [True, False, False]
    assert encoded.log_jacobian.tolist()[1:] == [-math.inf, -math.inf]
    assert encoded.continuous.isfinite().all()
    for table, message in [
        ({"a": [1.0]}, "table: its columns are not the model's: missing 'b'"),
        ({"a": [1.0], "b": ["x"], "c": [1]}, "table: its columns are not the model's: unexpected 'c'"),
        (
            np.ones((2, 2)),
            "table: its columns are not the model's: missing 'a', 'b'; unexpected 'x1', 'x2'; a table without a header "
            "has columns x1, x2, ...",
        ),
        ({"a": [1.0], "b": [1.0]}, "column 'b': expected text, as x, y, got numbers"),
        ({"a": ["1.0"], "b": ["x"]}, "column 'a': expected numbers, for the kind positive, got text or categories"),
        ({"a": [1.0, math.nan], "b": ["x", "x"]}, "column 'a', row 2: is missing, but no entry was where"),
    ]:
        with pytest.raises(TableError) as caught:
            schema.encode(table)
        assert str(caught.value).startswith(message)


def test_no_rows_are_encoded_and_decoded() -> None:
    schema = Schema.infer(mixed())
    nothing = {name: [] for name in mixed()}
    encoded = schema.encode(nothing)
    assert encoded.discrete.shape == (0, len(schema.levels))
    assert encoded.continuous.shape == (0, schema.features)
    assert schema.decode(encoded.discrete, encoded.continuous) == nothing


def test_coordinates() -> None:
    schema = Schema.infer(mixed())
    assert schema.discrete_names == (
        *("gaps", "count with gaps", "text", "text with gaps"),
        *("flag", "flag with gaps", "code"),
    )
    assert schema.continuous_names == ("real", "gaps", "count", "count with gaps")
    assert schema.levels == (2, 2, 3, 3, 2, 3, 2)
    assert schema.features == 4
    assert not schema.exact
    assert Schema.infer(rng().normal(size=(N, 2))).exact


def test_without_continuous_or_without_discrete_coordinates() -> None:
    discrete = Schema.infer({"a": ["x", "y"] * 9})
    assert discrete.encode({"a": ["x"]}).continuous.shape == (1, 0)
    continuous = Schema.infer({"a": rng().normal(size=9)})
    assert continuous.encode({"a": [1.5]}).discrete.shape == (1, 0)
    neither = Schema.infer({"a": [1.5, 1.5]})
    encoded = neither.encode({"a": [1.5, 2.5]})
    assert encoded.log_jacobian.tolist() == [0, -math.inf]
    assert neither.decode(encoded.discrete, encoded.continuous) == {"a": [1.5, 1.5]}


@pytest.mark.parametrize(
    ("discrete", "continuous", "message"),
    [
        ([[0]], [[0.0, 0.0]], r"decode: expected shapes \(n, 1\) and \(n, 1\), got \(1, 1\) and \(1, 2\)"),
        ([[0]], [[0.0], [0.0]], r"decode: expected shapes \(n, 1\) and \(n, 1\), got \(1, 1\) and \(2, 1\)"),
        ([[0], [2]], [[0.0], [0.0]], r"decode: expected states below \[2\], got \[2\] in row 2"),
        ([[0], [-1]], [[0.0], [0.0]], r"decode: expected states below \[2\], got \[-1\] in row 2"),
        ([[0], [1]], [[0.0], [math.nan]], r"decode: expected finite coordinates, got \[nan\] in row 2"),
    ],
)
def test_coordinates_refused(discrete: list[Any], continuous: list[Any], message: str) -> None:
    schema = Schema.infer({"a": rng().normal(size=9).tolist(), "b": [True, False, True] * 3})
    with pytest.raises(ValueError, match=message):
        schema.decode(torch.tensor(discrete), torch.tensor(continuous))


def test_densities_are_per_unit_of_the_table() -> None:
    """log p(x) of a table whose law is known: a tenth missing, the others log-normal."""
    mu, sigma = 1.5, 0.7
    x = np.exp(mu + sigma * rng().normal(size=20_000))
    x[rng().random(len(x)) < 0.1] = np.nan
    schema = Schema.infer({"x": x}, kinds={"x": "positive"})
    c, u, log_jacobian, _ = schema.encode({"x": x}, generator())
    log_state = torch.where(c[:, 0] == 0, math.log(0.9), math.log(0.1))
    found = (log_state + torch.distributions.Normal(0.0, 1.0).log_prob(u).sum(-1) + log_jacobian).numpy()
    expected = math.log(0.9) - 0.5 * ((np.log(x) - mu) / sigma) ** 2 - np.log(x * sigma * math.sqrt(2 * math.pi))
    expected[np.isnan(x)] = math.log(0.1)
    assert found.mean() == pytest.approx(expected.mean(), abs=2e-3)  # 2 parameters of 18,000 rows
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.3)


def test_draws_of_noise() -> None:
    """The same with one generator, others with another, and none where all is exact."""
    schema = Schema.infer(mixed())
    first, again = schema.encode(mixed(), generator()), schema.encode(mixed(), generator())
    other = schema.encode(mixed(), torch.Generator().manual_seed(1))
    assert torch.equal(first.continuous, again.continuous)
    assert torch.equal(schema.encoder(mixed())(generator()).continuous, first.continuous)
    differs = (first.continuous != other.continuous).any(0).tolist()
    assert dict(zip(schema.continuous_names, differs, strict=True)) == {
        "real": False,
        "gaps": True,
        "count": True,
        "count with gaps": True,
    }


def test_shown() -> None:
    table = {"x": rng().normal(size=4000), "n": rng().poisson(20, 4000), "t": [None, *["a", "b"] * 1999, "a"]}
    assert str(Schema.infer(table)).splitlines() == [
        "3 columns, 4000 rows: 1 discrete and 2 continuous coordinates; log-likelihoods are lower bounds (n)",
        "column  kind                missing",
        "x       real                      -",
        "n       integer, 0 or more        -",
        "t       categorical: a, b   < 0.1 %",
    ]


@pytest.mark.parametrize("description", [{}, {"columns": [{}]}, {"columns": [], "rows": 3}, {"columns": 3}])
def test_damaged_descriptions(description: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not the description of a schema"):
        Schema.from_json(description)


def test_arrays_and_tensors_need_no_other_library() -> None:
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pandas", "polars", "pyarrow"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
import numpy as np, torch
from pushforward.tabular import Schema
x = np.random.default_rng(0).normal(size=(50, 2))
for table in (x, torch.from_numpy(x), {"a": x[:, 0], "b": ["u", "v"] * 25}):
    schema = Schema.infer(table)
    encoded = schema.encode(table)
    schema.decode(encoded.discrete, encoded.continuous)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_arrow_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    class Streams:
        def __arrow_c_stream__(self) -> None: ...

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ModuleNotFoundError, match=r"Arrow tables need pyarrow: pip install 'pushforward\[tables\]'"):
        read_columns(Streams())


def large(rows: int) -> dict[str, Any]:
    x = rng().normal(size=(rows, 4))
    return {
        **{f"x{i}": x[:, i] for i in range(4)},
        "price": rng().lognormal(3, 1, rows).round(2),
        "count": rng().poisson(20, rows),
        "gaps": np.where(rng().random(rows) < 0.1, np.nan, x[:, 0]),
        "year": rng().integers(1900, 2020, rows),
        "text": rng().choice(["a", "b", "c"], rows).tolist(),
        "flag": x[:, 1] > 0,
    }


@pytest.mark.slow
def test_large_tables_are_encoded_in_about_a_second() -> None:
    table = large(300_000)
    schema = Schema.infer(table)
    start = time.perf_counter()
    encoded = schema.encode(table)
    assert time.perf_counter() - start < 2  # 0.4 s on an idle core
    assert encoded.inside.all()
