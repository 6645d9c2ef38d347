"""pushforward after `flow.compile()`."""

from __future__ import annotations

from functools import partial

from benchmarks.speed.libraries import ours

build = partial(ours.build, compiled=True)
