"""Tables: read, check and write them; the kinds of their columns.

What needs torch is loaded on first use, so that reading a table does not.
"""

import importlib
from typing import TYPE_CHECKING, Any

from pushforward.tabular.table import Table, TableError, check_columns, check_fittable, read_table, write_csv

if TYPE_CHECKING:
    from pushforward.tabular.columns import (
        Angle,
        Bounded,
        Categorical,
        Constant,
        Integer,
        Kind,
        Ordered,
        Positive,
        Real,
    )
    from pushforward.tabular.schema import Encoded, Schema
else:

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        part = "schema" if name in ("Encoded", "Schema") else "columns"
        return getattr(importlib.import_module(f"{__name__}.{part}"), name)


__all__ = [
    "Angle",
    "Bounded",
    "Categorical",
    "Constant",
    "Encoded",
    "Integer",
    "Kind",
    "Ordered",
    "Positive",
    "Real",
    "Schema",
    "Table",
    "TableError",
    "check_columns",
    "check_fittable",
    "read_table",
    "write_csv",
]
