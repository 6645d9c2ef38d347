"""Quotients by a finite symmetry."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pushforward.flow import Flow
from pushforward.surjections.base import SurjectiveFlow


class Absolute(SurjectiveFlow):
    """x = |y|, elementwise; scored with signs drawn uniformly. A bound only, tight where p(y) is even in each element.

    Args:
        flow: the distribution of y, of any event shape.
        num_samples: draws per x when called.

    Reference:
        Nielsen et al., SurVAE Flows, 2020, arXiv 2007.02731.

    Example:
        >>> model = Absolute(pf.Flow(pf.Chain(), pf.StandardNormal(1)))
        >>> round(model.log_prob_bound(torch.zeros(1)).item(), 4)  # half normal: log 2 - log(2 pi) / 2
        -0.2258
    """

    def lift(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        n = len(self.event_shape)
        inside = (x >= 0).flatten(x.dim() - n).all(-1)
        signs = 2 * torch.randint_like(x, 2) - 1
        y = signs * torch.where(inside.reshape(inside.shape + (1,) * n), x, 0.0)
        return y, torch.where(inside, x.new_full((), math.prod(self.event_shape) * math.log(2)), -torch.inf)

    def project(self, y: Tensor) -> Tensor:
        return y.abs()


class Sorted(SurjectiveFlow):
    """x = y in increasing order: sets of numbers. Scored in a random order; a bound only, tight for exchangeable p(y).

    Args:
        flow: the distribution of y, event shape (features,).
        num_samples: draws per x when called.

    Raises:
        ValueError: if the events of the flow are no vectors.

    Reference:
        Nielsen et al., SurVAE Flows, 2020, arXiv 2007.02731.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = Sorted(pf.real_nvp(features=3))
        >>> bool((model.sample(5).diff(dim=-1) >= 0).all())
        True
    """

    def __init__(self, flow: Flow, *, num_samples: int = 1) -> None:
        super().__init__(flow, num_samples=num_samples)
        if len(flow.event_shape) != 1:
            raise ValueError(f"Sorted: expected a flow of vectors, got event shape {flow.event_shape}")

    def lift(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        inside = (x.diff(dim=-1) >= 0).all(-1) & x.isfinite().all(-1)
        safe = torch.where(inside.unsqueeze(-1), x, 0.0)
        y = safe.gather(-1, torch.rand(x.shape, device=x.device).argsort(-1))
        return y, torch.where(inside, x.new_full((), math.lgamma(x.shape[-1] + 1)), -torch.inf)

    def project(self, y: Tensor) -> Tensor:
        return y.sort(-1).values
