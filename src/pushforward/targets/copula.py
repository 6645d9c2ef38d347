"""A table of mixed columns whose exact log-probability is known."""

import math

import numpy as np
import torch
from torch import Tensor

from pushforward.numerics import solve_increasing
from pushforward.targets.base import Target

LOG_2PI = math.log(2 * math.pi)
NODES = 64
COUNTS = 64  # P(Poisson(4) >= 64) < 1e-50


class MixedCopula(Target):
    r"""Gamma(2, 1), Beta(2, 5), Poisson(4) and a category of probabilities 0.4, 0.3, 0.2, 0.1 (numbered from 0), joined
    by a Gaussian copula whose correlations are all $\rho$.

    The latent normal variables are $z_i = \sqrt\rho f + \sqrt{1 - \rho} \epsilon_i$. Given the continuous columns f is
    normal, so the probability of the discrete ones is an integral over f alone: a Gauss-Hermite rule gives it to some
    ten digits.

    Args:
        correlation: $\rho$, at least 0 and below 1.

    Raises:
        ValueError: the correlation is not in that range.

    Example:
        >>> target = MixedCopula()
        >>> x = target.sample(3, torch.Generator().manual_seed(0))
        >>> x.shape, target.log_prob(x).shape
        (torch.Size([3, 4]), torch.Size([3]))
    """

    features = 4
    rate = 4.0
    shares = (0.4, 0.3, 0.2, 0.1)

    def __init__(self, correlation: float = 0.5) -> None:
        if not 0 <= correlation < 1:
            raise ValueError(f"expected 0 <= correlation < 1, got {correlation}")
        self.correlation = correlation
        counts = torch.arange(COUNTS, dtype=torch.float64)
        rate = torch.full_like(counts, self.rate)
        below = torch.special.gammaincc(counts + 1, rate)
        shares = torch.tensor(self.shares, dtype=torch.float64).cumsum(0)
        # The latent values at which a discrete column takes its next value, from -inf on.
        self._count_steps = _padded(_score(below, torch.special.gammainc(counts + 1, rate)))
        self._category_steps = _padded(_score(shares, 1 - shares)[:-1], torch.inf)
        nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
        self._nodes = torch.from_numpy(nodes)
        self._log_weights = torch.from_numpy(weights).log() - 0.5 * LOG_2PI

    def log_density(self, x: Tensor) -> Tensor:
        """log p(x), in nats per unit of the continuous columns: `(*batch, 4)` to `(*batch,)`."""
        self._check(x)
        amount, share, count, category = x.double().unbind(-1)
        whole = (count == count.floor()) & (category == category.floor())
        inside = (amount > 0) & (share > 0) & (share < 1) & (count >= 0) & (count < COUNTS) & whole
        inside = inside & (category >= 0) & (category < len(self.shares))
        amount, share = torch.where(inside, amount, 1.0), torch.where(inside, share, 0.5)
        z, w = _amount_score(amount), _share_score(share)
        rho = self.correlation
        margins = amount.log() - amount + math.log(30) + share.log() + 4 * torch.log1p(-share)
        square = (z.square() + w.square() - 2 * rho * z * w) / (1 - rho**2)
        copula = -0.5 * (square - z.square() - w.square()) - 0.5 * math.log(1 - rho**2)
        mean, spread = math.sqrt(rho) * (z + w) / (1 + rho), math.sqrt((1 - rho) / (1 + rho))
        factor = mean.unsqueeze(-1) + spread * self._nodes.to(x.device)
        terms = self._log_weights.to(x.device)
        for value, steps in ((count, self._count_steps), (category, self._category_steps)):
            k = torch.where(inside, value, 0).long()
            low, high = steps.to(x.device)[k], steps.to(x.device)[k + 1]
            terms = terms + self._log_cell(low.unsqueeze(-1), high.unsqueeze(-1), factor)
        log_prob = margins + copula + terms.logsumexp(-1)
        return torch.where(inside, log_prob, -torch.inf).to(x.dtype)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """`n` independent draws, `(n, 4)`, float64."""
        noise = torch.randn(n, 5, generator=generator, dtype=torch.float64)
        z = math.sqrt(self.correlation) * noise[:, 4:] + math.sqrt(1 - self.correlation) * noise[:, :4]
        amount = solve_increasing(lambda t: _amount_slope(t.exp()), z[:, 0]).exp()
        share = solve_increasing(lambda t: _share_slope(t.sigmoid()), z[:, 1]).sigmoid()
        count = torch.searchsorted(self._count_steps[1:], z[:, 2].contiguous())
        category = torch.searchsorted(self._category_steps[1:-1], z[:, 3].contiguous())
        return torch.stack([amount, share, count.double(), category.double()], dim=-1)

    def _log_cell(self, low: Tensor, high: Tensor, factor: Tensor) -> Tensor:
        """log P(low < z < high) of a latent variable given the factor f."""
        rho = self.correlation
        a, b = ((end - math.sqrt(rho) * factor) / math.sqrt(1 - rho) for end in (low, high))
        right = a > 0  # there the complements keep the digits
        a, b = torch.where(right, -b, a), torch.where(right, -a, b)
        cell = torch.special.ndtr(b) - torch.special.ndtr(a)
        log_cell: Tensor = cell.clamp_min(torch.finfo(cell.dtype).tiny).log()
        return log_cell


def _padded(steps: Tensor, end: float | None = None) -> Tensor:
    ends = [torch.tensor([-torch.inf], dtype=steps.dtype), steps]
    return torch.cat(ends if end is None else [*ends, torch.tensor([end], dtype=steps.dtype)])


def _score(below: Tensor, above: Tensor) -> Tensor:
    """The normal quantile of a probability, given with its complement."""
    return torch.where(below < 0.5, torch.special.ndtri(below), -torch.special.ndtri(above))


def _amount_score(x: Tensor) -> Tensor:
    two = torch.full_like(x, 2.0)
    return _score(torch.special.gammainc(two, x), torch.special.gammaincc(two, x))


def _share_score(x: Tensor) -> Tensor:
    """Beta(2, 5) is the law of the second smallest of six uniform numbers."""
    rest = 1 - x
    terms = [math.comb(6, k) * x**k * rest ** (6 - k) for k in range(7)]
    return _score(sum(terms[2:], torch.zeros_like(x)), terms[0] + terms[1])


def _amount_slope(x: Tensor) -> tuple[Tensor, Tensor]:
    """The latent value of x, and its slope in log x."""
    z = _amount_score(x)
    return z, (2 * x.log() - x + 0.5 * z.square() + 0.5 * LOG_2PI).exp()


def _share_slope(x: Tensor) -> tuple[Tensor, Tensor]:
    """The latent value of x, and its slope in the logit of x."""
    z = _share_score(x)
    return z, (math.log(30) + 2 * x.log() + 5 * torch.log1p(-x) + 0.5 * z.square() + 0.5 * LOG_2PI).exp()
