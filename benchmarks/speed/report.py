"""Tables and the page docs/benchmarks.md, of the results alone."""

from __future__ import annotations

import os
import platform
import textwrap
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.speed.cases import CASES, COMPILED, EAGER, GOALS, IMPORT_GOAL, OPERATIONS, TOLERANCE
from benchmarks.speed.libraries import LIBRARIES, OURS
from benchmarks.speed.rounds import ratio

Cell = dict[str, Any]
MARGIN = 0.05  # by which a goal may be missed and count as met
MODES = {EAGER: "eager", COMPILED: "compiled"}

METHOD = f"""\
One process per library, all pinned to the same cores; one of them at a time does something. A sample is the mean of as
many calls as fit into 50 ms, at least one, and follows a call that does not count where they are several: the caches
are full of other libraries. Each round takes one sample of every library, in rotating order; the figure is the median
over the rounds, and in brackets stand the quartiles of the ratios round by round. Everything is float32
with ReLU, splines have 8 bins on [-5, 5]. `train` is one step of maximum likelihood and `reverse_kl` one towards a
normal density, both with Adam, fused in every torch library; flowjax runs each step as one jitted function. `log_prob`
and `sample` are without gradients. Compilation is not timed. Every library takes its best route: the notes in
`benchmarks/speed/libraries/` say which. Where the kernels are in use, `flow.compile()` leaves all of these flows but
the continuous one to them: `pushforward-compiled` is then the same code, but trains as `train` does, by the library's
own function for the gradient and with the parameters in one piece (`training.FlatParameters`) for the same fused Adam.
Before it is timed each model takes 20 training steps and is then checked: its parameters are counted, its
draws scored again, and in two dimensions its density is integrated. What fails a check is shown, with !, but not
compared. The continuous flow is integrated by the adaptive Dormand-Prince method at tolerance {TOLERANCE:g}, which
pushforward and zuko keep in every element of the batch, torchflows in the root mean square, with Hutchinson's estimate
of the trace, tanh, and two features of time (torchflows: the time itself, in every layer); pushforward and torchflows
differentiate the steps, zuko integrates an adjoint. Read differences under 10 % as ties."""


def tables(results: dict[str, Any]) -> str:
    parts = [ratio_table(results["cells"]), milliseconds(results["cells"], results["libraries"])]
    parts += [remarks(results["cells"]), parity_text(results["parity"]), start_up_table(results["start_up"])]
    return "\n\n".join(part for part in parts if part)


def page(results: dict[str, Any]) -> str:
    versions = "; ".join(
        ", ".join(f"{package} {version}" for package, version in found.items())
        for _, found in sorted(results["versions"].items(), reverse=True)
    )
    parts = [
        "# Speed beside other libraries",
        "Written by `./dev bench`; every number is of that run.",
        f"**Machine.** {results['machine']}; {counted(results['threads'], 'thread')}, "
        f"{counted(results['rounds'], 'round')}.",
        f"**Versions.** {versions}. Compiled kernels of pushforward: {results['kernels']}.",
        f"**Method.** {METHOD}",
        "## How many times as long the others take",
        "Above 1 pushforward is faster. *peer* is the fastest torch library of the row. A goal is what the project "
        "asks of itself: met, within 5 %, or NOT.",
        ratio_table(results["cells"]),
        "## Where another library is faster",
        "The share of pushforward's time that it takes. The remarks below say where its work is not the same.",
        behind(results["cells"]) or "Nowhere.",
        "## Milliseconds",
        milliseconds(results["cells"], results["libraries"]),
        remarks(results["cells"]),
        parity_text(results["parity"]),
    ]
    if results["start_up"]:
        parts += [
            "## Start-up",
            "Fresh processes, RealNVP with d = 2: seconds to import what the library stands on, and the library on "
            "top; seconds from the start of the process to the first log-density and to the end of the first training "
            "step; peak resident memory by then. Medians of 3.",
            start_up_table(results["start_up"]),
        ]
    return "\n\n".join(wrapped(part) for part in parts if part) + "\n"


def wrapped(text: str) -> str:
    """Paragraphs in lines of 120; tables and lists as they are."""
    return text if text.startswith(("|", "-")) else textwrap.fill(text, 120, break_on_hyphens=False)


def counted(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def pairs(cells: list[Cell]) -> list[tuple[str, str]]:
    found = {(cell["case"], cell["operation"]) for cell in cells}
    return [(case, operation) for case in CASES for operation in OPERATIONS if (case, operation) in found]


def row_of(cells: list[Cell], case: str, operation: str) -> dict[str, Cell]:
    return {cell["library"]: cell for cell in cells if (cell["case"], cell["operation"]) == (case, operation)}


def is_ranked(cell: Cell) -> bool:
    """Whether a cell was timed, passed its checks and does the same work."""
    return "samples" in cell and not cell["faults"] and cell["operation"] not in cell["unequal"]


def fastest_peer(row: dict[str, Cell]) -> str | None:
    peers = [
        name for name, cell in row.items() if name not in OURS and LIBRARIES[name].base == "torch" and is_ranked(cell)
    ]
    return min(peers, key=lambda name: median(row[name]["samples"]), default=None)


def ratio_table(cells: list[Cell]) -> str:
    head = ["case", "operation", "peer"]
    for mode in MODES.values():
        head += [f"peer / {mode}", "goal", f"flowjax / {mode}", "goal"]
    rows = []
    for case, operation in pairs(cells):
        row = row_of(cells, case, operation)
        peer = fastest_peer(row)
        line = [CASES[case].title, operation, peer or "n/a"]
        for ours in MODES:
            goals = GOALS.get((case, operation, ours), (None, None))
            for other, goal in zip((peer, "flowjax"), goals, strict=True):
                line += compared(row.get(other or ""), row.get(ours), goal)
        rows.append(line)
    return table(head, rows)


def behind(cells: list[Cell]) -> str:
    """What others do in less time."""
    lines = []
    for case, operation in pairs(cells):
        row = row_of(cells, case, operation)
        for name in (name for name in row if name not in OURS and is_ranked(row[name])):
            found = {
                mode: ratio(row[name]["samples"], row[ours]["samples"])["ratio"]
                for ours, mode in MODES.items()
                if ours in row and is_ranked(row[ours])
            }
            if min(found.values(), default=1.0) < 1:
                times = ", ".join(f"{value:.2f} of {mode}" for mode, value in found.items())
                lines.append(f"- {CASES[case].title}, {operation}: {name} takes {times}")
    return "\n".join(lines)


def compared(theirs: Cell | None, ours: Cell | None, goal: float | None) -> list[str]:
    """The ratio with its quartiles, and the goal with its verdict."""
    if theirs is None or ours is None or not (is_ranked(theirs) and is_ranked(ours)):
        return ["n/a", "" if goal is None else f"{goal:g}"]
    found = ratio(theirs["samples"], ours["samples"])
    text = f"{found['ratio']:.2f} ({found['low']:.2f} to {found['high']:.2f})"
    return [text, "" if goal is None else f"{goal:g} {verdict(found['ratio'] >= (1 - MARGIN) * goal)}"]


def verdict(met: bool) -> str:
    return "met" if met else "**NOT**"


def milliseconds(cells: list[Cell], libraries: list[str]) -> str:
    rows = []
    for case, operation in pairs(cells):
        row = row_of(cells, case, operation)
        rows.append([CASES[case].title, operation, *(shown(row.get(library)) for library in libraries)])
    return table(["case", "operation", *libraries], rows)


def shown(cell: Cell | None) -> str:
    """Milliseconds; ! failed a check, ~ is not the same work, * has a remark."""
    if cell is None or "samples" not in cell:
        return "fault" if cell and "fault" in cell else "n/a"
    milliseconds = 1e3 * median(cell["samples"])
    marks = "!" * bool(cell["faults"]) + "~" * (cell["operation"] in cell["unequal"]) + "*" * bool(cell["remarks"])
    return f"{milliseconds:.{2 if milliseconds < 10 else 1}f}{marks}"


def remarks(cells: list[Cell]) -> str:
    """The reasons of what is n/a or marked, each once."""
    lines: dict[str, None] = {}
    for cell in cells:
        case = CASES[cell["case"]].title
        notes = [cell[key] for key in ("unavailable",) if key in cell]
        notes += [f"*: {remark}" for remark in cell.get("remarks", [])]
        notes += [f"!: {fault}" for fault in cell.get("faults", [])]
        if "fault" in cell:
            notes.append(f"fault in {cell['operation']}: {cell['fault']}")
        lines.update((f"- {cell['library']}, {case}: {note}", None) for note in notes)
    return "\n".join(lines)


def parity_text(differences: dict[str, float | None]) -> str:
    if not differences:
        return ""
    found = ", ".join(f"{name} {'fault' if gap is None else f'{gap:.1e}'}" for name, gap in differences.items())
    return f"Coupling spline with pushforward's weights, largest difference of log-densities in float64: {found} nats."


def start_up_table(start_up: dict[str, dict[str, float]]) -> str:
    if not start_up:
        return ""
    keys = {
        "base_import": "torch or jax, s",
        "import": "import on top, s",
        "first_log_prob": "first log_prob, s",
        "first_step": "first step, s",
        "peak_mib": "peak memory, MiB",
    }
    rows = []
    for library, figures in start_up.items():
        digits = [0 if key == "peak_mib" else 2 for key in keys]
        row = [f"{figures[key]:.{n}f}" if key in figures else "n/a" for key, n in zip(keys, digits, strict=True)]
        rows.append([library, *row])
    text = table(["library", *keys.values()], rows)
    if "import" in start_up.get(EAGER, {}):
        met = verdict(start_up[EAGER]["import"] <= (1 + MARGIN) * IMPORT_GOAL)
        text += f"\n\nGoal: {EAGER} imports in {IMPORT_GOAL} s on top of torch: {met}."
    return text


def machine() -> str:
    """The processor in words, as far as the system tells."""
    model = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return f"{model}, {counted(os.cpu_count() or 1, 'core')}, {platform.system()}"
