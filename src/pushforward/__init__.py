"""Normalizing flows: a base distribution pushed forward through an invertible, learnable map.

The names below are loaded on first use, so that `import pushforward` alone, and with it the command line's
`--help`, does not import torch.
"""

import importlib.util
from functools import cache
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pushforward._api import *
else:

    def __getattr__(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in _homes():
            value = getattr(importlib.import_module(_homes()[name]), name)
        else:
            try:
                value = importlib.import_module(f"pushforward.{name}")
            except ModuleNotFoundError as error:
                if error.name != f"pushforward.{name}":
                    raise
                raise AttributeError(f"module 'pushforward' has no attribute {name!r}") from None
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return [*globals(), *_homes()]

    @cache
    def _homes() -> dict[str, str]:
        """The module of each public name, as `_api` has it, which when run would load all of them."""
        import ast

        source = importlib.util.find_spec("pushforward._api").loader.get_source("pushforward._api")
        if source is None:  # installed without sources
            return dict.fromkeys(importlib.import_module("pushforward._api").__all__, "pushforward._api")
        imports = [node for node in ast.parse(source).body if isinstance(node, ast.ImportFrom)]
        return {alias.name: node.module for node in imports for alias in node.names}
