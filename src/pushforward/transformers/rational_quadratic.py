"""Monotone rational-quadratic splines."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pushforward._native import KernelMap, spline_kernel, with_kernel
from pushforward.transformers.base import Transformer
from pushforward.transformers.bins import accumulator, check_bins, find_bin, place_knots, positive


class RationalQuadratic(Transformer):
    r"""Monotone rational-quadratic spline on [-B, B], the identity or straight lines outside.

    Within a bin of width $w$, height $v$, mean slope $s = v/w$ and slopes $d_0, d_1$ at its knots, with
    $\xi = (z - z_k)/w$,
    $$x = x_k + v \frac{s\xi^2 + d_0\xi(1-\xi)}{s + (d_0 + d_1 - 2s)\xi(1-\xi)}.$$

    h holds K unnormalised widths, K unnormalised heights and the unnormalised slopes at the knots: the K - 1 inner
    ones for linear tails (slope 1 at both ends), all K + 1 for free ones, or K for a circle (the two ends are one point
    and share theirs). A circular spline keeps the point -B = B where it is; put it beside a `Uniform` base on [-B, B].

    Args:
        bins: K.
        bound: B.
        tails: "linear" for the identity outside, "free" for lines whose slopes are those at the ends, "circular" for
            angles in [-B, B].
        min_bin: smallest width and height of a bin, as a share of 2B; below 1/K.
        min_slope: smallest slope at a knot; below 1.

    References:
        Durkan et al., Neural Spline Flows, 2019, arXiv 1906.04032.
        Rezende et al., Normalizing Flows on Tori and Spheres, 2020, arXiv 2002.02428 (circular).

    Example:
        >>> spline = RationalQuadratic(bins=4, bound=3.0)
        >>> h = torch.randn(5, spline.num_params, generator=torch.Generator().manual_seed(0))
        >>> z = torch.linspace(-4, 4, 5)
        >>> x, log_slope = spline(z, h)
        >>> z_again, log_slope_inverse = spline.inverse(x, h)
        >>> torch.allclose(z, z_again, atol=1e-5), torch.allclose(log_slope, -log_slope_inverse, atol=1e-5)
        (True, True)
    """

    accumulate: Tensor

    def __init__(
        self,
        bins: int = 8,
        bound: float = 5.0,
        *,
        tails: Literal["linear", "free", "circular"] = "linear",
        min_bin: float = 1e-3,
        min_slope: float = 1e-3,
    ) -> None:
        super().__init__()
        check_bins("RationalQuadratic", bins, bound, min_bin, min_slope)
        slopes = {"linear": bins - 1, "free": bins + 1, "circular": bins}
        if tails not in slopes:
            raise ValueError(f"RationalQuadratic: expected tails 'linear', 'free' or 'circular', got {tails!r}")
        self.bins = bins
        self.bound = bound
        self.tails = tails
        self.min_bin = min_bin
        self.min_slope = min_slope
        self.num_params = 2 * bins + slopes[tails]
        self.register_buffer("accumulate", accumulator(bins), persistent=False)

    @property
    def outruns_compiler(self) -> bool:
        return self.kernel(False) is not None

    def kernel(self, inverse: bool) -> KernelMap | None:
        if type(self) is not RationalQuadratic:
            return None
        return spline_kernel(self.bins, self.bound, self.tails, self.min_bin, self.min_slope, inverse)

    @with_kernel
    def forward(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        inside, z_safe, (z0, w, x0, v, d0, d1) = self._bin(z, h, heights=False)
        s = v / w
        xi = ((z_safe - z0) / w).clamp(0, 1)  # the last knot is at B up to rounding
        product = xi * (1 - xi)
        denominator = s + (d0 + d1 - 2 * s) * product
        x = x0 + v * (s * xi.square() + d0 * product) / denominator
        return self._with_tails(inside, z, h, x, self._log_slope(s, d0, d1, xi, denominator), 1)

    @with_kernel
    def inverse(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        inside, x_safe, (z0, w, x0, v, d0, d1) = self._bin(x, h, heights=True)
        s = v / w
        u = ((x_safe - x0) / v).clamp(0, 1)
        a = s - d0 + u * (d0 + d1 - 2 * s)
        b = d0 - u * (d0 + d1 - 2 * s)
        c = -s * u
        discriminant = (b.square() - 4 * a * c).clamp_min(torch.finfo(x.dtype).tiny)
        xi = (2 * c / (-b - discriminant.sqrt())).clamp(0, 1)
        denominator = s + (d0 + d1 - 2 * s) * xi * (1 - xi)
        return self._with_tails(inside, x, h, z0 + w * xi, -self._log_slope(s, d0, d1, xi, denominator), -1)

    def _bin(self, value: Tensor, h: Tensor, heights: bool) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Whether each value is inside, the value or else 0, and the corner, size and slopes of its bin."""
        K = self.bins
        knots = place_knots(h[..., : 2 * K].unflatten(-1, (2, K)), self.accumulate, self.bound, self.min_bin)
        raw = h[..., 2 * K :]
        if self.tails == "circular":
            raw = torch.cat([raw, raw[..., :1]], dim=-1)
        elif self.tails == "linear":
            raw = F.pad(raw, (1, 1))  # 0 is a slope of 1
        table = torch.cat([knots, raw.unsqueeze(-2)], dim=-2)
        inside, safe, low, high = find_bin(value, table, 1 if heights else 0, self.bound)
        (z0, x0, r0), (z1, x1, r1) = low.unbind(-1), high.unbind(-1)
        return inside, safe, (z0, z1 - z0, x0, x1 - x0, positive(r0, self.min_slope), positive(r1, self.min_slope))

    def _with_tails(
        self, inside: Tensor, value: Tensor, h: Tensor, mapped: Tensor, log_slope: Tensor, sense: int
    ) -> tuple[Tensor, Tensor]:
        """What the spline gives inside, and the lines outside; `sense` is -1 for the inverse."""
        if self.tails != "free":
            return torch.where(inside, mapped, value), torch.where(inside, log_slope, 0)
        left = value < -self.bound
        slope = positive(torch.where(left, h[..., 2 * self.bins], h[..., -1]), self.min_slope) ** sense
        end = torch.where(left, -self.bound, self.bound).to(value)
        return torch.where(inside, mapped, end + slope * (value - end)), torch.where(inside, log_slope, slope.log())

    def params_through(self, z: Tensor, x: Tensor, slopes: Tensor) -> Tensor:
        """The h of the spline through given knots, as near as the smallest bins and slopes allow; not circular.

        Args:
            z, x: increasing from -B to B, `(*, bins + 1)`.
            slopes: at the knots, positive, `(*, bins + 1)`; where the tails are the identity, those at the ends are
                ignored.
        """
        sizes = torch.cat([_log_sizes(knots, self.min_bin) for knots in torch.broadcast_tensors(z, x)], dim=-1)
        above = (slopes - self.min_slope).clamp_min(self.min_slope)
        raw = above + (-torch.expm1(-above)).log() - math.log(math.expm1(1 - self.min_slope))
        return torch.cat([sizes, raw if self.tails == "free" else raw[..., 1:-1]], dim=-1)

    @staticmethod
    def _log_slope(s: Tensor, d0: Tensor, d1: Tensor, xi: Tensor, denominator: Tensor) -> Tensor:
        numerator = d1 * xi.square() + 2 * s * xi * (1 - xi) + d0 * (1 - xi).square()
        return 2 * s.log() + numerator.log() - 2 * denominator.log()


def _log_sizes(knots: Tensor, min_bin: float) -> Tensor:
    share = knots.diff(dim=-1) / (knots[..., -1:] - knots[..., :1])
    return (share - min_bin).clamp_min(1e-2 * min_bin).log()
