"""Old Faithful: the data set that the package brings along."""

import csv
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor


def faithful() -> Tensor:
    """Eruptions of the Old Faithful geyser: duration and waiting time to the next one, both in minutes.

    Source: Azzalini and Bowman, "A look at some data on the Old Faithful geyser", Applied Statistics 39 (1990).

    Returns:
        shape `(272, 2)`, float64, in the order of `faithful_columns()`.

    Example:
        >>> faithful().mean(0)
        tensor([ 3.4878, 70.8971], dtype=torch.float64)
    """
    _, *rows = _read()
    return torch.tensor([[float(cell) for cell in row] for row in rows], dtype=torch.float64)


def faithful_columns() -> tuple[str, ...]:
    """Names of the columns of `faithful()`.

    Example:
        >>> faithful_columns()
        ('eruptions', 'waiting')
    """
    return tuple(_read()[0])


def faithful_path() -> Path:
    """Where the CSV file behind `faithful()` lies: a header, then 272 rows."""
    return Path(str(files("pushforward") / "data" / "faithful.csv"))


def _read() -> list[list[str]]:
    with faithful_path().open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))
