"""Whether posteriors are as wide as they should be, over many data sets whose truth is known."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pushforward.diagnostics.p_values import chi_square_p_value


def sbc_ranks(draws: Tensor, truth: Tensor) -> Tensor:
    r"""The rank of each true parameter among its posterior draws: $\sum_l 1[\theta_l < \theta^*]$, from 0 to `draws`.

    The truths come from the prior, and each posterior is that of data simulated at its truth; the ranks are uniform if
    the posteriors are right. Test them with `uniformity`. Draws equal to the truth do not count: give continuous
    parameters.

    Args:
        draws: independent draws of the posterior of each data set, shape `(draws, n, d)`.
        truth: shape `(n, d)`.

    Returns:
        shape `(n, d)`, int64.

    Raises:
        ValueError: other shapes, or NaN.

    Reference:
        Talts et al., Validating Bayesian Inference Algorithms with Simulation-Based Calibration, 2018,
        arXiv 1804.06788.

    Example:
        >>> sbc_ranks(torch.tensor([[[0.1]], [[0.5]], [[0.7]]]), torch.tensor([[0.6]]))
        tensor([[2]])
    """
    if truth.dim() != 2 or draws.dim() != 3 or draws.shape[1:] != truth.shape or len(draws) < 1:
        raise ValueError(
            f"expected draws of shape (draws, n, d) and truth of shape (n, d), got {tuple(draws.shape)} and "
            f"{tuple(truth.shape)}"
        )
    _refuse_nan(draws=draws, truth=truth)
    return (draws < truth).sum(0)


def uniformity(ranks: Tensor, draws: int) -> Tensor:
    r"""The chi-square test that ranks are uniform on 0 to `draws`, for each column: a p-value.

    There are $\min(2 n^{2/5}, n / 5, \mathrm{draws} + 1)$ bins, whose sizes differ by one rank at most; what is
    expected of each bin is in proportion to its size.

    Args:
        ranks: shape `(n, d)`, n >= 10, as from `sbc_ranks`.
        draws: the largest rank possible.

    Returns:
        p-values, shape `(d,)`, float64. Of d columns, ask for the smallest to be above 0.01 / d or so.

    Raises:
        ValueError: another shape, fewer than 10 rows, or ranks outside 0 to `draws`.

    Reference:
        Talts et al., Validating Bayesian Inference Algorithms with Simulation-Based Calibration, 2018,
        arXiv 1804.06788.

    Example:
        >>> ranks = torch.randint(100, (1000, 1), generator=torch.Generator().manual_seed(0))
        >>> uniformity(ranks, draws=99).round(decimals=2)
        tensor([0.1100], dtype=torch.float64)
        >>> uniformity(ranks // 2, draws=99) < 1e-6
        tensor([True])
    """
    ranks = ranks.detach().cpu()
    if ranks.dim() != 2 or len(ranks) < 10:
        raise ValueError(f"expected ranks of shape (n, d) with n >= 10, got {tuple(ranks.shape)}")
    if draws < 1 or not bool(((ranks >= 0) & (ranks <= draws)).all()):
        raise ValueError(f"expected ranks from 0 to draws = {draws} >= 1, got some outside")
    n = len(ranks)
    bins = min(round(2 * n**0.4), n // 5, draws + 1)
    sizes = torch.bincount(torch.arange(draws + 1) * bins // (draws + 1), minlength=bins).double()
    places = ranks.long() * bins // (draws + 1)
    counts = torch.zeros(bins, ranks.shape[1], dtype=torch.float64)
    counts = counts.scatter_add(0, places, torch.ones_like(places, dtype=torch.float64))
    expected = (n * sizes / (draws + 1))[:, None]
    return chi_square_p_value(((counts - expected).square() / expected).sum(0), bins - 1)


def expected_coverage(log_prob_draws: Tensor, log_prob_truth: Tensor, levels: Tensor | Sequence[float]) -> Tensor:
    r"""How often the highest-density region of each level holds the truth: the level itself if posteriors are right.

    The truth is in the region of level $\alpha$ if the share of draws of higher density is below $\alpha$. A share that
    the draws cannot resolve counts in part, so that with few draws too the mean is $\alpha$ exactly. Coverage below the
    level says that posteriors are overconfident; its standard error is $\sqrt{\alpha (1 - \alpha) / n}$.

    Args:
        log_prob_draws: log posterior density of draws from it, for each data set, shape `(draws, n)`.
        log_prob_truth: that of the true parameters, shape `(n,)`. A constant per data set may be left out of both.
        levels: shape `(levels,)`, in [0, 1].

    Returns:
        shape `(levels,)`, float64.

    Raises:
        ValueError: other shapes, NaN, or levels outside [0, 1].

    Reference:
        Hermans et al., A Trust Crisis In Simulation-Based Inference? Your Posterior Approximations Can Be Unfaithful,
        2021, arXiv 2110.06581.

    Example:
        >>> log_prob = -torch.arange(9.0)[:, None]
        >>> expected_coverage(log_prob, torch.tensor([-2.5]), [0.3, 0.35, 0.4]).round(decimals=3)
        tensor([0.0000, 0.5000, 1.0000], dtype=torch.float64)
    """
    if log_prob_truth.dim() != 1 or log_prob_draws.dim() != 2 or log_prob_draws.shape[1:] != log_prob_truth.shape:
        raise ValueError(
            f"expected log_prob_draws of shape (draws, n) and log_prob_truth of shape (n,), got "
            f"{tuple(log_prob_draws.shape)} and {tuple(log_prob_truth.shape)}"
        )
    if 0 in log_prob_draws.shape:
        raise ValueError(f"expected at least one draw and one truth, got {tuple(log_prob_draws.shape)}")
    _refuse_nan(log_prob_draws=log_prob_draws, log_prob_truth=log_prob_truth)
    alpha = torch.as_tensor(levels, dtype=torch.float64).detach().cpu()
    if alpha.dim() != 1 or not bool(((alpha >= 0) & (alpha <= 1)).all()):
        raise ValueError(f"expected levels of shape (levels,) in [0, 1], got {levels}")
    higher = (log_prob_draws > log_prob_truth).sum(0).double().cpu()
    equal = (log_prob_draws == log_prob_truth).sum(0).double().cpu()
    # Of higher + equal + 1 ranks that the truth may have, it takes any of the last equal + 1.
    inside = (alpha[:, None] * (len(log_prob_draws) + 1) - higher) / (equal + 1)
    return inside.clamp(0, 1).mean(1)


def _refuse_nan(**tensors: Tensor) -> None:
    for name, value in tensors.items():
        if bool(value.isnan().any()):
            raise ValueError(f"expected {name} without NaN, got {int(value.isnan().sum())} NaN")
