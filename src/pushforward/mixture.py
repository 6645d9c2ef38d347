"""Mixtures of flows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pushforward.bases import Base
from pushforward.flow import Flow
from pushforward.numerics import floating


class FlowMixture(Base):
    r"""$p(x | c) = \sum_k w_k q_k(x | c)$ of flows, with given weights: an ensemble as one density.

    It is a base, so `Flow(Chain(), FlowMixture(flows))` is a flow like any other. The weights are not learned, so that
    draws with their component held fixed have the right gradients.

    Args:
        flows: $q_k$, of one event shape and one size of the context.
        weights: $w_k$, positive, shape `(components,)`; they are normalised. By default equal.

    Raises:
        ValueError: the flows disagree or have embeddings, or there is not one positive weight for each.

    Example:
        >>> flows = [pf.Flow(pf.Standardize([m], [1.0]), pf.StandardNormal(1)) for m in (-9.0, 9.0)]
        >>> mixture = pf.Flow(pf.Chain(), FlowMixture(flows))
        >>> round(mixture.log_prob(torch.tensor([9.0])).item(), 4)  # half a normal
        -1.6121
    """

    weights: Tensor

    def __init__(self, flows: Sequence[Flow], weights: Tensor | Sequence[float] | None = None) -> None:
        super().__init__()
        if not len(flows):
            raise ValueError("FlowMixture: expected at least one flow, got none")
        shapes = {(tuple(flow.event_shape), flow.context_features) for flow in flows}
        if len(shapes) > 1:
            raise ValueError(f"FlowMixture: expected one event shape and context_features, got {sorted(shapes)}")
        self.flows = nn.ModuleList(flows)
        if any(flow.embedding is not None for flow in flows):
            raise ValueError("FlowMixture: got a flow with an embedding; give that to the flow of the mixture")
        weights = torch.ones(len(flows)) if weights is None else floating(weights)
        if weights.shape != (len(flows),) or not bool((weights > 0).all()):
            raise ValueError(f"FlowMixture: expected {len(flows)} positive weights, got {weights}")
        self.register_buffer("weights", weights / weights.sum())
        self.event_shape, self.context_features = shapes.pop()

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        terms = torch.stack([flow(z, context) for flow in self.flows], dim=-1)
        log_prob: Tensor = (terms + self.weights.log()).logsumexp(-1)
        return log_prob

    def sample(self, sample_shape: tuple[int, ...] = (), context: Tensor | None = None) -> Tensor:
        shape = self._shape(sample_shape, context)
        batch = shape[: len(shape) - len(self.event_shape)]
        if context is not None:
            context = context.expand(*batch, -1).reshape(-1, context.shape[-1])
        count = batch.numel()
        choice = torch.multinomial(self.weights, count, replacement=True) if count else self.weights.new_zeros(0)
        draws = []
        places = [(choice == k).nonzero().squeeze(-1) for k in range(len(self.flows))]
        for flow, place in zip(self._flows(), places, strict=True):
            one = flow.rsample(len(place)) if context is None else flow.rsample((), context[place])
            draws.append(one)
        return torch.cat(draws)[torch.cat(places).argsort()].reshape(shape)

    def _flows(self) -> list[Flow]:
        return list(self.flows)  # type: ignore[arg-type]
