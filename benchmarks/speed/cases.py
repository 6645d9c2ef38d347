"""What is measured: the cases, the operations, and the goals; without any of the libraries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

BINS = 8
BOUND = 5.0
TOLERANCE = 1e-5  # of the adaptive solver of the continuous flow, relative and absolute
OPERATIONS = ("train", "log_prob", "sample", "reverse_kl")


class Unavailable(Exception):
    """A library has no such flow, or not this operation; the message says why."""


@dataclass(frozen=True)
class Case:
    """One flow at one size.

    `parameters` is the number of trainable numbers that the architecture has when nothing is added to it.
    """

    name: str
    title: str
    family: str
    features: int
    layers: int
    hidden: tuple[int, ...]
    batch: int
    parameters: int
    operations: tuple[str, ...] = OPERATIONS

    @property
    def warm_up(self) -> str:
        """The operation that trains."""
        return "train" if "train" in self.operations else "reverse_kl"


CASES = {
    case.name: case
    for case in (
        Case("real_nvp_2", "RealNVP, d = 2", "affine_coupling", 2, 6, (256, 256), 100, 400_908),
        Case("real_nvp_64", "RealNVP, d = 64", "affine_coupling", 64, 8, (256, 256), 1024, 725_504),
        Case("spline_8", "coupling spline, d = 8", "spline_coupling", 8, 5, (128, 128), 512, 145_100),
        Case("spline_43", "coupling spline, d = 43", "spline_coupling", 43, 5, (128, 128), 512, 417_332),
        Case("maf_43", "MAF, d = 43", "affine_autoregressive", 43, 5, (128, 128), 512, 166_190),
        Case("ar_spline_8", "autoregressive spline, d = 8", "spline_autoregressive", 8, 5, (128, 128), 512, 207_000),
        Case("planar_2", "planar, d = 2", "planar", 2, 16, (), 40, 80, ("sample", "reverse_kl")),
        Case("ffjord_2", "FFJORD, d = 2", "continuous", 2, 1, (64, 64), 256, 4_610),
    )
}

# How many times as long the fastest torch peer and flowjax should take as pushforward, None where nothing is promised.
EAGER, COMPILED = "pushforward", "pushforward-compiled"
Goal = tuple[float | None, float | None]
GOALS: dict[tuple[str, str, str], Goal] = {
    ("real_nvp_2", "train", EAGER): (1.15, 0.95),
    ("real_nvp_2", "train", COMPILED): (1.35, 1.05),
    **{("real_nvp_64", operation, EAGER): (1.0, 0.95) for operation in OPERATIONS},
    ("spline_8", "train", EAGER): (2.5, 1.0),
    ("spline_8", "train", COMPILED): (2.0, 0.9),
    ("spline_8", "log_prob", EAGER): (3.3, 1.05),
    ("spline_8", "sample", EAGER): (3.3, 1.05),
    ("spline_43", "train", EAGER): (2.6, 1.5),
    ("spline_43", "train", COMPILED): (1.75, 1.1),
    ("spline_43", "log_prob", EAGER): (3.5, 1.6),
    ("spline_43", "log_prob", COMPILED): (2.0, 1.0),
    ("spline_43", "sample", EAGER): (3.3, 1.3),
    ("spline_43", "sample", COMPILED): (2.0, 1.0),
    ("maf_43", "train", EAGER): (1.0, 0.9),
    ("maf_43", "train", COMPILED): (1.2, 1.0),
    ("maf_43", "log_prob", EAGER): (1.0, 0.9),
    ("maf_43", "log_prob", COMPILED): (1.2, 1.0),
    ("maf_43", "sample", EAGER): (60.0, 50.0),
    ("maf_43", "reverse_kl", EAGER): (10.0, 10.0),
    ("ar_spline_8", "train", EAGER): (2.0, 1.0),
    ("ar_spline_8", "log_prob", EAGER): (3.0, 1.0),
    ("ar_spline_8", "sample", EAGER): (20.0, 8.0),
    ("ar_spline_8", "reverse_kl", EAGER): (4.0, 4.0),
    ("planar_2", "reverse_kl", EAGER): (3.0, None),
    ("planar_2", "reverse_kl", COMPILED): (8.0, None),
}
IMPORT_GOAL = 0.15  # seconds on top of importing torch


def data(case: Case) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A batch of nearly unit scale in which each feature leans on the one before."""
    x = np.random.default_rng(0).standard_normal((case.batch, case.features))
    x[:, 1:] += 0.5 * np.sin(2 * x[:, :-1])
    return x.astype(np.float32)
