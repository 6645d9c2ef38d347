"""Whether latents are standard normal, as they are where a flow fits its data."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pushforward.diagnostics.p_values import ks_p_value

SIGNIFICANT = 0.01


@dataclass(frozen=True)
class LatentNormality:
    """What `latent_normality` found.

    Attributes:
        coordinates: p-value of each coordinate against N(0, 1).
        radius: p-value of the squared norm against the chi-square distribution.
        correlation: the largest correlation of two coordinates, in absolute value; 0 with a single one.
        correlation_p: its p-value, corrected for the number of pairs.
        pair: the two coordinates that it is of; None with a single one.

    Example:
        >>> found = LatentNormality((0.4, 0.001), 0.3, 0.02, 0.8, (0, 1))
        >>> found.ok, round(found.p_value, 3)
        (False, 0.006)
        >>> print(found)
        not standard normal (p 0.006)
          coordinates  p 0.002 (worst: 1)
          radius       p 0.3
          correlation  p 0.8 (largest: 0.020, of 0 and 1)
    """

    coordinates: tuple[float, ...]
    radius: float
    correlation: float
    correlation_p: float
    pair: tuple[int, int] | None

    @property
    def coordinates_p(self) -> float:
        """The smallest p-value of a coordinate, corrected for their number."""
        return min(1.0, len(self.coordinates) * min(self.coordinates))

    @property
    def p_value(self) -> float:
        """Of all three tests together, by Bonferroni: at most the chance of as bad a figure for standard normals."""
        return min(1.0, 3 * min(self.coordinates_p, self.radius, self.correlation_p))

    @property
    def ok(self) -> bool:
        """Whether `p_value` is at least 0.01."""
        return self.p_value >= SIGNIFICANT

    def __str__(self) -> str:
        worst = min(range(len(self.coordinates)), key=self.coordinates.__getitem__)
        lines = [
            f"{'consistent with' if self.ok else 'not'} standard normal (p {self.p_value:.2g})",
            f"  coordinates  p {self.coordinates_p:.2g} (worst: {worst})",
            f"  radius       p {self.radius:.2g}",
        ]
        if self.pair is not None:
            i, j = self.pair
            lines.append(f"  correlation  p {self.correlation_p:.2g} (largest: {self.correlation:.3f}, of {i} and {j})")
        return "\n".join(lines)


def latent_normality(z: Tensor) -> LatentNormality:
    r"""Test $z \sim N(0, I)$ by the coordinates, the radius and the correlations.

    Each coordinate goes through the Kolmogorov-Smirnov test against N(0, 1), and $\|z\|^2$ against $\chi^2_d$. By
    Fisher's transform, the largest correlation r has $p = \binom d2 \operatorname{erfc}(\sqrt{(n - 3) / 2}
    \operatorname{artanh} |r|)$. The p-values tell whether a misfit can be seen in n rows, not how much it matters: with
    enough rows any will be seen. Use rows that the flow was not trained on.

    Args:
        z: shape `(n, d)`, n >= 10, as from `flow.to_base(x)`.

    Raises:
        ValueError: another shape, fewer than 10 rows, no column, or values that are not finite.

    Example:
        >>> z = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
        >>> latent_normality(z).ok, latent_normality(1.2 * z).ok
        (True, False)
    """
    z = z.detach().double().cpu()
    if z.dim() != 2 or len(z) < 10 or z.shape[1] < 1:
        raise ValueError(f"expected z of shape (n, d) with n >= 10 and d >= 1, got {tuple(z.shape)}")
    if not bool(z.isfinite().all()):
        raise ValueError("expected finite z, got NaN or infinity")
    half_degrees = torch.tensor(z.shape[1] / 2, dtype=z.dtype)
    radius = torch.special.gammainc(half_degrees, z.square().sum(1) / 2)
    correlation, p_value, pair = _largest_correlation(z)
    return LatentNormality(
        coordinates=tuple(ks_p_value(torch.special.ndtr(z)).tolist()),
        radius=ks_p_value(radius).item(),
        correlation=correlation,
        correlation_p=p_value,
        pair=pair,
    )


def _largest_correlation(z: Tensor) -> tuple[float, float, tuple[int, int] | None]:
    """In absolute value, with its p-value and its columns; a constant column has no correlation."""
    n, d = z.shape
    if d == 1:
        return 0.0, 1.0, None
    centred = z - z.mean(0)
    scaled = torch.nan_to_num(centred / centred.norm(dim=0))
    r = (scaled.T @ scaled).abs().triu(1).clamp_max(1.0)
    i, j = divmod(int(r.argmax()), d)
    pairs = d * (d - 1) // 2
    if i == j:  # every correlation is zero
        i, j = 0, 1
    p_value = pairs * torch.erfc(math.sqrt((n - 3) / 2) * r[i, j].atanh()).item()
    return r[i, j].item(), min(1.0, p_value), (i, j)
