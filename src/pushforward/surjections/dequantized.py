"""Integers from a continuous flow."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pushforward.flow import Flow
from pushforward.numerics import concatenate
from pushforward.surjections.base import SurjectiveFlow


class Dequantized(SurjectiveFlow):
    r"""x_i = floor(levels \sigma(y_i)), integers 0, ..., levels - 1, of a flow of y on R^d. A bound only.

    Scored with u ~ q(u | x) on (0, 1)^d, y = logit((x + u) / levels): uniform, or learned (variational dequantisation).
    The probabilities that are bounded sum to one over the integers.

    Args:
        flow: the distribution of y, of any event shape.
        levels: how many integers, at least 2.
        noise: q of logit(u), a conditional flow of the flow's event shape whose context is x, flattened and scaled to
            (-1, 1), and then the flow's context; by default u is uniform.
        num_samples: draws per x when called.

    Raises:
        ValueError: if `levels` is below 2, or the sizes do not fit.

    References:
        Theis et al., A note on the evaluation of generative models, 2015, arXiv 1511.01844 (uniform); Ho et al.,
        Flow++, 2019, arXiv 1902.00275 (variational).

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = Dequantized(pf.nsf(features=2), levels=4)
        >>> model.log_prob_bound(torch.tensor([[0, 3], [1, 4]]), num_samples=10).isfinite()
        tensor([ True, False])
    """

    def __init__(self, flow: Flow, levels: int, *, noise: Flow | None = None, num_samples: int = 1) -> None:
        super().__init__(flow, num_samples=num_samples)
        if levels < 2:
            raise ValueError(f"Dequantized: expected levels >= 2, got {levels}")
        self.levels = levels
        self.noise = noise
        features = math.prod(flow.event_shape) + flow.context_features
        if noise is not None and (noise.event_shape, noise.context_features) != (flow.event_shape, features):
            raise ValueError(
                f"Dequantized: expected noise of event shape {flow.event_shape} with context_features={features}, "
                f"got {noise.event_shape} with {noise.context_features}"
            )

    def lift(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = x if x.is_floating_point() else x.to(_dtype(self.flow))
        n = len(self.event_shape)
        inside = ((x >= 0) & (x <= self.levels - 1) & (x == x.round())).flatten(x.dim() - n).all(-1)
        x = torch.where(inside.reshape(inside.shape + (1,) * n), x, 0.0)
        if self.noise is None:
            eps = torch.finfo(x.dtype).eps
            u = torch.rand_like(x).clamp(0.25 * eps, 1 - eps)
            rest, log_q = 1 - u, x.new_zeros(inside.shape)
        else:
            scaled = (2 * x + 1) / self.levels - 1
            v, log_q = self.noise.rsample_and_log_prob((), concatenate(scaled.flatten(x.dim() - n), context))
            u, rest = v.sigmoid(), (-v).sigmoid()
            log_q = log_q - (F.logsigmoid(v) + F.logsigmoid(-v)).flatten(v.dim() - n).sum(-1)
        # The distance to the upper end from its own parts: x + u may round to it.
        above, below = (x + u).log(), (self.levels - 1 - x + rest).log()
        log_slope = (math.log(self.levels) - above - below).flatten(u.dim() - n).sum(-1)
        return above - below, torch.where(inside, log_slope - log_q, -torch.inf)

    def project(self, y: Tensor) -> Tensor:
        return (self.levels * y.sigmoid()).floor().clamp(0, self.levels - 1)


def _dtype(flow: Flow) -> torch.dtype:
    """The floating dtype of a flow."""
    tensors = (t for t in (*flow.parameters(), *flow.buffers()) if t.is_floating_point())
    return next((t.dtype for t in tensors), torch.get_default_dtype())
