"""Ordinary differential equations by explicit Runge-Kutta schemes, with gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

Method = Literal["midpoint", "rk4", "rk8", "dopri5"]
State = tuple[Tensor, ...]
Dynamics = Callable[..., Sequence[Tensor]]

# Step control, with the usual constants for order 5: the exponents of the PI controller, safety, and limits of change.
PROPORTIONAL, INTEGRAL = 0.17, 0.04
SAFETY, SHRINK, GROW = 0.9, 0.2, 5.0


class SolverError(RuntimeError, FloatingPointError):
    """An ordinary differential equation could not be solved; the message says why and what to do."""


def solve_ode(
    function: Dynamics,
    state: Sequence[Tensor],
    start: float,
    end: float,
    *,
    integrals: int = 0,
    inputs: Sequence[Tensor] = (),
    parameters: Sequence[Tensor] = (),
    method: Method = "dopri5",
    steps: int = 16,
    rtol: float = 1e-6,
    atol: float = 1e-6,
    max_steps: int = 10_000,
    adjoint: bool = False,
) -> State:
    r"""y(end) of $dy/dt = f(t, y)$ from y(start), forward or backward in time, in the dtype and on the device of y.

    The fixed-step schemes take `steps` equal steps: "midpoint" (order 2, 2 evaluations a step), "rk4" (order 4, 4),
    "rk8" (Cooper and Verner's, order 8, 11). "dopri5" (Dormand and Prince's pair of orders 5 and 4, 6) chooses its
    steps, the same ones for the whole batch, so that the estimated error of a step is at most
    `atol + rtol * |y|` in the worst element: so every row keeps to the tolerance whatever rows stand beside it, though
    how far it stays below depends on them. A tolerance below 32 units of rounding is taken as that.

    Gradients reach the state, `inputs`, and all that `function` closes over, through the accepted steps, of any order;
    step sizes count as constants. With `adjoint`, the gradient instead solves the adjoint equation back from `end`:
    memory does not grow with the steps, but gradients are of first order only, are as good as the tolerance, and reach
    only the state, `inputs` and `parameters`.

    Args:
        function: f, called as `function(t, *state, *inputs)` with a float t; one derivative per tensor of the state.
        state: y(start), tensors of any shapes and of one dtype.
        start, end: times.
        integrals: how many tensors at the end of the state are mere integrals, which f does not look at.
        inputs: tensors that f depends on, such as a context.
        parameters: what else the adjoint's gradients should reach.
        method: the scheme.
        steps: number of steps of a fixed-step scheme.
        rtol, atol: tolerances of "dopri5".
        max_steps: the most steps that "dopri5" may try.
        adjoint: how to differentiate.

    Returns:
        y(end), shaped as `state`.

    Raises:
        SolverError: a `RuntimeError`, if the state is not finite, or "dopri5" does not reach `end`.
        RuntimeError: in the backward pass, if it asks for second derivatives with `adjoint`.

    References:
        Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, 1993.
        Cooper and Verner, Some explicit Runge-Kutta methods of high order, 1972.
        Chen et al., Neural Ordinary Differential Equations, 2018, arXiv 1806.07366 (adjoint).

    Example:
        >>> y = torch.ones(1, dtype=torch.float64)
        >>> (decayed,) = solve_ode(lambda t, y: (-y,), (y,), 0.0, 1.0, rtol=1e-10, atol=1e-10)
        >>> round(decayed.item(), 9)
        0.367879441
    """
    check_method(method, steps, rtol, atol)
    state, inputs = tuple(state), tuple(inputs)
    if start == end:
        return state
    solve: Callable[..., State]
    if method == "dopri5":
        solve = partial(_adaptive, rtol=rtol, atol=atol, max_steps=max_steps)
    else:
        solve = partial(_fixed, scheme=_SCHEMES[method], steps=steps)
    parameters = tuple(p for p in parameters if p.requires_grad)
    if adjoint and torch.is_grad_enabled() and any(v.requires_grad for v in (*state, *inputs, *parameters)):
        sizes = len(state), len(inputs), integrals
        result: State = _Adjoint.apply(  # type: ignore[no-untyped-call]
            solve, function, start, end, sizes, *state, *inputs, *parameters
        )
        return result
    return solve(lambda t, *y: function(t, *y, *inputs), state, start, end, integrals=integrals)


def check_method(method: str, steps: int, rtol: float, atol: float, owner: str = "solve_ode") -> None:
    """Raise a ValueError in the name of `owner` unless the scheme is known and its options are usable."""
    known = (*_SCHEMES, "dopri5")
    if method not in known:
        raise ValueError(f"{owner}: expected a solver among {', '.join(known)}, got {method!r}")
    if steps < 1 or not (rtol > 0 and atol > 0):
        raise ValueError(f"{owner}: expected steps >= 1, rtol > 0 and atol > 0, got {steps}, {rtol} and {atol}")


@dataclass(frozen=True)
class _Scheme:
    """A Butcher tableau; `error` holds the weights of the error estimate, the last stage then being the next first."""

    nodes: tuple[float, ...]
    stages: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]
    error: tuple[float, ...] = ()


_MIDPOINT = _Scheme((0, 1 / 2), ((), (1 / 2,)), (0, 1))

_RK4 = _Scheme((0, 1 / 2, 1 / 2, 1), ((), (1 / 2,), (0, 1 / 2), (0, 0, 1)), (1 / 6, 1 / 3, 1 / 3, 1 / 6))

_S = math.sqrt(21)
_RK8 = _Scheme(
    (0, 1 / 2, 1 / 2, (7 + _S) / 14, (7 + _S) / 14, 1 / 2, (7 - _S) / 14, (7 - _S) / 14, 1 / 2, (7 + _S) / 14, 1),
    (
        (),
        (1 / 2,),
        (1 / 4, 1 / 4),
        (1 / 7, (-7 - 3 * _S) / 98, (21 + 5 * _S) / 49),
        ((11 + _S) / 84, 0, (18 + 4 * _S) / 63, (21 - _S) / 252),
        ((5 + _S) / 48, 0, (9 + _S) / 36, (-231 + 14 * _S) / 360, (63 - 7 * _S) / 80),
        (
            (10 - _S) / 42,
            0,
            (-432 + 92 * _S) / 315,
            (633 - 145 * _S) / 90,
            (-504 + 115 * _S) / 70,
            (63 - 13 * _S) / 35,
        ),
        (1 / 14, 0, 0, 0, (14 - 3 * _S) / 126, (13 - 3 * _S) / 63, 1 / 9),
        (1 / 32, 0, 0, 0, (91 - 21 * _S) / 576, 11 / 72, (-385 - 75 * _S) / 1152, (63 + 13 * _S) / 128),
        (
            1 / 14,
            0,
            0,
            0,
            1 / 9,
            (-733 - 147 * _S) / 2205,
            (515 + 111 * _S) / 504,
            (-51 - 11 * _S) / 56,
            (132 + 28 * _S) / 245,
        ),
        (
            0,
            0,
            0,
            0,
            (-42 + 7 * _S) / 18,
            (-18 + 28 * _S) / 45,
            (-273 - 53 * _S) / 72,
            (301 + 53 * _S) / 72,
            (28 - 28 * _S) / 45,
            (49 - 7 * _S) / 18,
        ),
    ),
    (1 / 20, 0, 0, 0, 0, 0, 0, 49 / 180, 16 / 45, 49 / 180, 1 / 20),
)

_DOPRI5_WEIGHTS = (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84)
_DOPRI5 = _Scheme(
    (0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1),
    (
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        _DOPRI5_WEIGHTS,
    ),
    (*_DOPRI5_WEIGHTS, 0),
    (71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
)

_SCHEMES = {"midpoint": _MIDPOINT, "rk4": _RK4, "rk8": _RK8}


def _fixed(
    function: Dynamics, state: State, start: float, end: float, *, integrals: int, scheme: _Scheme, steps: int
) -> State:
    h = (end - start) / steps
    for k in range(steps):
        t = start + k * h
        slopes = _slopes(scheme, function, t, h, state, tuple(function(t, *state)), integrals)
        state = _moved(state, slopes, scheme.weights, h)
    if not torch.compiler.is_compiling() and not _all_finite(state):
        raise SolverError(_not_finite(end))
    return state


def _adaptive(
    function: Dynamics,
    state: State,
    start: float,
    end: float,
    *,
    integrals: int,
    rtol: float,
    atol: float,
    max_steps: int,
) -> State:
    rounding = 32 * torch.finfo(state[0].dtype).eps
    rtol, atol = max(rtol, rounding), max(atol, rounding)
    span, sign = abs(end - start), math.copysign(1.0, end - start)
    t, slope = start, tuple(function(start, *state))
    size = _first_size(function, t, sign, state, slope, rtol, atol, span)
    before = 1.0
    may_grow = True
    for _ in range(max_steps):
        remaining = abs(end - t)
        last = size >= (1 - 1e-9) * remaining
        h = sign * (remaining if last else size)
        slopes = _slopes(_DOPRI5, function, t, h, state, slope, integrals)
        moved = _moved(state, slopes, _DOPRI5.weights, h)
        error = _error(slopes, h, state, moved, rtol, atol)
        if error <= 1:
            state, slope = moved, slopes[-1]
            if last:
                return state
            t += h
            factor = SAFETY * max(error, 1e-10) ** -PROPORTIONAL * before**INTEGRAL
            size = abs(h) * min(max(factor, SHRINK), GROW if may_grow else 1.0)
            before, may_grow = max(error, 1e-4), True
        else:
            size = abs(h) * (max(SAFETY * error**-0.2, SHRINK) if math.isfinite(error) else 0.1)
            may_grow = False
            if size < 1e-14 * span:
                raise SolverError(_not_finite(t) if not math.isfinite(error) else _too_hard(t, end, size, rtol, atol))
    raise SolverError(f"{_too_hard(t, end, size, rtol, atol)} (gave up after max_steps={max_steps})")


def _slopes(
    scheme: _Scheme, function: Dynamics, t: float, h: float, state: State, first: State, integrals: int
) -> list[State]:
    """The derivative at every stage of a step from `state`; the integrals stay where they are meanwhile."""
    n = len(state) - integrals
    slopes = [first]
    for node, row in zip(scheme.nodes[1:], scheme.stages[1:], strict=True):
        point = _moved(state[:n], slopes, row, h)
        slopes.append(tuple(function(t + node * h, *point, *state[n:])))
    return slopes


def _moved(state: State, slopes: Sequence[State], weights: Sequence[float], h: float) -> State:
    """state + h * sum of weights * slopes."""
    moved = []
    for i, y in enumerate(state):
        for w, slope in zip(weights, slopes, strict=False):
            if w:
                y = torch.add(y, slope[i], alpha=h * w)
        moved.append(y)
    return tuple(moved)


@torch.no_grad()
def _error(slopes: list[State], h: float, before: State, after: State, rtol: float, atol: float) -> float:
    """The largest ratio of the estimated error of a step to its tolerance."""
    error = _moved(tuple(torch.zeros_like(y) for y in before), slopes, _DOPRI5.error, h)
    return _worst(error, before, after, rtol, atol)


@torch.no_grad()
def _worst(error: State, before: State, after: State, rtol: float, atol: float) -> float:
    """The largest ratio of an element of `error` to its tolerance; NaN if there is one."""
    ratios = []
    for e, y, y_new in zip(error, before, after, strict=True):
        ratio = _plain(e.abs() / (atol + rtol * torch.maximum(y.abs(), y_new.abs())))
        if ratio.numel():
            ratios.append(ratio.amax())
    return torch.stack(ratios).amax().item() if ratios else 0.0


@torch.no_grad()
def _first_size(
    function: Dynamics,
    t: float,
    sign: float,
    state: State,
    slope: State,
    rtol: float,
    atol: float,
    span: float,
) -> float:
    """Hairer's first step: a hundredth of the local scale, then from an estimate of the second derivative."""
    size = _worst(state, state, state, rtol, atol)
    speed = _worst(slope, state, state, rtol, atol)
    if not (math.isfinite(size) and math.isfinite(speed)):
        raise SolverError(_not_finite(t))
    h = min(0.01 * size / speed if min(size, speed) > 1e-5 else 1e-6, span)
    moved = _moved(state, [slope], [1.0], sign * h)
    slope_after = function(t + sign * h, *moved)
    difference = tuple(b - a for a, b in zip(slope, slope_after, strict=True))
    change = max(_worst(difference, state, state, rtol, atol) / h, speed)
    if not math.isfinite(change):
        return h
    return min(100 * h, (0.01 / change) ** 0.2, span) if change > 1e-9 else span


def _all_finite(state: State) -> bool:
    return bool(torch.stack([_plain(y.detach()).isfinite().all() for y in state]).all())


def _plain(value: Tensor) -> Tensor:
    """The tensor beneath the wrappers of `torch.func`, with the rows of all of its levels."""
    while torch._C._functorch.is_functorch_wrapped_tensor(value):
        value = torch._C._functorch.get_unwrapped(value)
    return value


def _not_finite(t: float) -> str:
    return (
        f"ODE solver: non-finite state at t = {t:g}; check that the input and the parameters are finite, standardise "
        "the data, or take a smaller learning rate"
    )


def _too_hard(t: float, end: float, size: float, rtol: float, atol: float) -> str:
    return (
        f"ODE solver: dopri5 stopped at t = {t:g}, before t = {end:g}, with steps of {size:.2g} for rtol={rtol:.2g} "
        f"and atol={atol:.2g}; loosen the tolerances, raise max_steps, use float64, or take a fixed-step solver"
    )


class _Adjoint(torch.autograd.Function):
    """The solution, whose gradient solves a' = -a df/dy, and the integrals of -a df/dp, from the end back."""

    @staticmethod
    def forward(
        ctx: Any,
        solve: Callable[..., State],
        function: Dynamics,
        start: float,
        end: float,
        sizes: tuple[int, int, int],
        *tensors: Tensor,
    ) -> State:
        n, m, integrals = sizes
        inputs = tensors[n : n + m]
        result = solve(lambda t, *y: function(t, *y, *inputs), tensors[:n], start, end, integrals=integrals)
        ctx.call = solve, function, start, end, sizes
        ctx.save_for_backward(*result, *tensors[n:])
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "solve_ode: the adjoint has first derivatives only; use adjoint=False for create_graph=True"
            )
        solve, function, start, end, (n, m, _) = ctx.call
        saved = ctx.saved_tensors
        final, inputs, parameters = saved[:n], saved[n : n + m], saved[n + m :]
        wanted = ctx.needs_input_grad[5 + n : 5 + n + m]

        def dynamics(t: float, *augmented: Tensor) -> State:
            with torch.enable_grad():
                y = tuple(v.detach().requires_grad_() for v in augmented[:n])
                c = tuple(v.detach().requires_grad_(w) for v, w in zip(inputs, wanted, strict=True))
                value = function(t, *y, *c)
                pairs = [(v, -a) for v, a in zip(value, augmented[n : 2 * n], strict=True) if v.requires_grad]
                variables = (*y, *(v for v in c if v.requires_grad), *parameters)
                products: Sequence[Tensor] = [torch.zeros_like(v) for v in variables]
                if pairs:
                    outputs, weights = zip(*pairs, strict=True)
                    products = torch.autograd.grad(
                        outputs, variables, weights, allow_unused=True, materialize_grads=True
                    )
            return (*(v.detach() for v in value), *products)

        passive = [v for v, w in zip(inputs, wanted, strict=True) if w] + list(parameters)
        augmented = (*final, *gradients, *(torch.zeros_like(v) for v in passive))
        solution = list(solve(dynamics, augmented, end, start, integrals=len(passive))[n:])
        own, rest = solution[:n], iter(solution[n:])
        to_inputs = [next(rest) if w else None for w in wanted]
        return (None, None, None, None, None, *own, *to_inputs, *rest)
