"""How good weighted draws are."""

import math

import torch
from torch import Tensor

ROUNDING = 1000.0  # units in the last place by which equal weights may differ


def effective_sample_size(log_weights: Tensor) -> float:
    r"""$(\sum w)^2 / (n \sum w^2)$: the share of n weighted draws that counts, from 1 / n to 1.

    Args:
        log_weights: shape `(n,)`, in nats, up to a constant; -inf is a weight of zero.

    Raises:
        ValueError: fewer than 2 weights, NaN, +inf, or all weights zero.

    Example:
        >>> effective_sample_size(torch.tensor([0.0, 0.0, -torch.inf, -torch.inf]))
        0.5
    """
    w = _checked(log_weights)
    return ((2 * w.logsumexp(0) - (2 * w).logsumexp(0)).exp() / len(w)).item()


def log_evidence(log_weights: Tensor) -> tuple[float, float]:
    r"""$\log \frac1n \sum w$ and its standard error, in nats.

    Args:
        log_weights: shape `(n,)`, log p - log q at draws of q, in nats.

    Raises:
        ValueError: as for `effective_sample_size`.

    Example:
        >>> log_evidence(torch.full((100,), 3.0))
        (3.0, 0.0)
    """
    w = _checked(log_weights)
    value = w.logsumexp(0) - math.log(len(w))
    relative = (w - value).exp()
    return value.item(), (relative.std() / math.sqrt(len(w))).item()


def pareto_smooth(log_weights: Tensor) -> tuple[Tensor, float]:
    r"""Normalised log-weights whose largest ones are replaced by quantiles of a fitted tail, and its index k-hat.

    The tail are the $\lfloor \min(n / 5, 3 \sqrt n) \rfloor$ largest weights; a generalised Pareto distribution is
    fitted to what they are above the next one. Averages over weights of k-hat below `khat_threshold` can be trusted;
    with k-hat above 1 the weights have no mean that so many draws could show.

    Args:
        log_weights: shape `(n,)`, in nats, up to a constant.

    Returns:
        log-weights, shape `(n,)`, float64, with `logsumexp` 0, and k-hat: infinite with fewer than 5 weights in the
        tail, 0 if all of them are equal up to rounding.

    Raises:
        ValueError: as for `effective_sample_size`.

    References:
        Vehtari et al., Pareto Smoothed Importance Sampling, 2015, arXiv 1507.02646.
        Zhang and Stephens, A New and Efficient Estimation Method for the Generalized Pareto Distribution, 2009.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> smoothed, khat = pareto_smooth(0.3 * torch.randn(1000))
        >>> khat < 0.5
        True
    """
    w = _checked(log_weights)
    highest = w.max()
    w = w - highest
    size = max(math.floor(min(len(w) / 5, 3 * math.sqrt(len(w)))), 1)
    order = w.argsort()
    tail, cutoff = order[-size:], w[order[-size - 1]]
    # What rounding left of a difference of log-densities, whose own size is not known here, has no tail.
    precision = torch.finfo(torch.promote_types(log_weights.dtype, torch.float32)).eps
    if -cutoff <= ROUNDING * precision * max(1.0, abs(highest.item())):
        return w - w.logsumexp(0), 0.0
    tail = tail[w[tail] > cutoff]
    khat = math.inf
    if len(tail) > 4:
        khat, sigma = _fit_pareto(w[tail].exp() - cutoff.exp())
        if math.isfinite(khat):
            shares = (torch.arange(len(tail), dtype=w.dtype) + 0.5) / len(tail)
            w = w.clone()
            w[tail] = (_pareto_quantile(shares, khat, sigma) + cutoff.exp()).log().clamp_max(0.0)
    return w - w.logsumexp(0), khat


def khat_threshold(n: int) -> float:
    r"""$\min(1 - 1 / \log_{10} n, 0.7)$: the largest k-hat at which n weighted draws can be trusted.

    Raises:
        ValueError: n is below 2.

    Reference:
        Vehtari et al., Pareto Smoothed Importance Sampling, 2024 revision, arXiv 1507.02646.

    Example:
        >>> khat_threshold(100), khat_threshold(10_000)
        (0.5, 0.7)
    """
    if n < 2:
        raise ValueError(f"expected n >= 2 weights, got {n}")
    return min(1 - 1 / math.log10(n), 0.7)


def _checked(log_weights: Tensor) -> Tensor:
    w = log_weights.detach().double().cpu()
    if w.dim() != 1 or len(w) < 2:
        raise ValueError(f"expected log-weights of shape (n,) with n >= 2, got {tuple(w.shape)}")
    if bool((w.isnan() | (w == math.inf)).any()):
        raise ValueError("expected log-weights below +inf, got NaN or +inf")
    if not bool(w.isfinite().any()):
        raise ValueError("expected a weight above zero, got log-weights of -inf only")
    return w


def _fit_pareto(x: Tensor) -> tuple[float, float]:
    """Shape and scale of a generalised Pareto distribution from ordered excesses, with a weak prior on the shape."""
    n = len(x)
    m = 30 + math.isqrt(n)
    grid = 1 - (m / (torch.arange(1, m + 1, dtype=x.dtype) - 0.5)).sqrt()
    grid = grid / (3 * x[int(n / 4 + 0.5) - 1]) + 1 / x[-1]
    shapes = torch.log1p(-grid[:, None] * x).mean(1)
    profile = n * ((-grid / shapes).log() - shapes - 1)
    weights = profile.softmax(0)
    weights = torch.where(weights >= 10 * torch.finfo(x.dtype).eps, weights, 0.0)
    theta = (grid * weights).sum() / weights.sum()
    shape = torch.log1p(-theta * x).mean()
    sigma = -shape / theta
    # A prior of ten draws at one half.
    return ((n * shape + 5) / (n + 10)).item(), sigma.item()


def _pareto_quantile(shares: Tensor, shape: float, sigma: float) -> Tensor:
    if abs(shape) < 1e-12:
        return -sigma * torch.log1p(-shares)
    return sigma * torch.expm1(-shape * torch.log1p(-shares)) / shape
