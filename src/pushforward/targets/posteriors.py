"""Posteriors of real data, unnormalised: likelihood times prior with every constant, so that Z is the evidence."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from pushforward.targets.base import Target
from pushforward.targets.synthetic import LOG_2PI


def _normal(x: Tensor, loc: Tensor | float, log_scale: Tensor | float) -> Tensor:
    """log N(x; loc, exp(log_scale)^2)."""
    log_scale = torch.as_tensor(log_scale, dtype=x.dtype, device=x.device)
    return -0.5 * ((x - loc) * (-log_scale).exp()).square() - log_scale - 0.5 * LOG_2PI


class EightSchools(Target):
    r"""Eight schools, centred: $\mu \sim N(0, 5)$, $\tau \sim$ half-Cauchy(5), $\theta_j \sim N(\mu, \tau)$,
    $y_j \sim N(\theta_j, \sigma_j)$; x = ($\mu$, $\log \tau$, $\theta$).

    Reference:
        Rubin, Estimation in parallel randomized experiments, 1981.
    """

    features = 10
    log_normalizer = -31.311348
    effects = (28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0)
    errors = (15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0)

    def log_density(self, x: Tensor) -> Tensor:
        self._check(x)
        mu, log_tau, theta = x[..., 0], x[..., 1], x[..., 2:]
        y, sigma = x.new_tensor(self.effects), x.new_tensor(self.errors)
        # log of 2 / (pi 5 (1 + (tau / 5)^2)) and of the Jacobian tau
        half_cauchy = math.log(2 / math.pi) - math.log(5) - softplus(2 * (log_tau - math.log(5)))
        prior = _normal(mu, 0, math.log(5)) + half_cauchy + log_tau
        schools = _normal(theta, mu.unsqueeze(-1), log_tau.unsqueeze(-1)) + _normal(y, theta, sigma.log())
        return prior + schools.sum(-1)


class BrownianMotion(Target):
    r"""A random walk seen with noise, both scales unknown: $\log s_i, \log s_o \sim N(0, 2)$, $x_1 \sim N(0, s_i)$,
    $x_t \sim N(x_{t-1}, s_i)$, $y_t \sim N(x_t, s_o)$ where $y_t$ was seen; x = ($\log s_i$, $\log s_o$, path).

    Args:
        y: the observations, NaN where there is none.
        log_evidence: log Z for these, if it is known.

    Reference:
        Sountsov et al., Inference Gym, 2020.
    """

    def __init__(self, y: Sequence[float] | Tensor, log_evidence: float = math.nan) -> None:
        self.y = torch.as_tensor(y, dtype=torch.float64)
        self.log_normalizer = log_evidence
        self.features = 2 + len(self.y)

    @classmethod
    def read(cls, path: str | Path, log_evidence: float = math.nan) -> "BrownianMotion":
        """From a CSV file with a column y, empty where there is no observation."""
        with open(path, newline="", encoding="utf-8") as file:
            rows = [row["y"].strip().lower() for row in csv.DictReader(file)]
        return cls([math.nan if value in ("", "nan") else float(value) for value in rows], log_evidence)

    def log_density(self, x: Tensor) -> Tensor:
        self._check(x)
        log_inner, log_outer, path = x[..., :1], x[..., 1:2], x[..., 2:]
        prior = _normal(x[..., :2], 0, math.log(2)).sum(-1)
        before = torch.cat([torch.zeros_like(path[..., :1]), path[..., :-1]], dim=-1)
        seen = self.y.isfinite().to(x.device)
        observed = _normal(self.y.to(x)[seen], path[..., seen], log_outer).sum(-1)
        return prior + _normal(path, before, log_inner).sum(-1) + observed


class Seeds(Target):
    r"""Random-effects logistic regression of germinating seeds: $r_i \sim$ Binomial($n_i$, logit =
    $a_0 + a_1 x_{1i} + a_2 x_{2i} + a_{12} x_{1i} x_{2i} + b_i$), $a \sim N(0, 10)$, $b_i \sim N(0, \tau^{-1/2})$,
    $\tau \sim$ Gamma(0.01, rate 0.01); x = ($a$, $\log \tau$, $b$).

    Args:
        germinated, seeds: r and n, one per plate.
        seed_type, extract: the two factors, 0 or 1.
        log_evidence: log Z for these, if it is known.

    Reference:
        Crowder, Beta-binomial ANOVA for proportions, 1978.
    """

    def __init__(
        self,
        germinated: Sequence[float],
        seeds: Sequence[float],
        seed_type: Sequence[float],
        extract: Sequence[float],
        log_evidence: float = math.nan,
    ) -> None:
        self.log_normalizer = log_evidence
        columns = [torch.as_tensor(c, dtype=torch.float64) for c in (germinated, seeds, seed_type, extract)]
        self.germinated, self.seeds, first, second = columns
        self.design = torch.stack([torch.ones_like(first), first, second, first * second])
        self.features = 5 + len(self.seeds)
        r, n = self.germinated, self.seeds
        self._coefficient = (torch.lgamma(n + 1) - torch.lgamma(r + 1) - torch.lgamma(n - r + 1)).sum().item()

    @classmethod
    def read(cls, path: str | Path, log_evidence: float = math.nan) -> "Seeds":
        """From a CSV file with the columns r, n, x1 and x2."""
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        r, n, first, second = ([float(row[name]) for row in rows] for name in ("r", "n", "x1", "x2"))
        return cls(r, n, first, second, log_evidence)

    def log_density(self, x: Tensor) -> Tensor:
        self._check(x)
        a, log_tau, b = x[..., :4], x[..., 4], x[..., 5:]
        logit = a @ self.design.to(x) + b
        r, n = self.germinated.to(x), self.seeds.to(x)
        likelihood = (r * logit - n * softplus(logit)).sum(-1) + self._coefficient
        shape = rate = 0.01
        gamma = shape * math.log(rate) - math.lgamma(shape) + shape * log_tau - rate * log_tau.exp()
        effects = _normal(b, 0, -log_tau.unsqueeze(-1) / 2).sum(-1)
        return likelihood + _normal(a, 0, math.log(10)).sum(-1) + gamma + effects


class LogisticRegression(Target):
    r"""$y_i \sim$ Bernoulli(logit = $w_0 + w \cdot z_i$) with the prior N(0, 1) on intercept and weights, z the
    columns standardised; x = $(w_0, w)$.

    Args:
        inputs: shape `(n, columns)`.
        labels: shape `(n,)`, 0 or 1.
        log_evidence: log Z, if it is known.

    `breast_cancer` is scikit-learn's data set, whose log Z is -55.23 to 0.02.
    """

    def __init__(self, inputs: Tensor, labels: Tensor, log_evidence: float = math.nan) -> None:
        inputs = torch.as_tensor(inputs, dtype=torch.float64)
        standard = (inputs - inputs.mean(0)) / inputs.std(0, correction=0)
        self.design = torch.cat([torch.ones(len(inputs), 1, dtype=torch.float64), standard], dim=1)
        self.signs = 2 * torch.as_tensor(labels, dtype=torch.float64) - 1
        self.features = self.design.shape[1]
        self.log_normalizer = log_evidence

    @classmethod
    def breast_cancer(cls) -> "LogisticRegression":
        """The Wisconsin breast cancer data of scikit-learn, 569 rows of 30 columns."""
        from sklearn.datasets import load_breast_cancer

        inputs, labels = load_breast_cancer(return_X_y=True)
        return cls(torch.from_numpy(inputs), torch.from_numpy(labels), log_evidence=-55.23)

    def log_density(self, x: Tensor) -> Tensor:
        self._check(x)
        margins = (x @ self.design.to(x).T) * self.signs.to(x)
        return logsigmoid(margins).sum(-1) + _normal(x, 0, 0.0).sum(-1)
