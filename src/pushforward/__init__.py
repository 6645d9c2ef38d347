"""Normalizing flows: a base distribution pushed forward through an invertible, learnable map.

The names below are loaded on first use, so that `import pushforward` alone, and with it the command line's
`--help`, does not import torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pushforward._api import *
else:

    def __getattr__(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        api = importlib.import_module("pushforward._api")
        if name in api.__all__:
            value = getattr(api, name)
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
        return [*globals(), *importlib.import_module("pushforward._api").__all__]
