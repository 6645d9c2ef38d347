"""What piecewise transformers share: knots from unnormalised sizes, and the bin that holds a value."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

VECTOR = 16  # over fewer numbers torch's softmax is slow


def accumulator(bins: int) -> Tensor:
    """The triangular matrix whose product sums the bins up, faster than cumsum over a short last dimension does."""
    return torch.ones(bins, bins + 1).triu(1)


def place_knots(sizes: Tensor, accumulate: Tensor, bound: float, min_bin: float) -> Tensor:
    """Knots from -bound to bound, `(*, bins + 1)`, of unnormalised log-sizes `(*, bins)`.

    Args:
        sizes: shape `(*, bins)`.
        accumulate: of `accumulator(bins)`.
        bound: the last knot.
        min_bin: smallest size of a bin, as a share of 2 bound.
    """
    bins = sizes.shape[-1]
    e = sizes.softmax(-1) if bins >= VECTOR else (sizes - sizes.detach().amax(-1, keepdim=True)).exp()
    cumulative = e @ accumulate.to(sizes.dtype)
    # Exactly 1 at the last knot, which is then B: where the slope is least a rounded end would cost three digits.
    share = cumulative / cumulative[..., -1:]
    steps = torch.arange(bins + 1, dtype=sizes.dtype, device=sizes.device) * min_bin
    return (2 * bound) * torch.add(steps, share, alpha=1 - bins * min_bin) - bound


def find_bin(value: Tensor, table: Tensor, row: int, bound: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Look each value up in one row of a table of what holds at the knots.

    Args:
        value: shape `(*,)`.
        table: shape `(*, rows, bins + 1)`.
        row: the row, increasing from -bound to bound, to search.
        bound: the last knot.

    Returns:
        Whether the value is within [-bound, bound]; the value, or else 0; and the columns of the table at the knots
        before and after it, `(*, rows)` each.
    """
    inside = (value >= -bound) & (value <= bound)
    safe = torch.where(inside, value, 0)
    k = (safe.unsqueeze(-1) >= table[..., row, 1:-1]).sum(-1)
    batch, (rows, columns) = k.shape, table.shape[-2:]
    index = torch.stack([k, k + 1], dim=-1).unsqueeze(-2).expand(*batch, rows, 2)
    ends = table.expand(*batch, rows, columns).gather(-1, index)
    return inside, safe, ends[..., 0], ends[..., 1]


def positive(raw: Tensor, floor: float) -> Tensor:
    """Softplus above `floor`, shifted so that 0 gives 1."""
    return floor + F.softplus(raw + math.log(math.expm1(1 - floor)))


def check_bins(name: str, bins: int, bound: float, min_bin: float, min_slope: float | None = None) -> None:
    """Raise a ValueError for hyper-parameters that no spline can have."""
    if bins < 2:
        raise ValueError(f"{name}: expected at least 2 bins, got {bins}")
    if not bound > 0:
        raise ValueError(f"{name}: expected bound > 0, got {bound}")
    if not 0 < min_bin < 1 / bins:
        raise ValueError(f"{name}: expected 0 < min_bin < 1/bins = {1 / bins:.3g}, got min_bin={min_bin}")
    if min_slope is not None and not 0 < min_slope < 1:
        raise ValueError(f"{name}: expected 0 < min_slope < 1, got min_slope={min_slope}")
