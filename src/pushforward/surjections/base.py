"""What a surjective flow is."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from pushforward.flow import Flow, Shape


class SurjectiveFlow(nn.Module, ABC):
    r"""x = g(y) for a y from a flow and a map g that is onto but not one-to-one: the likelihood has a lower bound only.

    With y drawn from some q(y | x) on the y that g takes to x,
    $$\log p(x) \ge E\left[\log \frac1S \sum_{s=1}^S \frac{p(y_s)}{q(y_s | x)}\right],$$
    for S = 1 the ELBO; the bound rises to the truth with S, and is tight at any S where q is the posterior of y. It is
    not a `Flow`, and has no `log_prob`. Called, it is the bound, so that `MaximumLikelihood` trains it.

    To write one: implement `lift` and `project`.

    Args:
        flow: the distribution of y.
        num_samples: S when called, that is in training.

    Attributes:
        event_shape: shape of one x.
        context_features: size of the context, that of the flow.

    References:
        Nielsen et al., SurVAE Flows: Surjections to Bridge the Gap between VAEs and Flows, 2020, arXiv 2007.02731;
        Burda et al., Importance Weighted Autoencoders, 2015, arXiv 1509.00519.
    """

    event_shape: tuple[int, ...]

    def __init__(self, flow: Flow, *, num_samples: int = 1) -> None:
        super().__init__()
        if num_samples < 1:
            raise ValueError(f"{type(self).__name__}: expected num_samples >= 1, got {num_samples}")
        self.flow = flow
        self.num_samples = num_samples
        self.event_shape = flow.event_shape
        self.context_features = flow.context_features

    @abstractmethod
    def lift(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """A draw y from q(y | x), `(*batch, *flow.event_shape)`, and -log q(y | x), `(*batch,)`, -inf if no y fits.

        The weight also holds the log-determinant of the coordinates in which y is given.
        """

    @abstractmethod
    def project(self, y: Tensor) -> Tensor:
        """x = g(y), shape `(*batch, *event_shape)`."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """`log_prob_bound` with the constructor's `num_samples`."""
        return self.log_prob_bound(x, context, num_samples=self.num_samples)

    def log_prob_bound(self, x: Tensor, context: Tensor | None = None, *, num_samples: int = 1) -> Tensor:
        """A random number whose mean is at most log p(x | context), in nats.

        Args:
            x: shape `(*batch, *event_shape)`.
            context: shape `(*batch, context_features)`; broadcasts against the batch of `x`.
            num_samples: S, draws per x; the mean rises with it.

        Returns:
            shape `(*batch,)`; -inf outside the support.
        """
        n = len(self.event_shape)
        if x.dim() < n or tuple(x.shape[x.dim() - n :]) != self.event_shape:
            raise ValueError(
                f"{type(self).__name__}: expected x with trailing shape {self.event_shape}, got {tuple(x.shape)}"
            )
        if num_samples < 1:
            raise ValueError(f"{type(self).__name__}: expected num_samples >= 1, got {num_samples}")
        batch = x.shape[: x.dim() - n]
        if context is not None:
            batch = torch.broadcast_shapes(batch, context.shape[:-1])
        y, log_weight = self.lift(x.expand(num_samples, *batch, *self.event_shape), context)
        terms = self.flow.log_prob(y, context) + log_weight
        return terms[0] if num_samples == 1 else terms.logsumexp(0) - math.log(num_samples)

    def sample(self, sample_shape: Shape = (), context: Tensor | None = None) -> Tensor:
        """Draws, without gradient, of shape `(*sample_shape, *batch, *event_shape)`; these are exact."""
        return self.project(self.flow.sample(sample_shape, context))

    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Let the layers that start from data see a batch `x` of shape `(n, *event_shape)`."""
        self.flow.initialize(self.lift(x, context)[0].detach(), context)
