"""What an objective is."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor, nn

from pushforward.flow import Flow


class Objective(nn.Module, ABC):
    """A loss, in nats, of a flow on a batch; its parameters are the flow's.

    To write one: implement `forward`, which takes a batch's tensors as arguments and returns the mean loss as
    a scalar, without asking for its value on the host.

    Attributes:
        flow: the flow to train.
    """

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow = flow

    @abstractmethod
    def forward(self, *args: Tensor | None) -> Tensor:
        """The mean loss on one batch, a scalar in nats."""

    def initialize(self, *args: Tensor | None) -> None:
        """Set what starts from data, given the first batch."""


def plain(log_density: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The density as a function: the parameters of a target that is a module are not an objective's to train."""
    return log_density.__call__ if isinstance(log_density, nn.Module) else log_density


def checked(name: str, log_density: Callable[[Tensor], Tensor], x: Tensor, log_q: Tensor) -> Tensor:
    """log p at the draws, of the shape of log q there."""
    log_p = log_density(x)
    if log_p.shape != log_q.shape:
        raise ValueError(
            f"{name}: expected log_density to map x of shape {tuple(x.shape)} to {tuple(log_q.shape)}, "
            f"got {tuple(log_p.shape)}"
        )
    return log_p
