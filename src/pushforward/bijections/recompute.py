"""A composition that forgets what lies between its layers, and computes it again for the gradient."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pushforward.bijections.base import Bijection, Direction
from pushforward.numerics import is_traced, pull_back, pull_back_with_graph, sum_rightmost


@dataclass
class Step:
    """A layer in one direction; `excess` is how many of its last batch dimensions belong to the whole's event."""

    layer: Bijection
    direction: Direction
    excess: int

    def __call__(self, value: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        apply = self.layer if self.direction == "forward" else self.layer.inverse
        value, log_det = apply(value, context if self.layer.context_features else None)
        return value, sum_rightmost(log_det, self.excess)

    def with_parameters(
        self, value: Tensor, context: Tensor | None, parameters: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The same with given parameters: by the time of the gradient, those of the layer may be others."""
        names = [f"layer.{name}" for name, _ in self.layer.named_parameters()]
        given = dict(zip(names, parameters, strict=True))
        # Copies, so that running statistics do not move twice.
        given |= {f"layer.{name}": buffer.clone() for name, buffer in self.layer.named_buffers()}
        outputs: tuple[Tensor, Tensor] = functional_call(_StepModule(self), given, (value, context))
        return outputs

    @torch.no_grad()
    def undo(self, value: Tensor, context: Tensor | None, parameters: Sequence[Tensor]) -> Tensor:
        back: Direction = "inverse" if self.direction == "forward" else "forward"
        return replace(self, direction=back).with_parameters(value, context, parameters)[0]


class _StepModule(nn.Module):
    def __init__(self, step: Step) -> None:
        super().__init__()
        self.layer = step.layer
        self.step = step

    def forward(self, value: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.step(value, context)


def compose(
    steps: Iterable[Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]], value: Tensor, context: Tensor | None
) -> tuple[Tensor, Tensor]:
    """One step after the other, and the sum of their log-determinants.

    Args:
        steps: first to last, as `Step`.
        value: shape `(*batch, *event)`.
        context: shape `(*batch, context_features)`; steps that take none are not given any.
    """
    total: Tensor | None = None
    for step in steps:
        value, log_det = step(value, context)
        total = log_det if total is None else total + log_det
    return value, value.new_zeros(value.shape) if total is None else total


def recompose(steps: Sequence[Step], value: Tensor, context: Tensor | None, *, stride: int) -> tuple[Tensor, Tensor]:
    """`compose` that keeps the value before every `stride`-th step alone, and computes the rest again when it must.

    For the gradient each step is applied once more, to its value: the one that was kept, or else the inverse of what
    came out. Where a compiler or a function transform has to see the operations, it is `compose`.
    """
    if not steps or not torch.is_grad_enabled() or is_traced():
        return compose(steps, value, context)
    parameters = [p for step in steps for p in step.layer.parameters()]
    x, log_det = _Recomputed.apply(steps, stride, value, context, *parameters)  # type: ignore[no-untyped-call]
    return x, log_det


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, steps: Sequence[Step], stride: int, z: Tensor, context: Tensor | None, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        kept: list[Tensor] = []
        ctx.random_states = [_random_state(z)]
        x = z.view_as(z)
        total: Tensor | None = None
        for k, step in enumerate(steps):
            if k and k % stride == 0:
                kept.append(x)
            x, log_det = step(x, context)
            total = log_det if total is None else total + log_det
            state = _random_state(z)
            last = ctx.random_states[-1]
            ctx.random_states.append(last if torch.equal(state, last) else state)
        ctx.steps, ctx.stride = steps, stride
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(z, context, x, *parameters, *kept)
        assert total is not None
        return x, total

    @staticmethod
    def backward(ctx: Any, grad_x: Tensor | None, grad_log_det: Tensor | None) -> tuple[Tensor | None, ...]:
        z, context, x, *saved = ctx.saved_tensors
        ends = [0, *itertools.accumulate(_count(step) for step in ctx.steps)]
        kept = [z, *saved[ends[-1] :]]
        if torch.is_grad_enabled():  # a graph of the gradient is asked for
            again = partial(_compose_again, ctx.steps, ctx.random_states, ends)
            whole = (z, context, *saved[: ends[-1]])
            return None, None, *pull_back_with_graph(again, whole, (grad_x, grad_log_det))
        grad_context: Tensor | None = None
        grads: list[Tensor | None] = []
        for k, step in reversed(list(enumerate(ctx.steps))):
            parameters = saved[ends[k] : ends[k + 1]]
            if k % ctx.stride == 0:
                x = kept[k // ctx.stride]
            else:
                with _from_random_state(ctx.random_states[k], x):
                    x = step.undo(x, context, parameters)
            inputs = [x.detach().requires_grad_(), *(_like(part) for part in (context, *parameters))]
            with torch.enable_grad(), _from_random_state(ctx.random_states[k], x):
                outputs = step.with_parameters(inputs[0], inputs[1], inputs[2:])
            grad_x, more, *own = pull_back(outputs, (grad_x, grad_log_det), inputs)
            grads = own + grads
            if more is not None:
                grad_context = more if grad_context is None else grad_context + more
        return None, None, grad_x, grad_context, *grads


def _compose_again(
    steps: Sequence[Step],
    random_states: Sequence[Tensor],
    ends: Sequence[int],
    value: Tensor,
    context: Tensor | None,
    *parameters: Tensor,
) -> tuple[Tensor, Tensor]:
    """`compose` with given parameters, of which step k has those from ends[k] to ends[k + 1], and the same draws."""
    log_dets = []
    for step, state, (a, b) in zip(steps, random_states[:-1], itertools.pairwise(ends), strict=True):
        with _from_random_state(state, value):
            value, log_det = step.with_parameters(value, context, parameters[a:b])
        log_dets.append(log_det)
    return value, sum(log_dets[1:], log_dets[0])


def _count(step: Step) -> int:
    return sum(1 for _ in step.layer.parameters())


def _like(value: Tensor | None) -> Tensor | None:
    """The value as a leaf."""
    return None if value is None else value.detach().requires_grad_(value.requires_grad)


def _random_state(like: Tensor) -> Tensor:
    return torch.cuda.get_rng_state(like.device) if like.is_cuda else torch.get_rng_state()


@contextmanager
def _from_random_state(state: Tensor, like: Tensor) -> Iterator[None]:
    """Draw once more what was drawn from this state on."""
    with torch.random.fork_rng(devices=[like.device] if like.is_cuda else []):
        if like.is_cuda:
            torch.cuda.set_rng_state(state, like.device)
        else:
            torch.set_rng_state(state)
        yield
