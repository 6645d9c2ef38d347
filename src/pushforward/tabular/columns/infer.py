"""Which kind a column is of, where nobody says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from pushforward.tabular.columns.base import Kind
from pushforward.tabular.columns.column import WHOLE_BELOW, Column, refuse
from pushforward.tabular.columns.levels import Categorical, Constant, Ordered
from pushforward.tabular.columns.numeric import Angle, Bounded, Integer, Positive, Real
from pushforward.tabular.columns.repeats import find_atoms, logarithm_helps

FEW, OFTEN, ENOUGH_ROWS = 32, 20, 10  # see the third rule
FEW_LEVELS = 10
KINDS: dict[str, type[Kind]] = {
    cls.label: cls for cls in (Real, Positive, Bounded, Integer, Angle, Ordered, Categorical, Constant)
}


def infer_kind(column: Column) -> Kind:
    """The kind of a column, by the first rule that applies.

    1. One entry throughout, or none: constant.
    2. Text, booleans and categories: categorical; ordered if the table says so.
    3. Two different numbers in ten rows or more, or at most 32, each in 20 rows or more: ordered. Then none is rare, so
       that there hardly is one that was not seen.
    4. Whole numbers: integer.
    5. Numbers above 0, besides atoms at 0 or above, with more symmetric logarithms (see `logarithm_helps`): positive.
    6. Other numbers: real. Bounds and angles are never guessed.

    Raises:
        TableError: for text with nearly as many levels as there are rows.
    """
    values, counts = column.distinct()
    if len(values) <= 1:
        return Constant()
    if column.levels is not None:
        if len(values) > max(FEW_LEVELS, int(counts.sum()) // 2):
            refuse(
                column.name,
                f"has {len(values)} different entries in {counts.sum()} rows: leave it out, or call it 'categorical'",
            )
        return Ordered() if column.ordered else Categorical()
    if column.values.dtype.kind == "b":
        return Categorical()
    x = column.numbers("number")[~column.missing]
    distinct, counts = np.unique(x, return_counts=True)
    atoms = find_atoms(distinct, counts)
    closed = len(distinct) <= FEW and counts.min() >= OFTEN
    if closed or (len(x) >= ENOUGH_ROWS and (len(distinct) == 2 or (~atoms).sum() == 1)):
        return Ordered()
    if (x == np.floor(x)).all() and np.abs(x).max() < WHOLE_BELOW:
        return Integer()
    ordinary = np.repeat(distinct[~atoms], counts[~atoms])
    if distinct[0] >= 0 and ordinary.min() > 0 and logarithm_helps(ordinary):
        return Positive()
    return Real()


def parse_kind(text: str) -> Kind:
    """The kind that a text such as "positive" or "bounded(0, 1)" declares.

    Raises:
        ValueError: if there is no such kind, or its arguments are wrong.

    Example:
        >>> parse_kind("angle(360)").period
        360.0
    """
    match = re.fullmatch(r"\s*(\w+)\s*(?:\((.*)\)\s*)?", text)
    label, inner = match.groups() if match else (text, None)
    if label not in KINDS:
        raise ValueError(f"expected a kind among {', '.join(KINDS)}, got {text!r}")
    cls = KINDS[label]
    arguments = [part.strip() for part in inner.split(",")] if inner and inner.strip() else []
    try:
        numbers = [None if part in ("inf", "-inf", "None") else float(part) for part in arguments]
        if len(numbers) > len(cls.declared):
            raise TypeError
        return cls(*numbers)
    except (ValueError, TypeError) as error:
        form = f"{label}({', '.join(cls.declared)})" if cls.declared else label
        raise ValueError(f"expected {form} with numbers, got {text!r}") from error


def kind_from_json(description: Mapping[str, Any]) -> Kind:
    """The kind that `Kind.to_json` described."""
    cls = KINDS[description["kind"]]
    return cls(**{field.name: description[field.name] for field in fields(cls)})
