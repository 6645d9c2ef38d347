"""The four operations, the same for every torch library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.speed.cases import Case, data

Array = np.ndarray[Any, Any]
Score = Callable[[Tensor], Tensor]


class TorchModel:
    """A flow of any torch library, as functions.

    Args:
        case: what it was built for.
        module: holds the parameters.
        log_prob: of points, or None if the library scores nothing but its own draws.
        sample: draws, under `no_grad`.
        rsample_and_log_prob: differentiable draws and their log-density.
        score_draws: the log-density that belongs to `rsample_and_log_prob`, if it is not `log_prob`.
        exact: switches an estimated log-determinant to the exact one and back, for the checks.
        estimates: the log-determinant cannot be made exact.
        remark: what a reader should know.
        unequal: operations in which the work is not the same, which are therefore not ranked.
        compile: compiles the model in place, after the checks, whose batches are of other sizes.
        step: makes the library's own step of Adam, fused, by a batch, on the mean of -log_prob.
    """

    def __init__(
        self,
        case: Case,
        module: nn.Module,
        *,
        log_prob: Score | None,
        sample: Callable[[int], Tensor],
        rsample_and_log_prob: Callable[[int], tuple[Tensor, Tensor]],
        score_draws: Score | None = None,
        exact: Callable[[bool], None] = lambda on: None,
        estimates: bool = False,
        remark: str = "",
        unequal: tuple[str, ...] = (),
        compile: Callable[[], object] | None = None,
        step: Callable[[], Callable[[Tensor], object]] | None = None,
    ) -> None:
        self.case = case
        self.module = module
        self.estimates = estimates
        self.remark = remark
        self.unequal = unequal
        self.compile = None if compile is None else self._compiled_by(compile)
        self._make_step = step or (lambda: self._usual_step)
        self.exact = exact
        self._log_prob = log_prob
        self._score_draws = score_draws or log_prob
        self._sample = sample
        self._rsample_and_log_prob = rsample_and_log_prob
        self._trained = [p for p in module.parameters() if p.requires_grad]
        self.parameters = sum(p.numel() for p in self._trained)
        self._x = torch.from_numpy(data(case))

    @cached_property
    def _optimizer(self) -> torch.optim.Optimizer:
        """Made when first used, as that imports torch's compiler: seconds that no density needs."""
        return adam(self._trained)

    def _compiled_by(self, compile: Callable[[], object]) -> Callable[[], None]:
        def compiled() -> None:
            compile()
            self.__dict__.pop("_step", None)  # made before, it would stay as it was

        return compiled

    def operation(self, name: str) -> Callable[[], object]:
        return {
            "train": self._train,
            "log_prob": self._evaluate,
            "sample": self._draw,
            "reverse_kl": self._reverse_kl,
        }[name]

    @cached_property
    def _step(self) -> Callable[[Tensor], object]:
        return self._make_step()

    def _usual_step(self, x: Tensor) -> None:
        assert self._log_prob is not None
        self._optimizer.zero_grad()
        loss = -self._log_prob(x).mean()
        loss.backward()
        self._optimizer.step()

    def _train(self) -> None:
        self._step(self._x)

    def _evaluate(self) -> None:
        assert self._log_prob is not None
        with torch.no_grad():
            self._log_prob(self._x)

    def _draw(self) -> None:
        with torch.no_grad():
            self._sample(self.case.batch)

    def _reverse_kl(self) -> None:
        self._optimizer.zero_grad()
        x, log_q = self._rsample_and_log_prob(self.case.batch)
        loss = (log_q + 0.5 * (x - 1).square().sum(-1)).mean()
        loss.backward()
        self._optimizer.step()

    @torch.no_grad()
    def log_prob(self, x: Array) -> Array | None:
        return None if self._log_prob is None else self._log_prob(torch.from_numpy(x)).numpy()

    @torch.no_grad()
    def score_draws(self, x: Array) -> Array | None:
        return None if self._score_draws is None else self._score_draws(torch.from_numpy(x)).numpy()

    @torch.no_grad()
    def sample(self, n: int) -> Array:
        return self._sample(n).numpy()

    @torch.no_grad()
    def draw(self, n: int) -> tuple[Array, Array]:
        x, log_q = self._rsample_and_log_prob(n)
        return x.numpy(), log_q.numpy()


def adam(parameters: Sequence[Tensor]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-3, fused=True)


def mlp(inputs: int, outputs: int, hidden: tuple[int, ...]) -> nn.Sequential:
    """The conditioner of the libraries that leave it to the user."""
    widths = [inputs, *hidden]
    layers: list[nn.Module] = []
    for n, m in pairwise(widths):
        layers += [nn.Linear(n, m), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], outputs))


class Conditioner(nn.Module):
    """The same for libraries that call it with a context, which is None."""

    def __init__(self, inputs: int, outputs: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.network = mlp(inputs, outputs, hidden)

    def forward(self, x: Tensor, context: None = None) -> Tensor:
        return self.network(x)


def halves(features: int, k: int) -> list[bool]:
    """Which features coupling k passes: the first half, or the second."""
    return [(i < features // 2) == (k % 2 == 0) for i in range(features)]
