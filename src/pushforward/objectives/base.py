"""What an objective is."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pushforward.flow import Flow
from pushforward.objectives.tempering import Tempering


class Objective(nn.Module, ABC):
    """A loss, in nats, of a flow on a batch; its parameters are the flow's.

    To write one: implement `forward`, which takes a batch's tensors as arguments and returns the mean loss as
    a scalar, without asking for its value on the host.

    Attributes:
        flow: the flow to train.
        is_pure: whether `forward` is a function of its batch and the parameters alone, which draws nothing and keeps
            nothing, so that a compiler may take it and its gradient as one graph; it must not ask for gradients by the
            parameters itself.
    """

    is_pure = False

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow = flow

    @abstractmethod
    def forward(self, *args: Tensor | None) -> Tensor:
        """The mean loss on one batch, a scalar in nats."""

    def initialize(self, *args: Tensor | None) -> None:
        """Set what starts from data, given the first batch."""

    @property
    def compiled_with(self) -> dict[str, Any] | None:
        """The options of `Flow.compile`, if it compiled the density and the loss may be compiled with its gradient."""
        return self.flow.compiled_with if self.is_pure and isinstance(self.flow, Flow) else None


class DensityObjective(Objective):
    """An objective on a log density: what they share.

    Args:
        flow: q.
        log_density: log of the unnormalised density, `(n, *event_shape)` to `(n,)`, in nats.
        num_samples: draws per step.
        fewest: the least number of draws that the objective makes sense with.
        tempering: from the number of steps so far, a tensor, to the power to which the density is raised in training,
            as `linear_tempering` makes; evaluated, the objective is that of the density itself.
    """

    steps: Tensor

    def __init__(
        self,
        flow: Flow,
        log_density: Callable[[Tensor], Tensor],
        num_samples: int,
        *,
        fewest: int = 1,
        tempering: Tempering | None = None,
    ) -> None:
        super().__init__(flow)
        if num_samples < fewest:
            raise ValueError(f"{type(self).__name__}: expected num_samples >= {fewest}, got {num_samples}")
        # The parameters of a density that is a module are not an objective's to train.
        self.log_density = log_density.__call__ if isinstance(log_density, nn.Module) else log_density
        self.num_samples = num_samples
        self.tempering = tempering
        if tempering is not None:
            self.register_buffer("steps", torch.zeros(()))

    def log_p(self, x: Tensor, log_q: Tensor) -> Tensor:
        """log p at the draws of one step, of the shape of log q there."""
        log_p = self.log_density(x)
        if log_p.shape != log_q.shape:
            raise ValueError(
                f"{type(self).__name__}: expected log_density to map x of shape {tuple(x.shape)} to "
                f"{tuple(log_q.shape)}, got {tuple(log_p.shape)}"
            )
        if self.tempering is None or not self.training:
            return log_p
        power = self.tempering(self.steps)
        self.steps += 1
        return power.to(log_p) * log_p
