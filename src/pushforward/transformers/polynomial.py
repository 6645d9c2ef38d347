"""Increasing polynomials."""

import math

import torch
from torch import Tensor

from pushforward.transformers.base import LinearTails
from pushforward.transformers.bins import positive


class SumOfSquares(LinearTails):
    r"""$x = c + \int_0^z (\epsilon + \sum_i p_i(u/\ell)^2)\,du$ on [-B, B], its tangents beyond.

    The $p_i$ are polynomials; h holds their coefficients, lowest degree first and one polynomial after the other, and
    c. On [-B, B] the map is a polynomial of degree 2 degree + 1; its tails are linear so that layers can be stacked.

    Args:
        degree: of each p_i.
        count: number of squares; two are enough for every increasing polynomial, more are easier to train.
        bound: B.
        scale: the length $\ell$ by which the argument is measured.
        min_slope: $\epsilon$; below 1.

    Reference:
        Jaini et al., Sum-of-Squares Polynomial Flow, 2019, arXiv 1905.02325.

    Example:
        >>> transformer = SumOfSquares(degree=1, count=1, scale=1.0, min_slope=0.5)
        >>> x, log_slope = transformer(torch.tensor(2.0), torch.tensor([1.0, 1.0, 0.0]))  # 1/2 + (1 + u)^2
        >>> round(x.item(), 4), round(log_slope.exp().item(), 4)
        (9.6667, 9.5)
    """

    diagonals: Tensor

    def __init__(
        self,
        degree: int = 3,
        count: int = 4,
        *,
        bound: float = 10.0,
        scale: float = 3.0,
        min_slope: float = 1e-3,
    ) -> None:
        super().__init__()
        if degree < 1 or count < 1:
            raise ValueError(f"SumOfSquares: expected degree >= 1 and count >= 1, got degree={degree}, count={count}")
        if not (bound > 0 and scale > 0 and 0 < min_slope < 1):
            raise ValueError(
                "SumOfSquares: expected bound > 0, scale > 0 and 0 < min_slope < 1, "
                f"got bound={bound}, scale={scale}, min_slope={min_slope}"
            )
        self.degree = degree
        self.count = count
        self.bound = bound
        self.scale = scale
        self.min_slope = min_slope
        self.num_params = count * (degree + 1) + 1
        # Products a_j a_k of coefficients go to the power j + k.
        n = torch.arange(degree + 1)
        power = (n[:, None] + n).reshape(-1, 1)
        self.register_buffer("diagonals", (power == torch.arange(2 * degree + 1)).float(), persistent=False)

    def inner(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        a = h[..., :-1].unflatten(-1, (self.count, self.degree + 1))
        t = z / self.scale
        t_each = t.unsqueeze(-1)
        p = a[..., self.degree]
        for k in range(self.degree - 1, -1, -1):
            p = p * t_each + a[..., k]
        slope = self.min_slope + p.square().sum(-1)
        square = (a.mT @ a).flatten(-2) @ self.diagonals.to(h.dtype)
        integral = square[..., -1] / (2 * self.degree + 1)
        for k in range(2 * self.degree - 1, -1, -1):
            integral = integral * t + square[..., k] / (k + 1)
        return h[..., -1] + z * (self.min_slope + integral), slope

    def identity_params(self) -> Tensor:
        # Constants of different sizes, since alike polynomials would get the same gradients and stay alike.
        constants = 0.5 ** torch.arange(self.count)
        coefficients = torch.zeros(self.count, self.degree + 1)
        coefficients[:, 0] = constants * ((1 - self.min_slope) / constants.square().sum()).sqrt()
        return torch.cat([coefficients.flatten(), torch.zeros(1)])


class Bernstein(LinearTails):
    r"""$x = \sum_k \theta_k \binom{M}{k} t^k (1 - t)^{M-k}$ with $t = (z + B)/2B$ on [-B, B], its tangents beyond.

    The $\theta_k$ increase; h holds $\theta_0 + B$ and the M unnormalised increments of $\theta$.

    Args:
        degree: M.
        bound: B.
        min_slope: smallest increment, as a share of 2B/M; below 1.

    Reference:
        Ramasinghe et al., Robust normalizing flows using Bernstein-type polynomials, 2021, arXiv 2102.03509.

    Example:
        >>> transformer = Bernstein(degree=4, bound=2.0)
        >>> x, log_slope = transformer(torch.tensor([-1.0, 0.5, 9.0]), torch.zeros(5))
        >>> [round(v, 4) for v in x.tolist()]
        [-1.0, 0.5, 9.0]
    """

    def __init__(self, degree: int = 16, bound: float = 5.0, *, min_slope: float = 1e-3) -> None:
        super().__init__()
        if degree < 1:
            raise ValueError(f"Bernstein: expected degree >= 1, got {degree}")
        if not (bound > 0 and 0 < min_slope < 1):
            raise ValueError(
                f"Bernstein: expected bound > 0 and 0 < min_slope < 1, got bound={bound}, min_slope={min_slope}"
            )
        self.degree = degree
        self.bound = bound
        self.min_slope = min_slope
        self.num_params = degree + 1

    def inner(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        M, B = self.degree, self.bound
        increments = positive(h[..., 1:], self.min_slope) * (2 * B / M)
        t = ((z + B) / (2 * B)).unsqueeze(-1)
        up, down = _powers(t, M), _powers(1 - t, M)
        slope = M / (2 * B) * (increments * _basis(up, down, M - 1)).sum(-1)
        # theta_k sums the increments before k: each is weighed by the basis functions after it.
        after = _basis(up, down, M)[..., 1:].flip(-1).cumsum(-1).flip(-1)
        return h[..., 0] - B + (increments * after).sum(-1), slope


def _powers(t: Tensor, n: int) -> Tensor:
    """t^0, ..., t^n along the last dimension, of size 1 in `t`, by products, whose derivatives exist at 0 too."""
    powers = torch.cat([torch.ones_like(t), t], dim=-1)
    while powers.shape[-1] <= n:
        powers = torch.cat([powers, powers * (powers[..., -1:] * t)], dim=-1)
    return powers[..., : n + 1]


def _basis(up: Tensor, down: Tensor, n: int) -> Tensor:
    """The Bernstein polynomials of degree n, of the powers of t and 1 - t."""
    binomials = torch.tensor([math.comb(n, k) for k in range(n + 1)], dtype=up.dtype, device=up.device)
    return binomials * up[..., : n + 1] * down[..., : n + 1].flip(-1)
