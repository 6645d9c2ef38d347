"""Gaussians and mixtures of them: what a flow has to beat."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

COMPONENTS = (1, 2, 3, 4, 6, 8, 10)
BURN_IN = 20  # steps after which the best of the starts goes on alone
FEW, MANY = 5_000, 20_000
WORK = 10**6  # rows times squared columns
SHRINKAGE = (-6, 0, 37)  # of correlations: decimal logarithms of the least and the most, and how many to try


def fit_gaussians(
    x: Tensor,
    components: int = 1,
    *,
    weights: Tensor | None = None,
    ridge: float = 1e-6,
    starts: int = 5,
    max_steps: int = 500,
    tolerance: float = 1e-7,
    seed: int = 0,
) -> MixtureSameFamily:
    r"""The maximum-likelihood mixture $\sum_k w_k N(m_k, S_k)$ of rows, by expectation-maximisation.

    Args:
        x: rows, `(n, features)`, with n > features.
        components: number of Gaussians.
        weights: how often each row counts, non-negative, `(n,)`; by default once.
        ridge: what each covariance gets on its diagonal, as a share of the variances of the rows, so that none
            collapses onto a row.
        starts: number of random starts; after 20 steps the best goes on alone.
        max_steps: upper limit of the number of steps.
        tolerance: the steps end when the mean log-likelihood gains less, in nats.
        seed: of the starts.

    Returns:
        A distribution of rows, in the units and dtype of `x`.

    Raises:
        ValueError: if there are too few rows, or no component.

    Reference:
        Dempster et al., Maximum likelihood from incomplete data via the EM algorithm, 1977.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> left, right = torch.randn(2, 500, 2, generator=generator, dtype=torch.float64)
        >>> mixture = fit_gaussians(torch.cat([left - 5.0, right + 5.0]), components=2)
        >>> [round(weight, 3) for weight in mixture.mixture_distribution.probs.tolist()]
        [0.5, 0.5]
    """
    n, features = x.shape
    if components < 1 or n <= features:
        raise ValueError(f"expected a component or more and rows > features, got {components} for {n} x {features}")
    rows = _Rows.of(x, weights)
    generator = torch.Generator().manual_seed(seed)
    return rows.distribution(_fit(rows, components, ridge, generator, starts, max_steps, tolerance)[0])


def fit_shrunk_gaussian(x: Tensor, *, weights: Tensor | None = None) -> MixtureSameFamily:
    r"""The Gaussian of mean and covariance of rows, its correlations shrunk as far as few rows leave them uncertain.

    The covariance of the standardised columns is $(1 - \rho) S + \rho I$ with the $\rho$ of the highest likelihood of
    each row under the fit to all others, which has a closed form.

    Args:
        x: rows, `(n, features)`, with n > 1.
        weights: how often each row counts, non-negative, `(n,)`; by default once.

    Returns:
        A distribution of rows, in the units and dtype of `x`: a mixture of one component.

    Reference:
        Hoffbeck and Landgrebe, Covariance matrix estimation and classification with limited training data, 1996.

    Example:
        >>> x = torch.randn(20, 10, generator=torch.Generator().manual_seed(0))
        >>> fit_shrunk_gaussian(x).component_distribution.covariance_matrix.shape
        torch.Size([1, 10, 10])
    """
    rows = _Rows.of(x, weights)
    n = rows.weights.sum()
    values, vectors = torch.linalg.eigh((rows.z * rows.weights.unsqueeze(-1)).T @ rows.z / n)
    shares = torch.logspace(*SHRINKAGE, dtype=torch.float64, device=x.device)
    # Without row u the covariance is A - c u u^T, and the mean lies n / (n - 1) u away from it.
    spread = (1 - shares).unsqueeze(-1) * n / (n - 1) * values.clamp_min(0) + shares.unsqueeze(-1)
    c = (1 - shares) * n / (n - 1).square()
    some = slice(None, None, max(len(x) // MANY, 1))
    weight = rows.weights[some] / rows.weights[some].sum()
    square = (rows.z[some] @ vectors).square() @ (1 / spread).T
    rest = (1 - c * square).clamp_min(torch.finfo(square.dtype).tiny)
    loss = spread.log().sum(-1) + weight @ (rest.log() + (n / (n - 1)).square() * square / rest)
    share = shares[loss.argmin()]
    shrunk = (vectors * ((1 - share) * values + share)) @ vectors.T
    return rows.distribution(_Components.of(n[None], torch.zeros_like(values[None]), shrunk[None]))


def choose_gaussians(
    x: Tensor, *, weights: Tensor | None = None, ridge: float = 1e-6, seed: int = 0
) -> MixtureSameFamily:
    """The mixture of up to ten Gaussians of the lowest Bayesian information criterion.

    Up to 5,000 rows fit each number of components, and up to 20,000 choose it and place them; fewer where there are
    many columns.
    The numbers are tried in increasing order, to two in a row that are no better, with five rows a component and column
    at least.

    Args:
        x: rows, `(n, features)`, with n > features.
        weights: how often each row counts, non-negative, `(n,)`; by default once.
        ridge: as in `fit_gaussians`.
        seed: of the rows and the starts.

    Reference:
        Schwarz, Estimating the Dimension of a Model, 1978.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> left, right = torch.randn(2, 500, 2, generator=generator, dtype=torch.float64)
        >>> len(choose_gaussians(torch.cat([left - 5.0, right + 5.0])).mixture_distribution.probs)
        2
    """
    n, features = x.shape
    if n <= features:
        raise ValueError(f"expected rows > features, got {n} x {features}")
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(n, generator=generator).to(x.device)
    weights = x.new_ones(n) if weights is None else weights
    room = max(WORK // features**2, 20 * features)
    few, many = (_Rows.of(x[kept], weights[kept]) for kept in (order[: min(FEW, room)], order[: min(MANY, 4 * room)]))
    total = many.weights.sum().item()
    best, lowest, worse = None, math.inf, 0
    for components in COMPONENTS:
        if components > 1 and (5 * components * features > len(few.z) or worse == 2):
            break
        fitted, _ = _fit(few, components, ridge, generator, starts=2, max_steps=40, tolerance=1e-4)
        fitted = many.restandardised(few, fitted)
        log_likelihood = (many.weights @ fitted.log_terms(many.z).logsumexp(-1)).item()
        free = components * (1 + features + features * (features + 1) / 2) - 1
        criterion = free * math.log(total) - 2 * log_likelihood
        worse += 1
        if criterion < lowest:
            best, lowest, worse = fitted, criterion, 0
    assert best is not None
    return many.distribution(_climb(many, best, ridge, 50, 1e-5)[0])


@dataclass(frozen=True)
class _Rows:
    """Standardised rows in float64, how often each counts, and the way back to their units."""

    z: Tensor
    weights: Tensor
    loc: Tensor
    scale: Tensor
    dtype: torch.dtype

    @classmethod
    def of(cls, x: Tensor, weights: Tensor | None) -> _Rows:
        weights = torch.ones_like(x[:, 0], dtype=torch.float64) if weights is None else weights.double()
        share = weights / weights.sum()
        loc = share @ x.double()
        centred = x.double() - loc
        scale = (share @ centred.square()).sqrt()
        return cls(centred / scale, weights, loc, scale, x.dtype)

    def restandardised(self, others: _Rows, components: _Components) -> _Components:
        """Components of other rows of the same table, in the standard units of these."""
        ratio = others.scale / self.scale
        shift = (others.loc - self.loc) / self.scale
        return _Components(components.masses, shift + ratio * components.means, ratio.unsqueeze(-1) * components.tril)

    def distribution(self, components: _Components) -> MixtureSameFamily:
        means = self.loc + self.scale * components.means
        tril = self.scale.unsqueeze(-1) * components.tril
        normals = MultivariateNormal(means.to(self.dtype), scale_tril=tril.to(self.dtype), validate_args=False)
        return MixtureSameFamily(Categorical(components.masses.to(self.dtype)), normals, validate_args=False)


@dataclass(frozen=True)
class _Components:
    """Masses, `(k,)`, means, `(k, features)`, and Cholesky factors of the covariances, `(k, features, features)`."""

    masses: Tensor
    means: Tensor
    tril: Tensor

    @classmethod
    def of(cls, masses: Tensor, means: Tensor, covariances: Tensor) -> _Components:
        return cls(masses, means, torch.linalg.cholesky(covariances))

    def log_terms(self, z: Tensor) -> Tensor:
        """log of weight times density of each component, `(n, k)`."""
        k, features = self.means.shape
        eye = torch.eye(features, dtype=z.dtype, device=z.device).expand(k, -1, -1)
        whiten = torch.linalg.solve_triangular(self.tril, eye, upper=False)
        away = (z @ whiten.reshape(-1, features).T).unflatten(-1, (k, features))
        away = away - (whiten @ self.means.unsqueeze(-1)).squeeze(-1)
        log_scale = self.tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        constant = self.masses.log() - self.masses.sum().log() - log_scale - features / 2 * math.log(2 * math.pi)
        log_terms: Tensor = constant - 0.5 * away.square().sum(-1)
        return log_terms


def _fit(
    rows: _Rows,
    components: int,
    ridge: float,
    generator: torch.Generator,
    starts: int,
    max_steps: int,
    tolerance: float,
) -> tuple[_Components, float]:
    """The components of the best start, and the mean log-likelihood of the standardised rows."""
    if components == 1:
        return _climb(rows, _maximise(rows, torch.ones_like(rows.z[:, :1]), ridge), ridge, 1, tolerance)
    runs = []
    for _ in range(starts):
        start = _maximise(rows, _nearest(rows, components, generator), ridge)
        runs.append(_climb(rows, start, ridge, BURN_IN, tolerance))
    best, _ = max(runs, key=lambda run: run[1])
    return _climb(rows, best, ridge, max(max_steps - BURN_IN, 1), tolerance)


def _climb(
    rows: _Rows, components: _Components, ridge: float, max_steps: int, tolerance: float
) -> tuple[_Components, float]:
    """The components after steps of expectation-maximisation, and the mean log-likelihood before the last step."""
    score = -math.inf
    for _ in range(max_steps):
        log_terms = components.log_terms(rows.z)
        log_prob = log_terms.logsumexp(-1)
        previous, score = score, (rows.weights @ log_prob / rows.weights.sum()).item()
        components = _maximise(rows, (log_terms - log_prob.unsqueeze(-1)).exp(), ridge)
        if score - previous < tolerance:
            break
    return components, score


def _maximise(rows: _Rows, responsibilities: Tensor, ridge: float) -> _Components:
    """The mixture of the highest expected log-likelihood, given how much of each row each component answers for."""
    counted = responsibilities * rows.weights.unsqueeze(-1)
    masses = counted.sum(0).clamp_min(torch.finfo(counted.dtype).tiny)
    means = counted.T @ rows.z / masses.unsqueeze(-1)
    covariances = []
    for share, mean in zip((counted / masses).T, means, strict=True):
        centred = rows.z - mean
        covariances.append((centred * share.unsqueeze(-1)).T @ centred)
    eye = torch.eye(rows.z.shape[1], dtype=rows.z.dtype, device=rows.z.device)
    return _Components.of(masses, means, torch.stack(covariances) + ridge * eye)


def _nearest(rows: _Rows, components: int, generator: torch.Generator) -> Tensor:
    """Each row wholly to the nearest of some rows, which are drawn far apart (k-means++)."""
    weights = rows.weights.cpu()
    square = torch.ones_like(weights)
    centres: list[Tensor] = []
    for _ in range(components):
        centre = rows.z[torch.multinomial(weights * square, 1, generator=generator).to(rows.z.device)]
        centres.append(centre)
        square = torch.cdist(rows.z, torch.cat(centres)).amin(1).square().cpu()
        square = square + torch.finfo(square.dtype).tiny  # fewer distinct rows than components
    nearest = torch.cdist(rows.z, torch.cat(centres)).argmin(1)
    return torch.nn.functional.one_hot(nearest, components).to(rows.z)
