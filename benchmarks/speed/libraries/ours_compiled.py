"""pushforward after `flow.compile()`, which leaves all flows here but the continuous one to the kernels, if in use."""

from __future__ import annotations

from functools import partial

from benchmarks.speed.libraries import ours

build = partial(ours.build, compiled=True)
