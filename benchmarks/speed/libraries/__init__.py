"""The libraries: one module each, with `build(case)`, imported in a process of its own."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.speed.cases import COMPILED, EAGER


@dataclass(frozen=True)
class Library:
    """Where a library runs: module and package, environment, and what it stands on."""

    name: str
    module: str
    package: str
    environment: str
    base: str


LIBRARIES = {
    library.name: library
    for library in (
        Library(EAGER, "ours", "pushforward", "peers", "torch"),
        Library(COMPILED, "ours_compiled", "pushforward", "peers", "torch"),
        Library("zuko", "zuko", "zuko", "peers", "torch"),
        Library("normflows", "normflows", "normflows", "peers", "torch"),
        Library("nflows", "nflows", "nflows", "peers", "torch"),
        Library("pyro", "pyro", "pyro-ppl", "peers", "torch"),
        Library("torchflows", "torchflows", "torchflows", "peers", "torch"),
        Library("FrEIA", "freia", "FrEIA", "peers", "torch"),
        Library("flowjax", "flowjax", "flowjax", "jax", "jax"),
    )
}
OURS = (EAGER, COMPILED)
