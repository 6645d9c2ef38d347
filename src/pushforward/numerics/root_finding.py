"""Inverses of increasing scalar functions, elementwise, with gradients."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop

GROWTH = 8.0
EXPANSIONS = 14  # a bracket found here reaches 8^14 = 4e12
Step = int | Tensor


class InversionWarning(UserWarning):
    """A numerical inverse stopped before it reached the precision of its dtype."""


def solve_increasing(
    function: Callable[[Tensor], tuple[Tensor, Tensor]],
    target: Tensor,
    lower: Tensor | None = None,
    upper: Tensor | None = None,
    *,
    start: Tensor | None = None,
    steps: int = 64,
) -> Tensor:
    r"""Solve $f(t) = y$ elementwise for an increasing $f$ of the whole line.

    The root is found without a graph, by Newton steps within a bracket that halve as fast as bisection or give way to
    it, for a fixed number of iterations, or fewer where looking at the values costs nothing. Two more Newton steps in
    the graph then carry the first and second derivatives with respect to `target` and to all that `function` closes
    over.

    Args:
        function: maps `t`, shape `(*,)`, to the value and the slope of $f$, each of shape `(*,)`.
        target: `y`, shape `(*,)`.
        lower, upper: shape `(*,)`, a bracket of the root; what is absent is found by growing steps from the target.
        start: shape `(*,)`, where to begin; by default the middle of the bracket.
        steps: number of iterations.

    Returns:
        The root `t`, shape `(*,)`, in the dtype of `target`.

    Warns:
        InversionWarning: in eager mode, with the worst residual, if the precision of the dtype was not reached.

    Example:
        >>> y = torch.tensor([0.0, 2.0], dtype=torch.float64)
        >>> t = solve_increasing(lambda t: (t + t**3, 1 + 3 * t**2), y)
        >>> t.allclose(torch.tensor([0.0, 1.0], dtype=torch.float64))
        True
    """
    with torch.no_grad():
        y = target.detach()
        if lower is None or upper is None:
            lower, upper = _find_bracket(function, y, lower, upper)
        lower, upper = lower.detach(), upper.detach()
        t = 0.5 * (lower + upper) if start is None else start.detach().clamp(lower, upper)
        root = _safeguarded_newton(function, y, lower, upper, t, steps).detach()
        if _is_eager(root):
            _warn_if_unsolved(function, y, root)
    for _ in range(2):
        value, slope = function(root)
        root = root - (value - target) / slope
    return root


def _find_bracket(
    function: Callable[[Tensor], tuple[Tensor, Tensor]], y: Tensor, lower: Tensor | None, upper: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Go from y towards the root in growing steps, or beyond the absent bound, until the sign of f - y turns."""
    if lower is not None:
        near, side = lower, torch.ones_like(y)
    elif upper is not None:
        near, side = upper, -torch.ones_like(y)
    else:
        near, side = y.clone(), torch.where(function(y)[0] < y, 1.0, -1.0).to(y.dtype)

    def expand(k: Step, near: Tensor, distance: Tensor, short: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        far = y + side * distance
        short = side * (function(far)[0] - y) < 0
        return torch.where(short, far, near), torch.where(short, GROWTH * distance, distance), short

    start = (near, torch.ones_like(y), torch.ones_like(y, dtype=torch.bool))
    near, distance, _ = _repeat(expand, start, EXPANSIONS)
    far = y + side * distance
    return torch.minimum(near, far), torch.maximum(near, far)


def _safeguarded_newton(
    function: Callable[[Tensor], tuple[Tensor, Tensor]], y: Tensor, lower: Tensor, upper: Tensor, t: Tensor, steps: int
) -> Tensor:
    """Newton's method that bisects where a step leaves the bracket, or is over half the one before the last.

    Close to the root, where rounding is all there is in a step, only the bracket counts.
    """
    eps = torch.finfo(y.dtype).eps
    near = eps**0.4 * (1 + y.abs())

    def improve(
        k: Step, t: Tensor, lower: Tensor, upper: Tensor, before_last: Tensor, last: Tensor, moving: Tensor
    ) -> tuple[Tensor, ...]:
        value, slope = function(t)
        residual = value - y
        lower = torch.where(residual <= 0, t, lower)
        upper = torch.where(residual >= 0, t, upper)
        step = -residual / slope
        newton = t + step
        good = (newton >= lower) & (newton <= upper) & ((2 * step.abs() <= before_last) | (residual.abs() <= near))
        step = torch.where(good, newton, 0.5 * (lower + upper)) - t
        t = t + step
        return t, lower, upper, last.clone(), step.abs(), step.abs() > 4 * eps * (1 + t.abs())

    width = (upper - lower).abs()
    return _repeat(improve, (t, lower, upper, width, width.clone(), torch.ones_like(t, dtype=torch.bool)), steps)[0]


def _repeat(body: Callable[..., tuple[Tensor, ...]], state: tuple[Tensor, ...], steps: int) -> tuple[Tensor, ...]:
    """`state = body(k, *state)` for k = 0, 1, ..., `steps` times, or fewer where it costs nothing to look.

    The last entry of the state says which elements still change. In a compiled graph the loop is one operation.
    """
    if torch.compiler.is_compiling():
        counted = while_loop(
            lambda k, *state: (k < steps) & state[-1].any(),
            lambda k, *state: (k + 1, *body(k, *state)),
            (torch.zeros((), dtype=torch.int64, device=state[0].device), *state),
        )
        return tuple(counted[1:])
    for k in range(steps):
        state = body(k, *state)
        going = state[-1]
        if going.device.type == "cpu" and _is_eager(going) and not bool(going.any()):
            break
    return state


def _is_eager(t: Tensor) -> bool:
    """Whether values can be looked at."""
    return not torch.compiler.is_compiling() and not torch._C._functorch.is_functorch_wrapped_tensor(t)


def _warn_if_unsolved(function: Callable[[Tensor], tuple[Tensor, Tensor]], y: Tensor, root: Tensor) -> None:
    """Compare the residual with what rounding of the root and of the value explains, an order of magnitude allowed."""
    value, slope = function(root)
    residual = (value - y).abs()
    rounding = torch.finfo(y.dtype).eps * (1 + y.abs() + slope * root.abs())
    unsolved = ~(residual <= 64 * rounding)
    if bool(unsolved.any()):
        worst = residual[unsolved].max().item()
        warnings.warn(
            f"numerical inverse: {int(unsolved.sum())} of {y.numel()} elements did not converge, "
            f"worst residual {worst:.3g}; check that the input and the parameters are finite, or use float64",
            InversionWarning,
            stacklevel=3,
        )
