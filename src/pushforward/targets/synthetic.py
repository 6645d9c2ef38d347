"""Densities of any number of features, made to be hard in one known way, with their exact normalisers."""

import math

import torch
from torch import Tensor

from pushforward.targets.base import Target

LOG_2PI = math.log(2 * math.pi)


class CorrelatedNormal(Target):
    r"""$N(0, Q \, \mathrm{diag}(v) \, Q^T)$ with a random rotation Q and variances v log-spaced between two bounds.

    Args:
        features: number of coordinates.
        smallest, largest: the bounds of the variances.
        seed: of Q.

    Example:
        >>> CorrelatedNormal(3).log_density(torch.zeros(3))  # the variances multiply to 1: -3/2 log(2 pi)
        tensor(-2.7568)
    """

    def __init__(self, features: int = 50, smallest: float = 1e-2, largest: float = 1e2, *, seed: int = 0) -> None:
        if not 0 < smallest <= largest:
            raise ValueError(f"expected 0 < smallest <= largest, got {smallest} and {largest}")
        self.features = features
        generator = torch.Generator().manual_seed(seed)
        matrix = torch.randn(features, features, generator=generator, dtype=torch.float64)
        self.rotation = torch.linalg.qr(matrix)[0]
        bounds = math.log(smallest) / 2, math.log(largest) / 2
        self.scales = torch.linspace(*bounds, features, dtype=torch.float64).exp()

    def log_density(self, x: Tensor) -> Tensor:
        self._check(x)
        scales = self.scales.to(x)
        standard = (x @ self.rotation.to(x)) / scales
        log_prob: Tensor = -0.5 * standard.square().sum(-1) - scales.log().sum() - self.features / 2 * LOG_2PI
        return log_prob

    def entropy(self) -> float:
        """In nats."""
        return self.features / 2 * (1 + LOG_2PI) + float(self.scales.log().sum())

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """`n` independent draws, `(n, features)`, float64."""
        z = torch.randn(n, self.features, generator=generator, dtype=torch.float64)
        x: Tensor = (z * self.scales) @ self.rotation.T
        return x


class Banana(Target):
    r"""$x_0 \sim N(0, s^2)$, $x_1 \sim N(b (x_0^2 - s^2), 1)$, the others standard normal.

    Args:
        features: number of coordinates, at least 2.
        spread: s.
        bend: b.

    Reference:
        Haario et al., Adaptive proposal distribution for random walk Metropolis algorithm, 1999.
    """

    def __init__(self, features: int = 10, spread: float = 10.0, bend: float = 0.03) -> None:
        self.features, self.spread, self.bend = features, spread, bend

    def log_density(self, x: Tensor) -> Tensor:
        self._check(x)
        first = x[..., 0] / self.spread
        second = x[..., 1] - self.bend * (x[..., 0].square() - self.spread**2)
        square = first.square() + second.square() + x[..., 2:].square().sum(-1)
        return -0.5 * square - math.log(self.spread) - self.features / 2 * LOG_2PI

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """`n` independent draws, `(n, features)`, float64."""
        x = torch.randn(n, self.features, generator=generator, dtype=torch.float64)
        x[:, 0] *= self.spread
        x[:, 1] += self.bend * (x[:, 0].square() - self.spread**2)
        return x


class Funnel(Target):
    r"""$x_0 \sim N(0, s^2)$, $x_i \sim N(0, e^{x_0})$: $e^{x_0}$ is a variance.

    Args:
        features: number of coordinates, at least 2.
        spread: s.

    Reference:
        Neal, Slice sampling, 2003.
    """

    def __init__(self, features: int = 10, spread: float = 3.0) -> None:
        self.features, self.spread = features, spread

    def log_density(self, x: Tensor) -> Tensor:
        self._check(x)
        first, rest = x[..., 0], x[..., 1:]
        log_scales = (self.features - 1) / 2 * first + math.log(self.spread)
        square = (first / self.spread).square() + (rest.square() * (-first).exp().unsqueeze(-1)).sum(-1)
        return -0.5 * square - log_scales - self.features / 2 * LOG_2PI

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """`n` independent draws, `(n, features)`, float64."""
        x = torch.randn(n, self.features, generator=generator, dtype=torch.float64)
        x[:, 0] *= self.spread
        x[:, 1:] *= (x[:, :1] / 2).exp()
        return x


class StudentTs(Target):
    r"""Independent coordinates, each Student-t with $\nu$ degrees of freedom.

    Args:
        features: number of coordinates.
        df: $\nu$.
    """

    def __init__(self, features: int = 10, df: float = 3.0) -> None:
        self.features, self.df = features, df
        self._constant = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - 0.5 * math.log(df * math.pi)

    def entropy(self) -> float:
        """In nats."""
        half = torch.tensor([self.df / 2, (self.df + 1) / 2], dtype=torch.float64)
        low, high = torch.digamma(half).tolist()
        entropy: float = self.features * ((self.df + 1) / 2 * (high - low) - self._constant)
        return entropy

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """`n` independent draws, `(n, features)`, float64, by Bailey's polar method (1994)."""
        shape = (2, n, self.features)
        height, turn = 1 - torch.rand(shape, generator=generator, dtype=torch.float64)
        x: Tensor = (self.df * torch.expm1(-2 / self.df * height.log())).sqrt() * (2 * math.pi * turn).cos()
        return x

    def log_density(self, x: Tensor) -> Tensor:
        self._check(x)
        log_kernel: Tensor = -(self.df + 1) / 2 * (x.square() / self.df).log1p().sum(-1)
        return log_kernel + self.features * self._constant


class ManyWell(Target):
    r"""m independent double wells: $\tilde p(x, v) = e^{-x^4 + 6 x^2 + x / 2 - v^2 / 2}$ in each pair of coordinates.

    It has $2^m$ modes; the coordinates x are the even ones.

    Args:
        features: $2 m$.

    Attributes:
        right: P(x > 0) of each well.

    Reference:
        Noe et al., Boltzmann generators, 2019, arXiv 1812.01729; Midgley et al., 2022, arXiv 2208.01893.
    """

    def __init__(self, features: int = 32) -> None:
        if features < 2 or features % 2:
            raise ValueError(f"expected an even number of features, got {features}")
        self.features = features
        x = torch.linspace(-6, 6, 4001, dtype=torch.float64)  # the rule is exact to rounding for so smooth a density
        mass = self._well(x).exp() * (x[1] - x[0])
        self.right = (mass[x > 0].sum() + mass[x == 0].sum() / 2).item() / mass.sum().item()
        self.log_normalizer = features / 2 * (math.log(mass.sum()) + 0.5 * LOG_2PI)

    def log_density(self, x: Tensor) -> Tensor:
        self._check(x)
        return self._well(x[..., ::2]).sum(-1) - 0.5 * x[..., 1::2].square().sum(-1)

    def _well(self, x: Tensor) -> Tensor:
        return -(x**4) + 6 * x.square() + 0.5 * x


class PhiFour(Target):
    r"""A periodic chain, $\tilde p(x) = \exp(-\sum_i \frac\kappa2 (x_i - x_{i+1})^2 + \lambda (x_i^2 - 1)^2)$.

    Two modes, all up and all down, with kinks between them where $\kappa$ is small; symmetric in sign.

    Args:
        features: number of sites.
        coupling: $\kappa$.
        depth: $\lambda$.

    `log_normalizer` is the trace of a power of the transfer matrix, exact to rounding.
    """

    def __init__(self, features: int = 16, coupling: float = 2.0, depth: float = 2.0) -> None:
        self.features, self.coupling, self.depth = features, coupling, depth
        x = torch.linspace(-4, 4, 801, dtype=torch.float64)
        site = depth * (x.square() - 1).square() / 2
        transfer = (-coupling / 2 * (x[:, None] - x).square() - site[:, None] - site).exp() * (x[1] - x[0])
        values = torch.linalg.eigvalsh(transfer)
        self.log_normalizer = math.log((values**features).sum().item())

    def log_density(self, x: Tensor) -> Tensor:
        self._check(x)
        bonds = (x - x.roll(-1, -1)).square().sum(-1)
        return -self.coupling / 2 * bonds - self.depth * (x.square() - 1).square().sum(-1)


class Potential(Target):
    r"""The potentials $U_2, U_3, U_4$ of the plane: a sine wave, a splitting wave, a wave with a step.

    As published they have no finite integral; here they are multiplied by $e^{-(x_0^4 + x_1^4) / (2 \cdot 8^4)}$.
    $U_1$, two arcs, is `LobedRing(radius=2, spread=0.6)`.

    Args:
        which: 2, 3 or 4.

    Reference:
        Rezende and Mohamed, Variational Inference with Normalizing Flows, 2015, arXiv 1505.05770.

    Example:
        >>> Potential(2).log_density(torch.tensor([0.0, 0.4])).round(decimals=4)
        tensor(-0.5000)
    """

    features = 2

    def __init__(self, which: int) -> None:
        normalizers = {2: 2.850138, 3: 3.409720, 4: 3.475975}
        if which not in normalizers:
            raise ValueError(f"expected one of the potentials 2, 3, 4, got {which}")
        self.which = which
        self.log_normalizer = normalizers[which]

    def log_density(self, x: Tensor) -> Tensor:
        self._check(x)
        a, b = x[..., 0], x[..., 1]
        wave = (math.pi / 2 * a).sin()
        confinement = -0.5 * (a**4 + b**4) / 8**4
        if self.which == 2:
            return confinement - 0.5 * ((b - wave) / 0.4).square()
        if self.which == 3:
            width, offset = 0.35, -3 * (-0.5 * ((a - 1) / 0.6).square()).exp()
        else:
            width, offset = 0.4, -3 * torch.sigmoid((a - 1) / 0.3)
        upper = -0.5 * ((b - wave) / width).square()
        lower = -0.5 * ((b - wave - offset) / 0.35).square()
        return confinement + torch.logaddexp(upper, lower)
