"""Some coordinates of a row given the others: importance sampling with proposals learnt from the model's own draws."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pushforward.tabular.row_model import RowModel, fit_rows, given_states

ROWS = 20_000  # drawn from the model to learn from
PROPOSALS = 64  # for each row that is completed
LEARN_SECONDS = 5.0
TRIES = 20  # times as many are drawn where few are accepted


@dataclass(frozen=True)
class Places:
    """Which coordinates are meant: places among the discrete ones, and among the continuous ones."""

    c: tuple[int, ...]
    u: tuple[int, ...]

    def of(self, c: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        return c[:, list(self.c)], u[:, list(self.u)]

    def others(self, model: RowModel) -> Places:
        c = tuple(i for i in range(len(model.levels)) if i not in self.c)
        return Places(c, tuple(i for i in range(model.features) if i not in self.u))


class Weighted(NamedTuple):
    """Completed rows, `draws` for each given one.

    Attributes:
        c: `(n, draws, len(levels))`.
        u: `(n, draws, features)`.
        log_weights: `(n, draws)`; the mean of their exponentials over draws estimates the density of what was given.
    """

    c: Tensor
    u: Tensor
    log_weights: Tensor

    @property
    def log_mean(self) -> Tensor:
        """log of the density of what was given, nats, `(n,)`."""
        return self.log_weights.logsumexp(1) - math.log(self.log_weights.shape[1])

    @property
    def error(self) -> Tensor:
        """The standard error of `log_mean`, `(n,)`."""
        weights = (self.log_weights - self.log_weights.amax(1, keepdim=True)).exp()
        return weights.std(1) / weights.mean(1) / math.sqrt(weights.shape[1])

    @property
    def ess(self) -> Tensor:
        """The effective share of the draws, of 1, `(n,)`."""
        weights = self.log_weights.softmax(1)
        return 1 / (weights.square().sum(1) * weights.shape[1])

    def pick(self, n: int) -> tuple[Tensor, Tensor]:
        """n of the draws for each row, by their weights: `(rows, n, len(levels))` and `(rows, n, features)`."""
        index = torch.multinomial(self.log_weights.softmax(1), n, replacement=True).unsqueeze(-1)
        return self.c.gather(1, index.expand(-1, -1, self.c.shape[-1])), self.u.gather(
            1, index.expand(-1, -1, self.u.shape[-1])
        )


class Completion(ABC):
    """Completes rows of which some coordinates are given.

    Args:
        model: of whole rows.
        given: the coordinates that are given.
    """

    def __init__(self, model: RowModel, given: Places) -> None:
        self.model = model
        self.given = given
        self.rest = given.others(model)

    @torch.no_grad()
    def __call__(self, c: Tensor, u: Tensor, context: Tensor | None, draws: int) -> Weighted:
        """Draws of the coordinates that are not given.

        Args:
            c: states, `(n, len(levels))`; those that are not given are not looked at.
            u: `(n, features)`; the same.
            context: of the model, `(n, context_features)`.
            draws: for each row.
        """
        shape = (len(c), draws)
        c, u = c.repeat_interleave(draws, 0), u.repeat_interleave(draws, 0)
        context = None if context is None else context.repeat_interleave(draws, 0)
        return Weighted(*(part.unflatten(0, shape) for part in self._complete(c, u, context)))

    @abstractmethod
    def _complete(self, c: Tensor, u: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Each row completed once, and its log-weight."""


class OwnCompletion(Completion):
    """By the model's own order: the first discrete coordinates are given, and all that comes after them is drawn.

    All weights of a row are equal: they are the density of what was given, without a Monte Carlo error.
    """

    def _complete(self, c: Tensor, u: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        log_weights = torch.zeros(len(c), dtype=torch.float64)
        if self.model.discrete is not None:
            c, log_weights = self.model.discrete.complete(c[:, : len(self.given.c)], context)
        if self.model.continuous is not None:
            u = self.model.sample_continuous(c, context)
        return c, u, log_weights


class LearnedCompletion(Completion):
    """By a proposal, whose draws are weighted by the model.

    Args:
        model: of whole rows.
        given: the coordinates that are given.
        proposal: of the others, whose context are the given states one-hot, the given continuous coordinates, and the
            context of the model after them; None if there are no others.
    """

    def __init__(self, model: RowModel, given: Places, proposal: RowModel | None) -> None:
        super().__init__(model, given)
        self.proposal = proposal

    def _complete(self, c: Tensor, u: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        log_q = torch.zeros(len(c), dtype=torch.float64)
        if self.proposal is not None:
            seen = seen_by_proposal(self.model, self.given, c, u, context)
            new_c, new_u = self.proposal.sample(len(c), seen)
            log_q = self.proposal.log_prob(new_c, new_u, seen)
            c[:, list(self.rest.c)], u[:, list(self.rest.u)] = new_c, new_u
        return c, u, self.model.log_prob(c, u, context) - log_q


def seen_by_proposal(model: RowModel, given: Places, c: Tensor, u: Tensor, context: Tensor | None) -> Tensor | None:
    """What a proposal is conditional on, `(n, k)`; None if nothing is given."""
    states, numbers = given.of(c, u)
    levels = tuple(model.levels[i] for i in given.c)
    parts = [part for part in (numbers, context) if part is not None and part.shape[-1]]
    return given_states(states, levels, torch.cat(parts, dim=-1) if parts else None)


def completion_for(
    model: RowModel, given: Places, context: Tensor | None, forbidden: Sequence[tuple[int, int]]
) -> Completion:
    """By the model's own order if that allows it, else by a proposal that learns from draws of the model.

    Args:
        model: of whole rows.
        given: the coordinates that will be given.
        context: rows of a context of the model; the proposal is for these.
        forbidden: pairs of a discrete coordinate and a state that it must not have.
    """
    if not given.u and given.c == tuple(range(len(given.c))):
        return OwnCompletion(model, given)
    rest = given.others(model)
    if not rest.c and not rest.u:
        return LearnedCompletion(model, given, None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        c, u, y = own_draws(model, context, forbidden)
    seen = seen_by_proposal(model, given, c, u, y)
    levels = tuple(model.levels[i] for i in rest.c)
    fitted = fit_rows(*rest.of(c, u), levels, seen, quality="fast", max_seconds=LEARN_SECONDS, progress=False)
    return LearnedCompletion(model, given, fitted.model)


@torch.no_grad()
def own_draws(
    model: RowModel, context: Tensor | None, forbidden: Sequence[tuple[int, int]]
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Draws of the model to learn proposals from, at most 20,000, with their contexts.

    Args:
        model: of whole rows.
        context: rows of a context, of which each draw gets one.
        forbidden: pairs of a discrete coordinate and a state that it must not have.
    """
    kept: list[tuple[Tensor, Tensor, Tensor | None]] = []
    count = 0
    for _ in range(TRIES):
        y = None if context is None else context[torch.randint(len(context), (ROWS,))]
        c, u = model.sample(ROWS, y)
        fine = torch.ones(ROWS, dtype=torch.bool)
        for place, state in forbidden:
            fine &= c[:, place] != state
        kept.append((c[fine], u[fine], None if y is None else y[fine]))
        count += int(fine.sum())
        if count >= ROWS:
            break
    c, u = (torch.cat([part[i] for part in kept])[:ROWS] for i in (0, 1))  # type: ignore[misc]
    y = None if context is None else torch.cat([part[2] for part in kept])[:ROWS]  # type: ignore[misc]
    return c, u, y
