"""The speed benchmark: arithmetic, tables, and pushforward's own models of the cases; not the other libraries."""

import numpy as np
import pytest
import torch

from benchmarks.speed import checks, report
from benchmarks.speed.__main__ import is_full, parse
from benchmarks.speed.cases import CASES, COMPILED, EAGER, GOALS, OPERATIONS, Case, Unavailable, data
from benchmarks.speed.libraries import LIBRARIES, ours
from benchmarks.speed.rounds import ratio, rotated
from benchmarks.speed.worker import Worker


def test_every_library_stands_everywhere_in_as_many_rounds() -> None:
    orders = [rotated("abc", r) for r in range(3)]
    assert orders == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"]]
    assert rotated([], 5) == []


def test_ratio_is_of_medians_and_its_quartiles_are_of_rounds() -> None:
    found = ratio([2.0, 4.0, 9.0], [1.0, 2.0, 3.0])
    assert found == {"ratio": 2.0, "low": 2.0, "high": 2.5}
    assert ratio([3.0], [2.0]) == {"ratio": 1.5, "low": 1.5, "high": 1.5}


def test_goals_are_of_cases_that_are_measured() -> None:
    for case, operation, mode in GOALS:
        assert operation in CASES[case].operations
        assert mode in (EAGER, COMPILED)


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_own_model_is_what_the_case_says(case: Case) -> None:
    torch.manual_seed(0)
    model = ours.build(case)
    assert model.parameters == case.parameters
    model.operation(case.warm_up)()
    model.exact(True)
    assert checks.check(model, case) == []


class Lying:
    """A standard normal distribution that is wrong about itself."""

    parameters = 0
    estimates = False

    def __init__(self, *, offset: float = 0.0, offset_of_draws: float = 0.0, scores: bool = True) -> None:
        self.offset = offset
        self.offset_of_draws = offset_of_draws
        self.scores = scores

    def log_prob(self, x: np.ndarray) -> np.ndarray | None:
        return -0.5 * (x**2).sum(-1) - np.log(2 * np.pi) + self.offset if self.scores else None

    score_draws = log_prob

    def sample(self, n: int) -> np.ndarray:
        return np.random.default_rng(1).standard_normal((n, 2))

    def draw(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        x = self.sample(n)
        return x, -0.5 * (x**2).sum(-1) - np.log(2 * np.pi) + self.offset_of_draws


def test_checks_find_faults() -> None:
    case = CASES["real_nvp_2"]
    assert checks.check(Lying(), case) == []
    assert checks.check(Lying(scores=False), case) == []
    assert checks.check(Lying(offset=0.1), case) == [
        "draws and log_prob disagree by 0.1 nats",
        "density integrates to 1.105",
    ]
    assert checks.check(Lying(offset=np.nan), case)[0] == "log-density of data is not finite"
    (fault,) = checks.check(Lying(offset_of_draws=0.1, scores=False), case)
    assert fault.startswith("density integrates to 0.9")
    assert checks.parameters_differ(case.parameters * 11 // 10, case) == "+10% parameters"
    assert checks.parameters_differ(case.parameters, case) is None


def test_worker_answers_and_survives() -> None:
    worker = Worker("ours")
    built = worker.answer({"do": "build", "case": "planar_2"})
    assert built == {"parameters": 80, "faults": [], "remarks": [], "unequal": ()}
    assert worker.answer({"do": "prepare", "operation": "sample"})["calls"] >= 1
    assert worker.answer({"do": "time"})["seconds"] > 0

    def without(case: Case) -> None:
        raise Unavailable(f"has no {case.family} layer")

    def broken(case: Case) -> None:
        raise RuntimeError("out of\norder")

    for build, answer in [
        (without, {"unavailable": "has no planar layer"}),
        (broken, {"fault": "RuntimeError: out of"}),
    ]:
        worker.library = type("Library", (), {"build": staticmethod(build)})
        assert worker.answer({"do": "build", "case": "planar_2"}) == answer


def cell(library: str, samples: list[float] | None, **more: object) -> dict[str, object]:
    made = {"case": "spline_43", "operation": "train", "library": library, "faults": [], "remarks": [], "unequal": []}
    return {**made, **({} if samples is None else {"samples": samples}), **more}


RESULTS = {
    "machine": "a machine",
    "kernels": "in use, avx2: a reason",
    "threads": 1,
    "rounds": 3,
    "versions": {"peers": {"torch": "2"}, "jax": {"jax": "1"}},
    "libraries": list(LIBRARIES),
    "parity": {"nflows": 1e-12, "normflows": None},
    "cells": [
        cell(EAGER, [0.010, 0.010, 0.010]),
        cell(COMPILED, [0.005, 0.005, 0.005]),
        cell("zuko", [0.011, 0.012, 0.011]),
        cell("nflows", [0.001, 0.001, 0.001], faults=["density integrates to 2.000"]),
        cell("normflows", [0.002, 0.002, 0.002], unequal=["train"]),
        cell("flowjax", [0.006, 0.006, 0.006], remarks=["+8% parameters"]),
        cell("FrEIA", None, unavailable="has no spline couplings"),
        cell("pyro", None, fault="RuntimeError: no"),
    ],
    "start_up": {EAGER: {"base_import": 1.0, "import": 0.2, "first_log_prob": 1.4}},
}


def test_tables() -> None:
    row = report.ratio_table(RESULTS["cells"]).splitlines()[2]
    assert row == (
        "| coupling spline, d = 43 | train | zuko | 1.10 (1.10 to 1.15) | 2.6 **NOT** | 0.60 (0.60 to 0.60) "
        "| 1.5 **NOT** | 2.20 (2.20 to 2.30) | 1.75 met | 1.20 (1.20 to 1.20) | 1.1 met |"
    )
    row = report.milliseconds(RESULTS["cells"], list(LIBRARIES)).splitlines()[2]
    assert row == (
        "| coupling spline, d = 43 | train | 10.0 | 5.00 | 11.0 | 2.00~ | 1.00! | fault | n/a | n/a | 6.00* |"
    )
    assert report.remarks(RESULTS["cells"]).splitlines() == [
        "- nflows, coupling spline, d = 43: !: density integrates to 2.000",
        "- flowjax, coupling spline, d = 43: *: +8% parameters",
        "- FrEIA, coupling spline, d = 43: has no spline couplings",
        "- pyro, coupling spline, d = 43: fault in train: RuntimeError: no",
    ]
    behind = "- coupling spline, d = 43, train: flowjax takes 0.60 of eager, 1.20 of compiled"
    assert report.behind(RESULTS["cells"]).splitlines() == [behind]
    assert "| pushforward | 1.00 | 0.20 | 1.40 | n/a | n/a |" in report.start_up_table(RESULTS["start_up"])
    page = " ".join(report.page(RESULTS).split())
    assert "in float64: nflows 1.0e-12, normflows fault nats." in page
    assert "a machine; 1 thread, 3 rounds" in page
    assert "0.15 s on top of torch: **NOT**" in page


def test_only_a_full_run_writes_the_page() -> None:
    assert is_full(parse([]))
    assert is_full(parse(["--operations", *reversed(OPERATIONS)]))
    assert not is_full(parse(["--cases", "maf_43"]))
    assert not is_full(parse(["--no-start-up"]))


def test_data_are_the_same_for_every_library() -> None:
    case = CASES["maf_43"]
    assert data(case).shape == (case.batch, case.features)
    assert data(case).dtype == np.float32
    assert (data(case) == data(case)).all()
