"""A flow as a torch distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

if TYPE_CHECKING:
    from pushforward.flow import Flow


class FlowDistribution(Distribution):
    """p(x | context) of a flow for a fixed context, as a `torch.distributions.Distribution`.

    Args:
        flow: the flow; its parameters stay shared.
        context: shape `(*batch_shape, context_features)`, if the flow is conditional.
        batch_shape: the batch shape of a flow without context; its members are independent and alike.

    Example:
        >>> d = pf.nsf(features=2, context_features=3).distribution(torch.zeros(5, 3))
        >>> d.batch_shape, d.event_shape, d.rsample((4,)).shape
        (torch.Size([5]), torch.Size([2]), torch.Size([4, 5, 2]))
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 (torch's own declaration)
    has_rsample = True

    def __init__(self, flow: Flow, context: Tensor | None = None, *, batch_shape: tuple[int, ...] = ()) -> None:
        self.flow = flow
        self.context = context
        batch = torch.Size(batch_shape) if context is None else context.shape[:-1]
        super().__init__(batch, torch.Size(flow.event_shape), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """The bijection's codomain; the values of a base that is itself confined, as `Uniform`, may fill less of it."""
        codomain = self.flow.bijection.codomain
        return constraints.independent(codomain, len(self.event_shape) - codomain.event_dim)

    def log_prob(self, value: Tensor) -> Tensor:
        log_prob: Tensor = self.flow.log_prob(value, self.context)
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            return self.rsample(sample_shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = tuple(sample_shape) if self.context is not None else (*sample_shape, *self.batch_shape)
        return self.flow.rsample(shape, self.context)

    def expand(self, batch_shape: Any, _instance: Any = None) -> FlowDistribution:
        if self.context is None:
            return type(self)(self.flow, batch_shape=tuple(batch_shape))
        return type(self)(self.flow, self.context.expand(*batch_shape, self.context.shape[-1]))
