"""Distributions of vectors of states, and states as numbers for a network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pushforward.flow import Shape
from pushforward.io import register
from pushforward.nn import MaskedMLP
from pushforward.numerics import broadcast_batch

SMOOTHING = 0.5  # rows that each state is given beyond those that have it
MANY, FEW = 32, 16


@register
class AutoregressiveCategorical(nn.Module):
    r"""$p(c | \text{context}) = \prod_i p(c_i | c_1, \dots, c_{i-1}, \text{context})$, each factor a softmax.

    A masked network sees the states of the earlier coordinates one-hot. It starts at the frequencies of the rows that
    it is initialized with, all coordinates independent. Called, it is `log_prob`, so that `MaximumLikelihood` trains
    it; it is not a `Flow`, since states have probabilities and no density.

    Args:
        levels: how many states each coordinate has.
        context_features: size of the context.
        hidden_features: widths of the hidden layers, at least one.

    Raises:
        ValueError: if there is no coordinate, or one without a state.

    Reference:
        Germain et al., MADE: Masked Autoencoder for Distribution Estimation, 2015, arXiv 1502.03509.

    Example:
        >>> from pushforward.tabular.discrete import AutoregressiveCategorical
        >>> _ = torch.manual_seed(0)
        >>> c = torch.tensor([[0, 0], [1, 2]]).repeat(200, 1)
        >>> model = AutoregressiveCategorical(levels=(2, 3))
        >>> result = pf.train(pf.MaximumLikelihood(model), c, max_steps=300, learning_rate=0.01)
        >>> model.log_prob(torch.tensor([[0, 0], [0, 2]])).exp().detach().round(decimals=2)
        tensor([0.5000, 0.0000])
    """

    sizes: Tensor
    started: Tensor

    def __init__(
        self, levels: Sequence[int], *, context_features: int = 0, hidden_features: Sequence[int] = (64, 64)
    ) -> None:
        super().__init__()
        if not levels or min(levels) < 1:
            raise ValueError(
                f"AutoregressiveCategorical: expected coordinates of one state or more, got levels={tuple(levels)}"
            )
        self.levels = tuple(levels)
        self.event_shape = (len(self.levels),)
        self.context_features = context_features
        self.hidden_features = tuple(hidden_features)
        self.network = MaskedMLP(
            len(self.levels),
            self.levels,
            self.hidden_features,
            context_features=context_features,
            in_sizes=self.levels,
        )
        self.network.start_at_(torch.zeros(sum(self.levels)))
        self.one_hot = OneHot(self.levels)
        self.register_buffer("sizes", torch.tensor(self.levels), persistent=False)
        self.register_buffer("started", torch.tensor(False))

    def forward(self, c: Tensor, context: Tensor | None = None) -> Tensor:
        """`log_prob`."""
        self._check_context(context)
        if c.dim() < 1 or tuple(c.shape[-1:]) != self.event_shape:
            raise ValueError(
                f"AutoregressiveCategorical: expected c with trailing shape {self.event_shape}, got {tuple(c.shape)}"
            )
        c, context = broadcast_batch(c.long(), context)
        inside = ((c >= 0) & (c < self.sizes)).all(-1)
        c = torch.where(inside.unsqueeze(-1), c, 0)
        logits = self.network(self.one_hot(c), context).split(self.levels, dim=-1)
        terms = [h.log_softmax(-1).gather(-1, c[..., i : i + 1]) for i, h in enumerate(logits)]
        return torch.where(inside, torch.cat(terms, dim=-1).sum(-1), -torch.inf)

    def log_prob(self, c: Tensor, context: Tensor | None = None) -> Tensor:
        """log p(c | context) in nats.

        Args:
            c: states 0, 1, ..., of any dtype, shape `(*batch, len(levels))`.
            context: shape `(*batch, context_features)`; broadcasts against the batch of `c`.

        Returns:
            shape `(*batch,)`; -inf for states that do not exist.
        """
        log_prob: Tensor = self(c, context)
        return log_prob

    @torch.no_grad()
    def sample(self, sample_shape: Shape = (), context: Tensor | None = None) -> Tensor:
        """Draws.

        Args:
            sample_shape: draws per context, a number or a shape.
            context: shape `(*batch, context_features)`.

        Returns:
            int64, shape `(*sample_shape, *batch, len(levels))`.
        """
        self._check_context(context)
        shape = (sample_shape,) if isinstance(sample_shape, int) else tuple(sample_shape)
        if context is not None:
            context = context.expand(*shape, *context.shape)
            shape = tuple(context.shape[:-1])
        return self._generate(torch.empty(*shape, 0, dtype=torch.int64), context)[0]

    @torch.no_grad()
    def complete(self, first: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Draws whose first coordinates are given.

        Args:
            first: states of the first k coordinates, `(*batch, k)`.
            context: shape `(*batch, context_features)`.

        Returns:
            int64, shape `(*batch, len(levels))`, and log p(first | context), `(*batch,)`.
        """
        self._check_context(context)
        return self._generate(first.long(), context)

    def _generate(self, first: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """One coordinate after the other: the given ones, with their log-probability, and then draws."""
        columns: list[Tensor] = []
        log_prob = self.one_hot.like.new_zeros(first.shape[:-1])

        def emit(i: int, logits: Tensor) -> Tensor:
            nonlocal log_prob
            if i < first.shape[-1]:
                columns.append(first[..., i])
                log_prob = log_prob + logits.log_softmax(-1).gather(-1, columns[-1].unsqueeze(-1)).squeeze(-1)
            else:
                gumbel = -torch.empty_like(logits).exponential_().log()
                columns.append((logits + gumbel).argmax(-1))
            return nn.functional.one_hot(columns[-1], self.levels[i]).to(logits)

        self.network.sequentially(emit, self.one_hot.like.new_empty(*first.shape[:-1], 0), context)
        return torch.stack(columns, dim=-1), log_prob

    @torch.no_grad()
    def initialize(self, c: Tensor, context: Tensor | None = None, weights: Tensor | None = None) -> None:
        """Start at the smoothed frequencies of rows `c`, `(n, len(levels))`; only the first call has an effect.

        Args:
            c: states.
            context: is not looked at.
            weights: shape `(n,)`, of the rows; by default all 1.
        """
        if bool(self.started):
            return
        counts = [
            torch.bincount(column.long(), weights, minlength=n).to(self.one_hot.like)
            for column, n in zip(c.unbind(-1), self.levels, strict=True)
        ]
        frequencies = [(k + SMOOTHING) / (k + SMOOTHING).sum() for k in counts]
        self.network.start_at_(torch.cat(frequencies).log())
        self.started.fill_(True)

    def _check_context(self, context: Tensor | None) -> None:
        size = context.shape[-1] if context is not None else 0
        if size != self.context_features:
            raise ValueError(
                f"AutoregressiveCategorical: expected a context with trailing shape ({self.context_features},), "
                f"got {'none' if context is None else tuple(context.shape)}"
            )


@register
class StateEmbedding(nn.Module):
    """Vectors of states as vectors of numbers: the context of a flow that depends on them.

    Each coordinate is one-hot, or, if it has more than 32 states, the row of a learned table of 16 numbers for each.

    Args:
        levels: how many states each coordinate has.

    Attributes:
        features: how many numbers it makes.

    Example:
        >>> from pushforward.tabular.discrete import StateEmbedding
        >>> embedding = StateEmbedding(levels=(2, 3))
        >>> embedding(torch.tensor([[1, 2]]))
        tensor([[0., 1., 0., 0., 1.]])
        >>> flow = pf.maf(features=4, context_features=embedding.features)
        >>> flow = pf.Flow(flow.bijection, flow.base, embedding=embedding)
        >>> flow.log_prob(torch.zeros(4), torch.tensor([1, 2])).shape
        torch.Size([])
    """

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        self.levels = tuple(levels)
        few = [i for i, n in enumerate(self.levels) if n <= MANY]
        self.many = [i for i, n in enumerate(self.levels) if n > MANY]
        self.one_hot = OneHot([self.levels[i] for i in few], few)
        self.tables = nn.ModuleList([nn.Embedding(self.levels[i], FEW) for i in self.many])
        self.features = sum(self.levels[i] for i in few) + FEW * len(self.many)

    def forward(self, c: Tensor) -> Tensor:
        """Shape `(*batch, features)`, of the dtype of the flow, of states `(*batch, len(levels))`."""
        c = c.long()
        tables = [table(c[..., i]) for i, table in zip(self.many, self.tables, strict=True)]
        return torch.cat([self.one_hot(c), *tables], dim=-1)


class OneHot(nn.Module):
    """For each coordinate as many numbers as it has states, side by side: 1 for its state, 0 for the others.

    Args:
        levels: how many states each coordinate has.
        coordinates: where these are in the input; by default one after the other.

    Example:
        >>> OneHot(levels=(2, 3))(torch.tensor([1, 0]))
        tensor([0., 1., 1., 0., 0.])
    """

    index: Tensor
    state: Tensor
    like: Tensor

    def __init__(self, levels: Sequence[int], coordinates: Sequence[int] | None = None) -> None:
        super().__init__()
        coordinates = range(len(levels)) if coordinates is None else coordinates
        index = [i for i, n in zip(coordinates, levels, strict=True) for _ in range(n)]
        self.register_buffer("index", torch.tensor(index, dtype=torch.int64), persistent=False)
        self.register_buffer(
            "state", torch.tensor([k for n in levels for k in range(n)], dtype=torch.int64), persistent=False
        )
        self.register_buffer("like", torch.zeros(()), persistent=False)

    def forward(self, c: Tensor) -> Tensor:
        """Shape `(*batch, sum(levels))`, of states, int64, `(*batch, n)`."""
        return (c.index_select(-1, self.index) == self.state).to(self.like)
