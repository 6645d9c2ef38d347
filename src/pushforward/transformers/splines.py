"""Monotone polynomial splines of degree one, two and three."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pushforward.numerics import solve_increasing
from pushforward.transformers.base import LinearTails, Transformer
from pushforward.transformers.bins import accumulator, check_bins, find_bin, place_knots


class LinearSpline(Transformer):
    """Piecewise linear on [-B, B] in K bins of one width, the identity outside: a density of steps.

    h holds K unnormalised log-heights.

    Args:
        bins: K.
        bound: B.
        min_bin: smallest height of a bin, as a share of 2B; below 1/K.

    Reference:
        Mueller et al., Neural Importance Sampling, 2018, arXiv 1808.03856.

    Example:
        >>> spline = LinearSpline(bins=2, bound=1.0)
        >>> x, log_slope = spline(torch.tensor([-0.5, 0.5, 3.0]), torch.tensor([0.0, math.log(3.0)]))
        >>> x
        tensor([-0.7495,  0.2505,  3.0000])
    """

    accumulate: Tensor

    def __init__(self, bins: int = 8, bound: float = 5.0, *, min_bin: float = 1e-3) -> None:
        super().__init__()
        check_bins("LinearSpline", bins, bound, min_bin)
        self.bins = bins
        self.bound = bound
        self.min_bin = min_bin
        self.num_params = bins
        self.register_buffer("accumulate", accumulator(bins), persistent=False)

    def forward(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return self._interpolate(z, h, 0, 1)

    def inverse(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return self._interpolate(x, h, 1, 0)

    def _interpolate(self, value: Tensor, h: Tensor, of: int, to: int) -> tuple[Tensor, Tensor]:
        heights = place_knots(h, self.accumulate, self.bound, self.min_bin)
        widths = place_knots(torch.zeros_like(h), self.accumulate, self.bound, self.min_bin)
        inside, safe, low, high = find_bin(value, torch.stack([widths, heights], dim=-2), of, self.bound)
        size = high - low
        slope = size[..., to] / size[..., of]
        return (
            torch.where(inside, low[..., to] + slope * (safe - low[..., of]), value),
            torch.where(inside, slope.log(), 0),
        )


class QuadraticSpline(Transformer):
    r"""Piecewise quadratic on [-B, B], the identity outside; its slope is continuous and piecewise linear.

    Within a bin of width $w$ with slopes $d_0, d_1$ at its knots, with $\xi = (z - z_k)/w$,
    $$x = x_k + w (d_0 \xi + (d_1 - d_0) \xi^2 / 2).$$

    h holds K unnormalised log-widths and the K - 1 unnormalised log-slopes at the inner knots, of mean 1 when weighed
    by the widths that they stand for; the slope at both ends is 1.

    Args:
        bins: K.
        bound: B.
        min_bin: smallest width of a bin, as a share of 2B; below 1/K.
        min_slope: smallest slope at a knot; below 1.

    Reference:
        Mueller et al., Neural Importance Sampling, 2018, arXiv 1808.03856.

    Example:
        >>> spline = QuadraticSpline(bins=4, bound=3.0)
        >>> h = torch.randn(5, spline.num_params, generator=torch.Generator().manual_seed(0))
        >>> z = torch.linspace(-4, 4, 5)
        >>> x, log_slope = spline(z, h)
        >>> torch.allclose(z, spline.inverse(x, h)[0], atol=1e-5)
        True
    """

    accumulate: Tensor

    def __init__(self, bins: int = 8, bound: float = 5.0, *, min_bin: float = 1e-3, min_slope: float = 1e-3) -> None:
        super().__init__()
        check_bins("QuadraticSpline", bins, bound, min_bin, min_slope)
        self.bins = bins
        self.bound = bound
        self.min_bin = min_bin
        self.min_slope = min_slope
        self.num_params = 2 * bins - 1
        self.register_buffer("accumulate", accumulator(bins), persistent=False)

    def forward(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        inside, z_safe, low, high = find_bin(z, self._table(h), 0, self.bound)
        (z0, x0, d0), (z1, _, d1) = low.unbind(-1), high.unbind(-1)
        t = z_safe - z0
        xi = t / (z1 - z0)
        x = x0 + t * (d0 + 0.5 * (d1 - d0) * xi)
        slope = d0 * (1 - xi) + d1 * xi
        return torch.where(inside, x, z), torch.where(inside, slope.log(), 0)

    def inverse(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        inside, x_safe, low, high = find_bin(x, self._table(h), 1, self.bound)
        (z0, x0, d0), (z1, _, d1) = low.unbind(-1), high.unbind(-1)
        u = (x_safe - x0) / (z1 - z0)
        tiny = torch.finfo(x.dtype).tiny
        slope = (d0.square() + 2 * (d1 - d0) * u).clamp_min(tiny).sqrt()
        z = z0 + 2 * (x_safe - x0) / (d0 + slope)
        return torch.where(inside, z, x), torch.where(inside, -slope.log(), 0)

    def _table(self, h: Tensor) -> Tensor:
        """Knots, values and slopes, `(*, 3, bins + 1)`."""
        z = place_knots(h[..., : self.bins], self.accumulate, self.bound, self.min_bin)
        widths = z.diff(dim=-1)
        # The area under an inner knot's hat: these areas weigh the slopes in the integral, which has to be 2B.
        hats = 0.5 * (widths[..., 1:] + widths[..., :-1])
        raw = h[..., self.bins :]
        e = (raw - raw.detach().amax(-1, keepdim=True)).exp()
        mean = (e * hats).sum(-1, keepdim=True) / hats.sum(-1, keepdim=True)
        slopes = self.min_slope + (1 - self.min_slope) * e / mean
        slopes = F.pad(slopes, (1, 1), value=1.0)
        areas = 0.5 * widths * (slopes[..., 1:] + slopes[..., :-1])
        x = areas @ self.accumulate.to(h.dtype) - self.bound
        return torch.stack([z, x, slopes], dim=-2)


class CubicSpline(LinearTails):
    r"""Monotone cubic spline on [-B, B] with Steffen's slopes, continued by its tangents: continuously differentiable.

    Within a bin of width $w$, mean slope $s$ and slopes $d_0, d_1$ at its knots, with $\xi = (z - z_k)/w$,
    $$x = x_k + w (d_0\xi + (3s - 2d_0 - d_1)\xi^2 + (d_0 + d_1 - 2s)\xi^3).$$

    h holds K unnormalised log-widths, K unnormalised log-heights, and the shapes of the slopes at the two ends, which
    lie between 0 and 3 times the mean slope of their bins; the inner slopes follow from the knots. The inverse is a
    root within one bin.

    Args:
        bins: K.
        bound: B.
        min_bin: smallest width and height of a bin, as a share of 2B; below 1/K.
        min_slope: smallest slope at an end, as a share of the mean slope of its bin; below 1.

    References:
        Durkan et al., Cubic-Spline Flows, 2019, arXiv 1906.02145.
        Steffen, A simple method for monotonic interpolation in one dimension, 1990.

    Example:
        >>> spline = CubicSpline(bins=4, bound=3.0)
        >>> h = torch.randn(5, spline.num_params, generator=torch.Generator().manual_seed(0))
        >>> z = torch.linspace(-4, 4, 5)
        >>> x, log_slope = spline(z, h)
        >>> torch.allclose(z, spline.inverse(x, h)[0], atol=1e-5)
        True
    """

    accumulate: Tensor

    def __init__(self, bins: int = 8, bound: float = 5.0, *, min_bin: float = 1e-3, min_slope: float = 1e-3) -> None:
        super().__init__()
        check_bins("CubicSpline", bins, bound, min_bin, min_slope)
        self.bins = bins
        self.bound = bound
        self.min_bin = min_bin
        self.min_slope = min_slope
        self.num_params = 2 * bins + 2
        self.register_buffer("accumulate", accumulator(bins), persistent=False)

    def inner(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        _, z, low, high = find_bin(z, self._table(h), 0, self.bound)
        (z0, x0, d0), (z1, x1, d1) = low.unbind(-1), high.unbind(-1)
        w = z1 - z0
        value, slope = _cubic((z - z0) / w, (x1 - x0) / w, d0, d1)
        return x0 + w * value, slope

    def inverse(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        x = x.expand(torch.broadcast_shapes(x.shape, h.shape[:-1]))
        table = self._table(h)
        inside, x_safe, low, high = find_bin(x, table, 1, self.bound)
        (z0, x0, d0), (z1, x1, d1) = low.unbind(-1), high.unbind(-1)
        w, v = z1 - z0, x1 - x0
        u = (x_safe - x0) / v
        s = v / w
        one, d0_share, d1_share = torch.ones_like(s), d0 / s, d1 / s
        # The share of the bin's width at the share u of its height.
        xi = solve_increasing(
            lambda xi: _cubic(xi, one, d0_share, d1_share),
            u,
            torch.zeros_like(u),
            torch.ones_like(u),
            start=u,
        )
        d_end = torch.where(x < 0, table[..., 2, 0], table[..., 2, -1])
        end = torch.where(x < 0, -self.bound, self.bound)
        z = torch.where(inside, z0 + w * xi, end + (x - end) / d_end)
        return z, -torch.where(inside, _cubic(xi, s, d0, d1)[1], d_end).log()

    def _table(self, h: Tensor) -> Tensor:
        """Knots, values and slopes, `(*, 3, bins + 1)`."""
        K, m = self.bins, self.min_slope
        knots = place_knots(h[..., : 2 * K].unflatten(-1, (2, K)), self.accumulate, self.bound, self.min_bin)
        w, v = knots.diff(dim=-1).unbind(-2)
        s = v / w
        parabola = (s[..., :-1] * w[..., 1:] + s[..., 1:] * w[..., :-1]) / (w[..., :-1] + w[..., 1:])
        inner = torch.minimum(parabola, 2 * torch.minimum(s[..., :-1], s[..., 1:]))
        # Shifted so that h = 0 gives the mean slope.
        ends = m + (3 - m) * torch.sigmoid(h[..., 2 * K :] + math.log((1 - m) / 2))
        slopes = torch.cat([ends[..., :1] * s[..., :1], inner, ends[..., 1:] * s[..., -1:]], dim=-1)
        return torch.cat([knots, slopes.unsqueeze(-2)], dim=-2)


def _cubic(xi: Tensor, s: Tensor, d0: Tensor, d1: Tensor) -> tuple[Tensor, Tensor]:
    """The cubic from 0 at 0 to s at 1 with slopes d0 and d1 there, and its slope."""
    value = xi * (d0 + xi * (3 * s - 2 * d0 - d1 + xi * (d0 + d1 - 2 * s)))
    rest = 1 - xi
    return value, d0 * rest.square() + 2 * (3 * s - d0 - d1) * xi * rest + d1 * xi.square()
