"""What is typed about columns: pairs of a name and a value."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from pushforward.tabular.columns import Kind, Name
from pushforward.tabular.columns.levels import Levels
from pushforward.tabular.csv_files import MISSING
from pushforward.tabular.schema import Schema


def parse_pairs(texts: Iterable[str], names: Sequence[Name], form: str = "NAME=VALUE") -> dict[Name, str]:
    """What stands behind the name of each column; names may hold equals signs.

    Args:
        texts: as "age=40".
        names: of the columns that there are.
        form: of a text, for the messages.

    Raises:
        ValueError: a text has no name of a column and an equals sign in front, or a column comes twice.

    Example:
        >>> parse_pairs(["age=40", "a=b=c"], ["age", "a=b"])
        {'age': '40', 'a=b': 'c'}
    """
    pairs: dict[Name, str] = {}
    for text in texts:
        fitting = [name for name in names if text.startswith(f"{name}=")]
        if not fitting:
            known = ", ".join(map(repr, names))
            raise ValueError(f"expected {form} with one of the columns {known}, got {text!r}")
        name = max(fitting, key=lambda name: len(str(name)))
        if name in pairs:
            raise ValueError(f"column {name!r}: got two values, {pairs[name]!r} and {text[len(str(name)) + 1 :]!r}")
        pairs[name] = text[len(str(name)) + 1 :]
    return pairs


def parse_values(schema: Schema, texts: Iterable[str]) -> dict[Name, Any]:
    """Values of columns that are given as text, each as its column's kind takes it.

    Args:
        schema: the kinds of the columns.
        texts: as "age=40" or "colour=red"; an empty one, NA or NaN is a missing entry where the column has some.

    Raises:
        ValueError: there is no such column, or no such value of it.

    Example:
        >>> schema = Schema.infer({"age": [31, 45, 52], "colour": ["red", "blue", "red"]})
        >>> parse_values(schema, ["age=40", "colour=red"])
        {'age': 40.0, 'colour': 'red'}
    """
    pairs = parse_pairs(texts, list(schema.kinds))
    return {name: _value(name, schema.kinds[name], text) for name, text in pairs.items()}


def _value(name: Name, kind: Kind, text: str) -> Any:
    if isinstance(kind, Levels):
        levels = kind.levels or ()
        same = [v for v in levels if text == str(v)] or [v for v in levels if _alike(v, text)]
        if same:
            return same[0]
    if kind.missing and text.strip().lower() in MISSING:
        return None
    if isinstance(kind, Levels):
        raise ValueError(f"column {name!r}: expected a value of the kind {kind}; got {text!r}")
    number = _number(text)
    if not math.isfinite(number):
        raise ValueError(f"column {name!r}: expected a finite number, got {text!r}")
    return number


def _alike(level: Any, text: str) -> bool:
    if isinstance(level, bool):
        return text.strip().lower() == str(level).lower()
    return not isinstance(level, str) and _number(text) == level


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
