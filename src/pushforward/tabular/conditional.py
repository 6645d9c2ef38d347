"""Densities of some columns, given the others or whatever they are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pushforward.tabular.columns import Name
from pushforward.tabular.given import PROPOSALS, Completion, Weighted
from pushforward.tabular.schema import Encoded, Schema

EVIDENCE_DRAWS = 20_000
NOISE = 8  # draws of the noise that stands for what is rounded or missing
BLOCK = 512  # rows completed at once


@dataclass(frozen=True)
class Conditional:
    """The density of some columns given values of the others, made by `DataFit.conditional`.

    Draws of the model teach a proposal; its draws, weighted by the model, are of the conditional density but for a
    Monte Carlo error.

    Attributes:
        schema: of the columns that are not given.
        given: the values.
        log_evidence: log-density of the given values, nats, in the units of the table.
        error: the standard error of `log_evidence`, and so of every `log_prob`, nats.
        ess: the effective share of the draws, of 1.
    """

    schema: Schema
    given: Mapping[Name, Any]
    log_evidence: float
    error: float
    ess: float
    _whole: Schema
    _weighted: Weighted
    _completion: Completion
    _context: Tensor | None

    @classmethod
    def of(
        cls, whole: Schema, given: Mapping[Name, Any], completion: Completion, context: Tensor | None
    ) -> Conditional:
        """Weigh the draws of a completion for the given values.

        Raises:
            ValueError: the values have probability zero.
        """
        table = {name: [value] * EVIDENCE_DRAWS for name, value in given.items()}
        rows = whole.subset(given).encode(table)
        if not bool(rows.inside.all()):
            raise ValueError(f"conditional: the values {dict(given)} are outside the support")
        c, u = spread(whole, completion, rows)
        y = None if context is None else context.expand(EVIDENCE_DRAWS, -1)
        weighted = completion(c, u, y, 1)
        # One row of many draws, each with its own noise for what is rounded.
        log_weights = weighted.log_weights + rows.log_jacobian[:, None]
        weighted = Weighted(*(part.transpose(0, 1) for part in weighted._replace(log_weights=log_weights)))
        if not bool((log_weights > -math.inf).any()):
            raise ValueError(f"conditional: the values {dict(given)} have density zero")
        rest = [name for name in whole.kinds if name not in given]
        return cls(
            whole.subset(rest),
            given,
            weighted.log_mean.item(),
            weighted.error.item(),
            weighted.ess.item(),
            whole,
            weighted,
            completion,
            context,
        )

    def sample(self, n: int, *, seed: int | None = None) -> Any:
        """Draws of the columns that are not given, as a table of the form that was fitted."""
        with torch.random.fork_rng(devices=[], enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            c, u = self._weighted.pick(n)
        rest = self._completion.rest.of(c[0], u[0])
        return self.schema.decode(*rest)

    def log_prob(self, data: Any, *, draws: int = 16, seed: int = 0) -> Tensor:
        """log p(columns | given) in nats, `(n,)`, with the standard error `error`.

        Args:
            data: a table with the columns that are not given.
            draws: of the noise that stands for what is rounded or missing.
            seed: of the noise.
        """
        generator = torch.Generator().manual_seed(seed)
        given = self._whole.subset(self.given)
        terms = []
        for _ in range(draws):
            rest = self.schema.encode(data, generator)
            n = len(rest.inside)
            fixed = given.encode({name: [value] * n for name, value in self.given.items()}, generator)
            c, u = spread(self._whole, self._completion, fixed, rest)
            y = None if self._context is None else self._context.expand(n, -1)
            value = self._completion.model.log_prob(c, u, y) + fixed.log_jacobian + rest.log_jacobian
            terms.append(torch.where(rest.inside, value, -math.inf))
        return torch.stack(terms).logsumexp(0) - math.log(draws) - self.log_evidence


@dataclass(frozen=True)
class Marginal:
    """The density of some columns, whatever the others are, made by `DataFit.marginal`.

    Attributes:
        schema: of these columns.
    """

    whole: Schema
    schema: Schema
    _completion: Completion
    _context: Tensor | None

    def sample(self, n: int, *, seed: int | None = None) -> Any:
        """Draws of these columns, as a table of the form that was fitted: rows of the model without the others."""
        with torch.random.fork_rng(devices=[], enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            y = None if self._context is None else self._context.expand(n, -1)
            c, u = self._completion.model.sample(n, y)
        return self.schema.decode(*self._completion.given.of(c, u))

    def log_prob(self, data: Any, *, draws: int = PROPOSALS, seed: int = 0) -> tuple[Tensor, Tensor]:
        """log p(columns) in nats, and its standard error by importance sampling; both `(n,)`.

        Args:
            data: a table with these columns.
            draws: of the other columns, for each row.
            seed: of the draws.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            generator = torch.Generator().manual_seed(seed)
            passes = 1 if self.schema.exact else NOISE
            parts = []
            for _ in range(passes):
                rows = self.schema.encode(data, generator)
                c, u = spread(self.whole, self._completion, rows)
                blocks = torch.arange(len(c)).split(BLOCK)
                log_weights = torch.cat([self._weights(c[block], u[block], draws // passes) for block in blocks])
                parts.append(log_weights + torch.where(rows.inside, rows.log_jacobian, -math.inf).unsqueeze(-1))
        weighted = Weighted(c, u, torch.cat(parts, dim=1))
        return weighted.log_mean, weighted.error

    def _weights(self, c: Tensor, u: Tensor, draws: int) -> Tensor:
        y = None if self._context is None else self._context.expand(len(c), -1)
        return self._completion(c, u, y, draws).log_weights


def spread(whole: Schema, completion: Completion, given: Encoded, rest: Encoded | None = None) -> tuple[Tensor, Tensor]:
    """The coordinates of given columns, and of the rest, at their places in whole rows; zeros where nothing is said."""
    n = len(given.inside)
    c = torch.zeros(n, len(whole.levels), dtype=torch.int64)
    u = torch.zeros(n, whole.features, dtype=torch.float64)
    for places, part in ((completion.given, given), (completion.rest, rest)):
        if part is not None:
            c[:, list(places.c)], u[:, list(places.u)] = part.discrete, part.continuous
    return c, u
