"""Inverses with gradients: of increasing scalar functions, elementwise, and of maps of vectors, row by row."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

DOUBLINGS = 40

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

    The root is found without a graph, by Newton steps safeguarded by bisection, for a fixed number of iterations, or
    fewer where looking at the values costs nothing. Two more Newton steps in the graph then carry the first and second
    derivatives with respect to `target` and to all that `function` closes over.

    Args:
        function: maps `t`, shape `(*,)`, to the value and the slope of $f$, each of shape `(*,)`.
        target: `y`, shape `(*,)`.
        lower, upper: shape `(*,)`, a bracket of the root; where absent, one is found by doubling.
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
        lower = _expand_bracket(function, y, -1.0) if lower is None else lower.detach()
        upper = _expand_bracket(function, y, 1.0) if upper is None else upper.detach()
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


def _expand_bracket(function: Callable[[Tensor], tuple[Tensor, Tensor]], y: Tensor, side: float) -> Tensor:
    """A point beyond the root on the given side: the distance from `y` doubles until the sign of f - y is right."""
    distance = torch.ones_like(y)
    for _ in range(DOUBLINGS):
        short = side * (function(y + side * distance)[0] - y) < 0
        distance = torch.where(short, 2 * distance, distance)
    return y + side * distance


def _safeguarded_newton(
    function: Callable[[Tensor], tuple[Tensor, Tensor]], y: Tensor, lower: Tensor, upper: Tensor, t: Tensor, steps: int
) -> Tensor:
    """Newton's method that bisects where a step leaves the bracket, and each fourth time where the root is far."""
    eps = torch.finfo(y.dtype).eps
    near = eps**0.4 * (1 + y.abs())
    for k in range(steps):
        value, slope = function(t)
        residual = value - y
        lower = torch.where(residual <= 0, t, lower)
        upper = torch.where(residual >= 0, t, upper)
        newton = t - residual / slope
        good = (newton >= lower) & (newton <= upper)
        if k % 4 == 3:
            good = good & (residual.abs() <= near)
        step = torch.where(good, newton, 0.5 * (lower + upper)) - t
        t = t + step
        if t.device.type == "cpu" and _is_eager(t) and bool((step.abs() <= 4 * eps * (1 + t.abs())).all()):
            break
    return t


def _damped_newton(
    function: System, y: Tensor, t: Tensor, steps: int, blind_steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The best point found for each row, the norm of its residual, and whether it is as good as the dtype allows.

    One evaluation per iteration: a trial that lessens the residual is taken, and the next one is a whole Newton step;
    otherwise the next trial is a quarter of the way. Whole steps converge quadratically, and two more follow in
    `solve_system`, so that a step below eps^0.6 is small enough.
    """
    eps = torch.finfo(y.dtype).eps
    value, solve = function(t)
    size = _size(value - y)
    step = solve(value - y)
    scale = torch.ones_like(size)
    for k in range(steps):
        eager = _is_eager(size)
        if not eager and k == blind_steps:
            break
        if eager and bool(_is_solved(t, y, size, step, eps).all()):
            break
        trial = t - scale * step
        value, solve = function(trial)
        trial_size = _size(value - y)
        better = trial_size < (1 - 1e-4 * scale) * size
        t = torch.where(better, trial, t)
        size = torch.where(better, trial_size, size)
        step = torch.where(better, solve(value - y), step)
        scale = torch.where(better, 1.0, 0.25 * scale)
    return t, size, _is_solved(t, y, size, step, eps)


def _is_solved(t: Tensor, y: Tensor, size: Tensor, step: Tensor, eps: float) -> Tensor:
    small_step = _size(step) <= eps**0.6 * (1 + _size(t))
    return small_step | (size <= 64 * eps * (1 + _size(y)))


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
