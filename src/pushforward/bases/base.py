"""What a base distribution is."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Base(nn.Module, ABC):
    """A distribution p(z | context) to push forward.

    To write one: call `super().__init__()`; set the attributes; implement `log_prob` and `sample`. The draws must be
    reparametrised: differentiable in the parameters, so that the gradients of expectations over them are right. Keep
    every constructor argument as an attribute of the same name.

    Attributes:
        event_shape: shape of one z.
        context_features: size of the context, 0 for none.
    """

    event_shape: tuple[int, ...]
    context_features: int = 0

    @abstractmethod
    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """log p(z | context), shape `(*batch,)`, in nats; -inf outside the support.

        Args:
            z: shape `(*batch, *event_shape)`.
            context: shape `(*batch, context_features)`; broadcasts against the batch of `z`.
        """

    @abstractmethod
    def sample(self, sample_shape: tuple[int, ...] = (), context: Tensor | None = None) -> Tensor:
        """Reparametrised draws.

        Args:
            sample_shape: draws per context.
            context: shape `(*batch, context_features)`.

        Returns:
            shape `(*sample_shape, *batch, *event_shape)`.
        """

    def sample_choices(
        self, sample_shape: tuple[int, ...] = (), context: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Draws whose gradients hold the discrete choices fixed, and the log-probability of these choices.

        A mixture of separate components can move mass between them by the gradient of that log-probability only: no
        draw ever lies between them. Bases that choose nothing answer `None`.
        """
        return self.sample(sample_shape, context), None

    def _shape(self, sample_shape: tuple[int, ...], context: Tensor | None) -> torch.Size:
        batch = context.shape[:-1] if context is not None else torch.Size()
        return torch.Size(sample_shape) + batch + torch.Size(self.event_shape)
