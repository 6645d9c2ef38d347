"""Determinants by power series."""

from collections.abc import Callable

import torch
from torch import Tensor

from pushforward.numerics.trace import probe


def log_det_series(apply: Callable[[Tensor], Tensor], like: Tensor, bound: float, *, terms: int = 8) -> Tensor:
    r"""An unbiased estimate of $\log\det(I + J) = \sum_k (-1)^{k+1} \mathrm{tr} J^k / k$ for each row.

    The traces are those of one probe per row of random signs, $v \cdot J^k v$. The first terms are always summed; the
    sum goes on beyond them with probability `bound` at each further term, which is weighted by the inverse of the
    probability to be reached (Russian roulette). As the terms decay at least like bound^k, the variance is finite. The
    gradient of the estimate is an unbiased estimate of the gradient.

    Args:
        apply: v to J v, shape `(*batch, d)` to `(*batch, d)`.
        like: shape `(*batch, d)`, for shape, dtype and device of the probes.
        bound: an upper bound, below 1, of the largest singular value of J.
        terms: how many terms are always summed.

    Returns:
        shape `(*batch,)`.

    Reference:
        Chen et al., Residual Flows for Invertible Generative Modeling, 2019, arXiv 1906.02735.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> estimate = log_det_series(lambda v: 0.5 * v, torch.zeros(1000, 3), bound=0.5)
        >>> round(estimate.mean().item(), 1)  # 3 log 1.5
        1.2
    """
    signs = probe(like)
    # Drawn where no device needs to be asked for it; one number for all rows, which then take part in every term.
    further = int(torch.empty(()).geometric_(1 - bound)) - 1
    power = signs
    total = torch.zeros_like(like[..., 0])
    for k in range(1, terms + further + 1):
        power = apply(power)
        weight = (-1) ** (k + 1) / k / bound ** max(0, k - terms)
        total = total + weight * (signs * power).sum(-1)
    return total
