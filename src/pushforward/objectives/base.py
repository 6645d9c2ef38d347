"""What an objective is."""

from abc import ABC, abstractmethod

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
