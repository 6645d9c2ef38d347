"""Augmentation with noise."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.flow import Flow
from pushforward.numerics import concatenate
from pushforward.surjections.base import SurjectiveFlow


class Augmented(SurjectiveFlow):
    r"""x is the first part of y = (x, e), which has a flow; e ~ q(e | x) is drawn when x is scored. A bound only.

    More dimensions let a flow do what it cannot in those of x alone, as to split a mass in two.

    Args:
        flow: p(x, e), event shape (d + k,).
        noise: q(e | x, context), a conditional flow of event shape (k,) whose context is x and then the flow's context:
            context_features = d + flow.context_features.
        num_samples: draws per x when called.

    Raises:
        ValueError: if the sizes do not fit.

    References:
        Huang et al., Augmented Normalizing Flows, 2020, arXiv 2002.07101; Chen et al., VFlow, 2020, arXiv 2002.09741.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = Augmented(pf.real_nvp(features=3), noise=pf.real_nvp(features=1, context_features=2))
        >>> x = model.sample(5)
        >>> x.shape, model.log_prob_bound(x, num_samples=10).shape
        (torch.Size([5, 2]), torch.Size([5]))
    """

    def __init__(self, flow: Flow, noise: Flow, *, num_samples: int = 1) -> None:
        super().__init__(flow, num_samples=num_samples)
        self.noise = noise
        if len(flow.event_shape) != 1 or len(noise.event_shape) != 1 or noise.event_shape[0] >= flow.event_shape[0]:
            raise ValueError(
                "Augmented: expected a flow of event shape (d + k,) and noise of event shape (k,), "
                f"got {flow.event_shape} and {noise.event_shape}"
            )
        d = flow.event_shape[0] - noise.event_shape[0]
        if noise.context_features != d + flow.context_features:
            raise ValueError(
                f"Augmented: expected noise with context_features={d + flow.context_features}, {d} of x and "
                f"{flow.context_features} of the context, got {noise.context_features}"
            )
        self.event_shape = (d,)

    def lift(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        e, log_q = self.noise.rsample_and_log_prob((), concatenate(x, context))
        return torch.cat([x.expand(*e.shape[:-1], x.shape[-1]), e], dim=-1), -log_q

    def project(self, y: Tensor) -> Tensor:
        return y[..., : self.event_shape[0]]
