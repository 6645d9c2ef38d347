"""Kinds of columns: what is inferred, and that coordinates and densities are right, against quadrature and autodiff."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from pushforward.tabular import (
    Angle,
    Bounded,
    Categorical,
    Constant,
    Integer,
    Kind,
    Ordered,
    Positive,
    Real,
    TableError,
)
from pushforward.tabular.columns import Column, infer_kind, kind_from_json, parse_kind
from pushforward.tabular.columns.infer import KINDS
from pushforward.tabular.columns.maps import from_line, to_line
from pushforward.tabular.columns.repeats import find_atoms, find_grid

NORMAL = torch.distributions.Normal(torch.tensor(0.0, dtype=torch.float64), 1.0)
ROWS = 400


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def column(values: Any) -> Column:
    """A column of an array, or of a list of objects."""
    return Column.of_numbers("a", values) if isinstance(values, np.ndarray) else Column.of_objects("a", values)


def with_missing(values: np.ndarray) -> np.ndarray:
    return np.where(rng().random(len(values)) < 0.2, np.nan, values)


def with_zeros(values: np.ndarray, share: float) -> np.ndarray:
    return values * (np.random.default_rng(1).random(len(values)) > share)


@dataclass(frozen=True)
class Case:
    """A kind and entries of it. `precision`: how exactly numbers survive the way to coordinates and back."""

    kind: Kind
    values: Callable[[], Any]
    precision: float = 0.0


TEXT = ["b", "a", None, "c", "a"] * 20
CASES = {
    "real": Case(Real(), lambda: rng().normal(3e3, 2, ROWS), 1e-12),
    "real, heavy tails": Case(Real(), lambda: rng().standard_t(1, ROWS), 1e-12),
    "real, huge": Case(Real(), lambda: 1e307 * rng().normal(size=ROWS), 1e-12),
    "real, missing": Case(Real(), lambda: with_missing(rng().normal(size=ROWS)), 1e-12),
    "real, atoms": Case(Real(), lambda: np.where(rng().random(ROWS) < 0.3, -999.0, rng().normal(size=ROWS)), 1e-12),
    "real, rounded": Case(Real(), lambda: rng().normal(3, 2, ROWS).round(1)),
    "real, rounded and scaled": Case(Real(), lambda: rng().normal(3, 2, ROWS).round(1) / math.pi - 7.1, 1e-12),
    "real, rounded finely": Case(Real(), lambda: np.tile(rng().normal(3, 2, ROWS // 2).round(4), 2)),
    "real, step": Case(Real(step=0.25), lambda: np.round(4 * rng().normal(3, 2, ROWS)) / 4),
    "real, float32": Case(Real(), lambda: rng().normal(3, 2, ROWS).astype(np.float32), 1e-7),
    "real, rounded float32": Case(Real(), lambda: rng().normal(3, 2, ROWS).astype(np.float32).round(1)),
    "real, integers": Case(Real(), lambda: rng().poisson(30, ROWS)),
    "positive": Case(Positive(), lambda: rng().lognormal(0, 2, ROWS), 1e-12),
    "positive, zeros, missing": Case(Positive(), lambda: with_missing(with_zeros(rng().gamma(2, 1, ROWS), 0.1)), 1e-12),
    "positive, rounded": Case(Positive(), lambda: rng().lognormal(1, 1, ROWS).round(1)),
    "positive, float32": Case(Positive(), lambda: rng().lognormal(0, 2, ROWS).astype(np.float32), 1e-6),
    "bounded": Case(Bounded(-2.0, 3.0), lambda: -2 + 5 * rng().beta(0.5, 2, ROWS), 1e-12),
    "bounded, at the bounds": Case(Bounded(0, 1), lambda: rng().normal(0.5, 0.5, ROWS).clip(0, 1), 1e-12),
    "bounded, rounded": Case(Bounded(0, 1), lambda: (0.03 + 0.1 * rng().integers(0, 10, ROWS)).round(2)),
    "bounded, float32": Case(Bounded(0.1, 0.7), lambda: rng().uniform(0.11, 0.69, ROWS).astype(np.float32), 1e-6),
    "bounded below": Case(Bounded(5, None), lambda: 5 + rng().exponential(1, ROWS), 1e-12),
    "bounded above": Case(Bounded(None, 5), lambda: 5 - rng().exponential(1, ROWS), 1e-12),
    "integer": Case(Integer(), lambda: rng().normal(0, 30, ROWS).round().astype(np.int64)),
    "integer, counts": Case(Integer(), lambda: rng().geometric(0.1, ROWS) - 1),
    "integer, symmetric counts": Case(Integer(), lambda: rng().poisson(30, ROWS).astype(np.uint8)),
    "integer, between": Case(Integer(0, 10), lambda: rng().integers(0, 11, ROWS).astype(np.int8)),
    "integer, at most": Case(Integer(high=7), lambda: 7 - rng().poisson(2, ROWS)),
    "integer, steps": Case(Integer(), lambda: 1000 * rng().poisson(30, ROWS)),
    "integer, floats, missing": Case(Integer(), lambda: with_missing(rng().poisson(3, ROWS).astype(float))),
    "integer, inflated": Case(Integer(), lambda: with_zeros(rng().poisson(300, ROWS), 0.9).astype(np.int64)),
    "integer, large": Case(Integer(), lambda: rng().integers(0, 10**6, ROWS)),
    "angle": Case(Angle(), lambda: rng().vonmises(3, 1, ROWS), 1e-12),
    "angle, 0 to 360": Case(Angle(360.0), lambda: rng().uniform(0, 360, ROWS), 1e-12),
    "angle, whole degrees": Case(Angle(360.0), lambda: rng().normal(0, 60, ROWS).astype(np.int32) % 360),
    "angle, calm, missing": Case(Angle(4.0), lambda: with_missing(with_zeros(rng().uniform(0, 4, ROWS), 0.3)), 1e-12),
    "ordered numbers": Case(Ordered(), lambda: with_missing(rng().choice([0.1, 0.5, 2.5], ROWS).astype(np.float32))),
    "ordered text": Case(Ordered(["c", "a", "b"]), lambda: TEXT),
    "categorical text": Case(Categorical(), lambda: TEXT),
    "categorical integers": Case(Categorical(), lambda: rng().choice([12345678901234567, 12345678901234568, -3], ROWS)),
    "categorical booleans": Case(Categorical(), lambda: [True, False, None, True]),
    "constant": Case(Constant(), lambda: np.full(5, 1.5, dtype=np.float16)),
    "constant text, missing": Case(Constant(), lambda: ["a", None, "a"]),
    "always missing": Case(Constant(), lambda: np.full(5, np.nan)),
}  # fmt: skip
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def fitted(case: Case) -> tuple[Kind, Column]:
    entries = column(case.values())
    return case.kind.fit(entries), entries


def assert_same(found: Column, expected: Column, precision: float) -> None:
    assert found.name == expected.name
    assert found.values.dtype == expected.values.dtype
    np.testing.assert_array_equal(found.missing, expected.missing)
    there = ~expected.missing
    if expected.levels is None:
        scale = np.abs(expected.values[there]).max(initial=0) if precision else 0.0
        np.testing.assert_allclose(found.values[there], expected.values[there], rtol=0, atol=precision * scale)
    else:
        assert found.levels is not None
        assert [found.levels[i] for i in found.values[there]] == [expected.levels[i] for i in expected.values[there]]


def test_every_kind_has_a_case() -> None:
    assert {type(case.kind) for case in CASES.values()} == set(KINDS.values())


@each_case
def test_entries_come_back(case: Case) -> None:
    kind, entries = fitted(case)
    state, u, log_jacobian = kind.encode(entries, torch.Generator().manual_seed(0))
    assert log_jacobian.isfinite().all()
    assert int(state.min()) >= 0
    assert int(state.max()) < max(kind.states, 1)
    assert_same(kind.decode("a", state, u), entries, case.precision)


@each_case
def test_json(case: Case) -> None:
    kind, entries = fitted(case)
    again = kind_from_json(json.loads(json.dumps(kind.to_json())))
    assert again == kind
    assert str(again) == str(kind)
    for found, expected in zip(
        again.encode(entries, torch.Generator().manual_seed(0)),
        kind.encode(entries, torch.Generator().manual_seed(0)),
        strict=True,
    ):
        assert (found is expected is None) or torch.equal(found, expected)


@each_case
def test_whatever_is_decoded_is_in_the_support(case: Case) -> None:
    kind, entries = fitted(case)
    generator = torch.Generator().manual_seed(0)
    far = torch.tensor([0.0, -5.0, 5.0, -45.0, 45.0, -1e3, 1e3, -1e308, 1e308], dtype=torch.float64)
    u = torch.cat([far, 2 * torch.randn(500, generator=generator, dtype=torch.float64)])
    state = torch.randint(max(kind.states, 1), u.shape, generator=generator)
    decoded = kind.decode("a", state, u)
    assert decoded.values.dtype == entries.values.dtype
    encoded = kind.encode(decoded)
    assert (encoded.log_jacobian > -math.inf).all()
    hits = encoded.state > 0 if getattr(kind, "step", 0) else torch.tensor(False)  # an atom is a number of the grid too
    assert ((encoded.state == state) | (hits & (state == 0))).all()
    if encoded.u is not None:
        assert encoded.u.isfinite().all()


@each_case
def test_standardised(case: Case) -> None:
    kind, entries = fitted(case)
    state, u, _ = kind.encode(entries, torch.Generator().manual_seed(0))
    if u is not None and len(u) == ROWS:
        quartiles = u[state == 0].quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
        assert -1.5 < float(quartiles[0]) < float(quartiles[2]) < 1.5
        assert abs(float(quartiles[1])) < 0.6


@pytest.mark.parametrize(
    ("low", "high"), [(-math.inf, math.inf), (2.0, math.inf), (-math.inf, 2.0), (-1.0, 2.0)], ids=str
)
@pytest.mark.parametrize(("edge", "linear"), [(0.0, False), (0.5, False), (0.5, True)])
def test_maps(low: float, high: float, edge: float, linear: bool) -> None:
    """Both ways, increasing, the slope that of autodiff, all of the line reached."""
    options = {"low": low, "high": high, "edge": edge, "linear": linear}
    t = torch.linspace(-5, 5, 101, dtype=torch.float64)
    y = from_line(t, **options)
    assert (y.diff() > 0).all()
    assert ((y > low) & (y < high)).all()
    again, log_slope = to_line(y, **options)
    torch.testing.assert_close(again, t, rtol=0, atol=1e-9)
    (slope,) = torch.autograd.grad(to_line(y.requires_grad_(), **options)[0].sum(), y)
    torch.testing.assert_close(log_slope.detach(), slope.log(), rtol=0, atol=1e-9)
    outside = torch.tensor([low, high, low - 1, high + 1], dtype=torch.float64).nan_to_num(0.0, 0.0, 0.0)
    assert all(part.isfinite().all() for part in to_line(outside, **options))


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("real", 2990, 3010),
        ("positive", 1e-9, 1e5),
        ("bounded", -2, 3),
        ("bounded below", 5, 1e3),
        ("bounded above", -1e3, 5),
        ("angle", -math.pi, math.pi),
        ("angle, 0 to 360", 0, 360),
    ],
)
def test_densities_integrate_to_one(name: str, low: float, high: float) -> None:
    """Of the model u ~ N(0, 1), over x, by the trapezoidal rule on a grid that is dense at the bounds."""
    kind, _ = fitted(CASES[name])
    way = 0.5 - 0.5 * np.cos(np.linspace(0, math.pi, 400_001))
    x = np.exp(math.log(low) + way * math.log(high / low)) if name == "positive" else low + (high - low) * way
    _, u, log_jacobian = kind.encode(column(x[1:-1]))
    density = (NORMAL.log_prob(u) + log_jacobian).exp()
    assert torch.trapezoid(density, torch.from_numpy(x[1:-1])).item() == pytest.approx(1, abs=2e-4)


def normal_mass(kind: Any, lower: np.ndarray, upper: np.ndarray) -> torch.Tensor:
    """The mass of cells under u ~ N(0, 1), from the places of their ends on the line."""
    low, high = kind._bounds()
    ends = []
    for end, bound, far in ((lower, low, -math.inf), (upper, high, math.inf)):
        t = kind._to_line(torch.from_numpy(end.astype(float)))[0]
        ends.append(torch.where(torch.from_numpy(end == bound), far, (t - kind.loc) / kind.scale))
    return torch.special.ndtr(ends[1]) - torch.special.ndtr(ends[0])


@pytest.mark.parametrize(
    "name",
    [
        "integer",
        "integer, counts",
        "integer, symmetric counts",
        "integer, between",
        "integer, at most",
        "integer, steps",
    ],
)
def test_probabilities_of_whole_numbers(name: str) -> None:
    """They sum to one, and the mean density over draws is the probability of the cell."""
    kind, entries = fitted(CASES[name])
    assert isinstance(kind, Integer)
    assert kind.step
    least, most = (entries.values.astype(float).min(), entries.values.astype(float).max())
    reach = 60 * (most - least)
    x = np.arange(
        least - reach if kind.low is None else kind.low,
        (most + reach if kind.high is None else kind.high) + 1,
        kind.step,
    )
    masses = normal_mass(kind, x, x + kind.step)
    assert masses.sum().item() == pytest.approx(1, abs=1e-6)
    for k in np.flatnonzero(masses.numpy() > 0.02)[:3]:
        _, u, log_jacobian = kind.encode(column(np.full(20_000, x[k])), torch.Generator().manual_seed(int(k)))
        density = (NORMAL.log_prob(u) + log_jacobian).exp()
        error = density.std().item() / math.sqrt(len(density))
        assert kind.step * density.mean().item() == pytest.approx(masses[k].item(), abs=4.5 * kind.step * error + 1e-9)
        assert density.log().mean() <= density.mean().log()


def test_a_rounded_number_has_the_mean_density_of_its_cell() -> None:
    """Also where the cell is cut by a bound; and the densities of all cells integrate to one."""
    kind, _ = fitted(CASES["bounded, rounded"])
    assert isinstance(kind, Bounded)
    assert kind.step == pytest.approx(0.1)
    ends = np.array([0, *np.arange(0.08, 1, 0.1), 1])
    x = 0.5 * (ends[:-1] + ends[1:])
    masses = normal_mass(kind, ends[:-1], ends[1:])
    encoded = [kind.encode(column(x), torch.Generator().manual_seed(seed)) for seed in range(1000)]
    density = torch.stack([(NORMAL.log_prob(u) + lj).exp() for _, u, lj in encoded])
    found = density.mean(0) * torch.from_numpy(np.diff(ends))
    error = density.std(0) * torch.from_numpy(np.diff(ends)) / math.sqrt(len(density))
    assert ((found - masses).abs() < 4.5 * error + 1e-6).all()
    assert masses.sum().item() == pytest.approx(1, abs=1e-9)


def test_fine_cells_need_no_noise() -> None:
    """The density in the middle is the mean over the cell, to second order."""
    kind, entries = fitted(CASES["real, rounded finely"])
    assert isinstance(kind, Real)
    assert kind.exact
    assert kind.step == pytest.approx(1e-4)
    _, u, log_jacobian = kind.encode(entries)
    density = (NORMAL.log_prob(u) + log_jacobian).exp()
    masses = normal_mass(kind, entries.values - 5e-5, entries.values + 5e-5)
    torch.testing.assert_close(1e-4 * density, masses, rtol=1e-7, atol=0)
    assert not fitted(CASES["real, rounded"])[0].exact


@pytest.mark.parametrize("name", ["real, missing", "real, atoms", "positive, zeros, missing", "integer, inflated"])
def test_noise_costs_nothing_where_it_is_modelled_as_noise(name: str) -> None:
    """Of the model u ~ N(0, 1): log p(u) and what is added cancel wherever there is no number."""
    kind, entries = fitted(CASES[name])
    state, u, log_jacobian = kind.encode(entries, torch.Generator().manual_seed(0))
    absent = state > 0
    assert absent.any()
    total = NORMAL.log_prob(u) + log_jacobian
    torch.testing.assert_close(total[absent], torch.zeros_like(total[absent]), rtol=0, atol=1e-12)
    assert u[absent].std() == pytest.approx(1, abs=0.25)


def test_states_of_numbers() -> None:
    values = np.array([0.0, 1.5, np.nan, 2.5, 0.0, 7.25, 0.0, 3.75] + 50 * [0.0])
    kind = Real().fit(column(values))
    assert isinstance(kind, Real)
    assert kind.atoms == (0.0,)
    assert kind.states == 3
    assert kind.encode(column(values)).state[:4].tolist() == [1, 0, 2, 0]
    assert str(kind) == "real, with mass at 0"


@pytest.mark.parametrize(
    ("kind", "values", "outside"),
    [
        (Positive(), [1.0, 2.0, 4.0], [-1.0, 0.0]),
        (Bounded(0, 1), [0.2, 0.4, 0.9], [-0.1, 0.0, 1.0, 1.5]),
        (Bounded(0, 1), [0.0, 0.4, 0.9], [1.0]),
        (Integer(0, 10), [1, 4, 9], [-1.0, 11.0, 3.5]),
        (Integer(), [1, 4, 9], [-1.0, 3.5, 2.0**60]),
        (Ordered(), [1, 2, 3], [4.0, 1.5]),
        (Categorical(), ["a", "b", "a"], ["c"]),
        (Categorical(), [True, True, False], [2.0]),
        (Constant(), [1.5, 1.5], [1.4999]),
        (Constant(), [None, None], [1.0, 0.0]),
    ],
)
def test_outside_the_support(kind: Kind, values: list[Any], outside: list[Any]) -> None:
    kind = kind.fit(column(values))
    encoded = kind.encode(column(outside))
    assert (encoded.log_jacobian == -math.inf).all()
    assert encoded.u is None or encoded.u.isfinite().all()
    assert kind.encode(column(values)).log_jacobian.isfinite().all()


class TestAngles:
    def test_are_periodic(self) -> None:
        kind, entries = fitted(CASES["angle"])
        x = entries.values
        for shift in (-2 * math.pi, 2 * math.pi, 20 * math.pi):
            here, there = kind.encode(column(x)), kind.encode(column(x + shift))
            torch.testing.assert_close(here.u, there.u, rtol=0, atol=1e-9)
            torch.testing.assert_close(here.log_jacobian, there.log_jacobian, rtol=0, atol=1e-9)

    def test_are_cut_where_there_are_fewest(self) -> None:
        kind = Angle().fit(column(np.remainder(rng().vonmises(1.0, 4, 2000), 2 * math.pi)))
        assert isinstance(kind, Angle)
        assert kind.low == 0
        assert math.remainder(kind.cut - (1.0 + math.pi), 2 * math.pi) == pytest.approx(0, abs=0.5)

    def test_uniform_ones_are_normal(self) -> None:
        kind = Angle(360.0).fit(column(rng().uniform(-180, 180, 20_000)))
        assert isinstance(kind, Angle)
        assert kind.low == -180
        assert kind.scale == pytest.approx(1, abs=0.02)

    def test_beyond_a_period(self) -> None:
        with pytest.raises(
            TableError, match=r"column 'a': expected angles within one period of 6\.28319, got 0 to 359"
        ):
            Angle().fit(column(np.arange(360.0)))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.full(20, 3), "constant: 3"),
        (["a"] * 20, "constant: a"),
        ([None] * 20, "always missing"),
        ([True, False], "categorical: False, True"),
        (["a", "b"] * 9, "categorical: a, b"),
        (rng().normal(size=500), "real"),
        (rng().normal(100, 1, size=500), "real"),
        (rng().lognormal(size=500), "positive"),
        (rng().exponential(size=500), "positive"),
        (-rng().lognormal(size=500), "real"),
        (rng().uniform(size=500), "real"),
        (rng().lognormal(size=500) * (rng().random(500) < 0.5), "positive, with mass at 0"),
        (np.where(rng().random(500) < 0.5, rng().lognormal(size=500), -99.0), "real, with mass at -99"),
        (rng().normal(size=500).round(1), "real, in steps of 0.1"),
        (rng().lognormal(5, 1, size=500).round(1), "positive, in steps of 0.1"),
        (rng().poisson(30, 500), "integer, 0 or more"),
        (rng().poisson(1, 500), "integer, 0 or more"),
        (rng().poisson(30, 500) - 30, "integer"),
        (rng().poisson(30, 500).astype(np.float32), "integer, 0 or more"),
        (5 * rng().poisson(30, 500), "integer, 0 or more, in steps of 5"),
        (1e20 * rng().lognormal(size=500), "positive"),
        (rng().integers(0, 2, 500), "ordered: 0 < 1"),
        (np.array([0] * 48 + [1] * 2), "ordered: 0 < 1"),
        (rng().integers(0, 24, 2000), "ordered: 0 < 1 < 2 < 3 < 4 < 5 < ... (24 in all)"),
        (rng().choice([0.25, 0.5, 0.75], 500), "ordered: 0.25 < 0.5 < 0.75"),
        (np.array([1.5, 2.5]), "real"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_inferred(values: Any, kind: str) -> None:
    entries = column(values)
    assert str(infer_kind(entries).fit(entries)) == kind


@pytest.mark.parametrize(
    "values",
    [
        np.array([1.5, 2.5]),
        np.array([1, 1, 1, 2]),
        np.array([5e-324, 1.0, 1e-323]),
        np.array([1e308, -1e308]),
        np.tile([1e308, -1e308, 0.5], 5),
        np.tile([1e300, -1e300, 0.5, 3.0], 5),
        np.tile(np.r_[1e-300, 1e90, rng().normal(size=20)], 3),
        rng().normal(1e15, 1, 50),
        rng().normal(size=300).astype(np.float16),
        rng().integers(-(2**53) + 1, 2**53, 50),
        np.array([2**53 - 1, 1 - 2**53, 0]),
        np.array([np.nan, 1.0, np.nan, 2.0, np.nan]),
        np.array([np.nan, np.nan, 2.0]),
        np.r_[np.zeros(500), 3.5],
        np.r_[np.zeros(500), 3.5, 4.5, np.nan],
        np.repeat(rng().normal(size=7), 2),
    ],
    ids=lambda v: str(v[:3]),
)
def test_odd_columns(values: np.ndarray) -> None:
    """Whatever is inferred, the entries are in its support, and come back to a part in a million of their range."""
    entries = column(values)
    kind = infer_kind(entries).fit(entries)
    state, u, log_jacobian = kind.encode(entries, torch.Generator().manual_seed(0))
    assert log_jacobian.isfinite().all()
    assert u is None or u.isfinite().all()
    assert_same(kind.decode("a", state, u), entries, 1e-6)


def test_values_that_repeat_on_no_grid_are_known_to_a_cell() -> None:
    x = rng().normal(size=40)[rng().integers(0, 40, 400)]
    kind = Real().fit(column(x))
    assert kind.step
    assert not kind.exact
    state, u, _ = kind.encode(column(x))
    assert np.abs(kind.decode("a", state, u).values - x).max() <= 0.5 * kind.step * (1 + 1e-9)


def grid_of(x: np.ndarray, eps: float = 2e-16) -> Any:
    return find_grid(*np.unique(x, return_counts=True), eps)


def test_grids() -> None:
    x = rng().normal(3, 2, 2000)
    assert grid_of(x) is None
    assert grid_of(x.round(2))[::2] == (0.01, 2)
    assert grid_of((20 * x).round() / 20)[::2] == (0.05, 2)
    assert grid_of(x.astype(np.float32).round(2).astype(float), 1.2e-7)[::2] == (0.01, 2)
    scaled = grid_of(np.round(x.round(2) / 0.83 - 3.7652341, 6))
    assert scaled.step == pytest.approx(0.01 / 0.83, rel=1e-5)
    assert scaled.decimals is None
    logarithms = grid_of(np.log1p(rng().poisson(40, 2000)))  # repeated, but on no grid
    assert 0.01 < logarithms.step < 0.1


def test_atoms() -> None:
    def atoms(x: np.ndarray) -> list[float]:
        values, counts = np.unique(x, return_counts=True)
        return values[find_atoms(values, counts)].tolist()

    x = rng().normal(size=1000)
    assert atoms(x) == []
    assert atoms(np.where(rng().random(1000) < 0.005, 0.0, x)) == []
    assert atoms(np.where(rng().random(1000) < 0.05, 0.0, x)) == [0.0]
    assert atoms(np.where(rng().random(1000) < 0.5, np.where(x < 0, -9.0, 99.0), x)) == [-9.0, 99.0]
    assert atoms(rng().poisson(1, 1000).astype(float)) == []
    assert atoms(rng().geometric(0.5, 1000).astype(float)) == []
    assert atoms(rng().poisson(40, 1000) * (x > 0)) == [0.0]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("real", Real()),
        (" positive ", Positive()),
        ("bounded(0, 1)", Bounded(0.0, 1.0)),
        ("bounded( -1.5 ,inf)", Bounded(-1.5, None)),
        ("integer", Integer()),
        ("integer(0, 10)", Integer(0, 10)),
        ("integer(1)", Integer(1)),
        ("angle", Angle()),
        ("angle(360)", Angle(360.0)),
        ("ordered", Ordered()),
        ("categorical()", Categorical()),
        ("constant", Constant()),
    ],
)
def test_parsed(text: str, kind: Kind) -> None:
    assert parse_kind(text) == kind


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("reall", "expected a kind among real, positive, bounded, integer, angle, ordered, categorical, constant, got"),
        ("", "expected a kind among"),
        ("bounded", r"expected bounded\(low, high\) with numbers, got 'bounded'"),
        ("bounded(0)", r"expected bounded\(low, high\)"),
        ("bounded(1, 0)", r"expected bounded\(low, high\)"),
        ("bounded(inf, inf)", r"expected bounded\(low, high\)"),
        ("bounded(a, b)", r"expected bounded\(low, high\)"),
        ("real(1)", "expected real with numbers"),
        ("integer(0.5)", r"expected integer\(low, high\)"),
        ("angle(-1)", r"expected angle\(period\)"),
        ("ordered(a, b)", "expected ordered with numbers"),
    ],
)
def test_not_parsed(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_kind(text)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Categorical(["a", "a"]), "categorical: expected each level once"),
        (lambda: Ordered(["a", 1]), "ordered: expected levels that are all text or all not"),
        (lambda: Real(step=-1), "real: expected a step of 0 or more, got -1"),
        (lambda: Integer(0.5), "integer: expected whole bounds, got low=0.5"),
        (lambda: Integer(3, 3), "integer: expected low < high, got 3 and 3"),
        (lambda: Bounded(None, None), "bounded: expected low < high"),
    ],
)
def test_kinds_that_cannot_be(build: Callable[[], Kind], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (Real(), ["a", "b"], "column 'a': expected numbers, for the kind real, got text or categories"),
        (Real(), [True, False], "column 'a': expected numbers, for the kind real, got booleans"),
        (Real(), [1.0, math.inf], "column 'a', row 2: expected a finite number, got inf"),
        (Real(), [1.0, 1.0], "column 'a': holds 1 in every row: call it 'constant'"),
        (Integer(), [1.0, -math.inf], "column 'a', row 2: expected a finite number, got -inf"),
        (Integer(), [1, 2**53], "column 'a', row 2: expected a whole number below 2^53, got 9007199254740992"),
        (Integer(), [1.0, 2.5], "column 'a', row 2: expected a whole number, 0 or more, got 2.5"),
        (Integer(0, 10), [1, None, 11], "column 'a', row 3: expected a whole number, 0 to 10, got 11"),
        (Positive(), [1.0, None, -2.0], "column 'a', row 3: expected a number above 0, got -2.0"),
        (Bounded(0, 1), [0.5, 1.5], "column 'a', row 2: expected a number between 0 and 1, got 1.5"),
        (Bounded(None, 1), [0.5, 1.5], "column 'a', row 2: expected a number below 1, got 1.5"),
        (Constant(), [1, 2], "column 'a': expected one constant entry, got 1 and 2"),
        (Ordered(), ["S", "M"], "column 'a': expected the order of its levels, as Ordered(['M', 'S'])"),
        (Ordered(["S", "M"]), ["S", "L"], "column 'a', row 2: expected one of S, M, got 'L'"),
        (Ordered([1, 2]), [1, 3], "column 'a', row 2: expected one of 1, 2, got 3"),
        (Ordered([1, 2]), ["S", "L"], "column 'a': expected numbers, as 1, 2, got text"),
        (Ordered(["S", "L"]), [1, 2], "column 'a': expected text, as S, L, got numbers"),
        (Ordered(), [1.0, math.inf], "column 'a', row 2: expected a finite number, got inf"),
        (Categorical(), [*map(str, range(1001))] * 2, "column 'a': has 1001 levels, more than 1000: leave it out, or"),
    ],
)
def test_refused(kind: Kind, values: list[Any], message: str) -> None:
    with pytest.raises(TableError) as caught:
        kind.fit(column(values))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("fit", "score", "message"),
    [
        ([1.0, 2.0], [1.0, None], "column 'a', row 2: is missing, but no entry was where the kinds were inferred"),
        ([1.0, 2.0], [math.inf], "column 'a', row 1: expected a finite number, got inf"),
        ([1.0, 2.0], ["a"], "column 'a': expected numbers, for the kind integer, got text or categories"),
        (["a", "b"], [None], "column 'a', row 1: is missing, but no entry was"),
        (["a", "b"], [1.0], "column 'a': expected text, as a, b, got numbers"),
    ],
)
def test_refused_when_scored(fit: list[Any], score: list[Any], message: str) -> None:
    kind = infer_kind(column(fit)).fit(column(fit))
    with pytest.raises(TableError) as caught:
        kind.encode(column(score))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, "a"], "column 'a': expected entries of one type, got a number in row 1 and text in row 2"),
        ([None, "a", True], "column 'a': expected entries of one type, got text in row 2 and a boolean in row 3"),
        ([1.0, None, b"a"], "column 'a', row 3: expected a number, text or a boolean, got b'a'"),
        ([[1], [2]], "column 'a', row 1: expected a number, text or a boolean, got [1]"),
        ([1j], "column 'a', row 1: expected a number, text or a boolean, got 1j"),
        ([1, 2**70], "column 'a': expected numbers that fit into 64 bits, got 1180591620717411303424"),
    ],
)
def test_objects_refused(values: list[Any], message: str) -> None:
    with pytest.raises(TableError) as caught:
        column(values)
    assert str(caught.value) == message


def test_identifiers_are_refused() -> None:
    names = [f"row {i}" for i in range(100)]
    with pytest.raises(
        TableError, match=r"^column 'a': has 100 different entries in 100 rows: leave it out, or call it"
    ):
        infer_kind(column(names))
    assert isinstance(infer_kind(column([str(i % 10) for i in range(12)])), Categorical)


def test_entries_that_are_equal_up_to_rounding_are_the_same_level() -> None:
    kind = Ordered().fit(column(np.array([0.1, 0.3], dtype=np.float32)))
    assert kind.encode(column(np.array([0.3, 0.1, 0.1 + 0.2]))).state.tolist() == [1, 0, 1]
    exact = Ordered().fit(column(np.array([0.1, 0.3])))
    assert exact.encode(column(np.array([0.1 + 0.2]))).state.tolist() == [1]
    assert exact.encode(column(np.array([0.3001]))).log_jacobian.item() == -math.inf
