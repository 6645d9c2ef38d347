"""Rows to fit a density to."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pushforward.flow import Flow

BLOCK, BLOCK_WORK = 4096, 2**22


@dataclass(frozen=True)
class Rows:
    """Rows in float64, their context, and how often each counts."""

    x: Tensor
    context: Tensor | None
    weights: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Tensor | slice) -> Rows:
        context = None if self.context is None else self.context[index]
        return Rows(self.x[index], context, self.weights[index])

    @property
    def features(self) -> int:
        return self.x.shape[1]

    @property
    def context_features(self) -> int:
        return 0 if self.context is None else self.context.shape[1]

    def batch(self, z: Tensor) -> dict[str, Tensor]:
        """The arguments of `MaximumLikelihood` for values of the rows, in the dtype of these."""
        named = {"x": z, "context": self.context, "weights": self.weights / self.weights.mean()}
        if bool((self.weights == self.weights[0]).all()):
            del named["weights"]
        return {name: value.to(z.dtype) for name, value in named.items() if value is not None}

    @torch.no_grad()
    def log_prob(self, flow: Flow) -> Tensor:
        """Under a float64 flow, `(n,)`; what is not a number counts as zero density."""
        size = min(max(BLOCK_WORK // self.features**2, 64), BLOCK)
        blocks = [self[start : start + size] for start in range(0, len(self), size)]
        values = torch.cat([flow.log_prob(block.x, block.context) for block in blocks])
        return values.nan_to_num(-math.inf, math.inf, -math.inf)

    def mean(self, value: Tensor) -> tuple[float, float]:
        """The weighted mean over the rows, and its standard error."""
        share = self.weights / self.weights.sum()
        mean = share @ value
        return mean.item(), (share.square() @ (value - mean).square()).sqrt().item()
