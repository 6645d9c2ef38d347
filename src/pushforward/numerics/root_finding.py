"""Inverses of increasing scalar functions, elementwise, with gradients."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop

GROWTH = 8.0
EXPANSIONS = 14  # a bracket found here reaches 8^14 = 4e12
Step = int | Tensor

# The value f(t), and what solves J(t) s = r for s given r, J the Jacobian of f.
System = Callable[[Tensor], tuple[Tensor, Callable[[Tensor], Tensor]]]


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


def solve_system(function: System, target: Tensor, start: Tensor, *, steps: int = 128, blind_steps: int = 16) -> Tensor:
    r"""Solve $f(t) = y$ row by row for a smooth one-to-one map $f$ of R^d whose Jacobian is nowhere singular.

    Newton's method without a graph, each row with its own step length, which shrinks until the residual does: until
    all rows are solved, or for a fixed number of evaluations in compiled graphs and function transforms. Two more
    Newton steps in the graph then carry the first and second derivatives with respect to `target` and to all that
    `function` closes over.

    Args:
        function: maps `t`, shape `(*batch, d)`, to $f(t)$, shape `(*batch, d)`, and to a function that solves
            $J(t) s = r$ for s, given r of the same shape.
        target: `y`, shape `(*batch, d)`.
        start: where to begin, shape `(*batch, d)`.
        steps: largest number of evaluations.
        blind_steps: number of evaluations where the values cannot be looked at.

    Returns:
        The root `t`, shape `(*batch, d)`.

    Warns:
        InversionWarning: in eager mode, with the worst residual, if the precision of the dtype was not reached.

    Example:
        >>> def function(t):
        ...     return t + t**3, lambda r: r / (1 + 3 * t**2)
        >>> y = torch.tensor([0.0, 2.0], dtype=torch.float64)
        >>> solve_system(function, y, torch.zeros_like(y)).allclose(torch.tensor([0.0, 1.0], dtype=torch.float64))
        True
    """
    with torch.no_grad():
        y = target.detach()
        root, size, solved = _damped_newton(function, y, start.detach(), steps, blind_steps)
        root = root.detach()
        if _is_eager(root):
            _warn("rows", ~solved, size)
    for _ in range(2):
        value, solve = function(root)
        root = root - solve(value - target)
    return root


def solve_rows(matrix: Tensor, rows: Tensor) -> Tensor:
    """s such that `matrix` s = r for each row r: shapes `(*batch, d, d)` and `(*batch, d)`."""
    # Without the check for singular matrices, which would look at the values.
    solution: Tensor = torch.linalg.solve_ex(matrix, rows.unsqueeze(-1))[0].squeeze(-1)
    return solution


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


def _damped_newton(
    function: System, y: Tensor, t: Tensor, steps: int, blind_steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The best point found for each row, the norm of its residual, and whether it is as good as the dtype allows.

    One evaluation per iteration: a trial that lessens the residual is taken, and the next one is a whole Newton step;
    otherwise the next trial is a quarter of the way. Whole steps converge quadratically, and two more follow in
    `solve_system`, so that a step below eps^0.6 is small enough.
    """
    eps = torch.finfo(y.dtype).eps

    def unsolved(t: Tensor, size: Tensor, step: Tensor) -> Tensor:
        small_step = _size(step) <= eps**0.6 * (1 + _size(t))
        solved: Tensor = small_step | (size <= 64 * eps * (1 + _size(y)))
        return ~solved

    def improve(
        k: Step, t: Tensor, size: Tensor, step: Tensor, scale: Tensor, going: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        trial = t - scale * step
        value, solve = function(trial)
        trial_size = _size(value - y)
        better = trial_size < (1 - 1e-4 * scale) * size
        t = torch.where(better, trial, t)
        size = torch.where(better, trial_size, size)
        step = torch.where(better, solve(value - y), step)
        return t, size, step, torch.where(better, 1.0, 0.25 * scale), unsolved(t, size, step)

    value, solve = function(t)
    size, step = _size(value - y), solve(value - y)
    limit = steps if torch.compiler.is_compiling() or _is_eager(t) else blind_steps
    start = (t.clone(), size, step, torch.ones_like(size), unsolved(t, size, step))
    t, size, _, _, going = _repeat(improve, start, limit)
    return t, size, ~going


def _size(rows: Tensor) -> Tensor:
    size: Tensor = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return size


def _is_eager(t: Tensor) -> bool:
    """Whether values can be looked at."""
    return not torch.compiler.is_compiling() and not torch._C._functorch.is_functorch_wrapped_tensor(t)


def _warn_if_unsolved(function: Callable[[Tensor], tuple[Tensor, Tensor]], y: Tensor, root: Tensor) -> None:
    """Compare the residual with what rounding of the root and of the value explains, an order of magnitude allowed."""
    value, slope = function(root)
    residual = (value - y).abs()
    rounding = torch.finfo(y.dtype).eps * (1 + y.abs() + slope * root.abs())
    _warn("elements", ~(residual <= 64 * rounding), residual)


def _warn(what: str, unsolved: Tensor, residual: Tensor) -> None:
    if bool(unsolved.any()):
        worst = residual[unsolved].max().item()
        warnings.warn(
            f"numerical inverse: {int(unsolved.sum())} of {unsolved.numel()} {what} did not converge, "
            f"worst residual {worst:.3g}; check that the input and the parameters are finite, or use float64",
            InversionWarning,
            stacklevel=4,
        )
