"""Tables: their files, the kinds of their columns, densities of their rows.

What needs torch is loaded on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

from pushforward.tabular.table import Table, TableError, check_fittable

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
    from pushforward.tabular.files import read_file, write_file
    from pushforward.tabular.schema import Encoded, Schema
    from pushforward.tabular.sources import numeric_table
else:
    _PARTS = {
        "Encoded": "schema",
        "Schema": "schema",
        "numeric_table": "sources",
        "read_file": "files",
        "write_file": "files",
    }

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_PARTS.get(name, 'columns')}"), name)


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
    "check_fittable",
    "numeric_table",
    "read_file",
    "write_file",
]
