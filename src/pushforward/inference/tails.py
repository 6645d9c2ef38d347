"""Find coordinates along which the density falls off like a power."""

import math

import torch
from torch import Tensor

from pushforward.bijections import Chain, Standardize, StudentTail
from pushforward.inference.density import Density
from pushforward.inference.locate import Located

NEAR, FAR = 1e4, 1e5  # distances in standard deviations
STEEPEST = 60.0


@torch.no_grad()
def heavy_tails(density: Density, located: Located) -> Chain | None:
    """The map from light-tailed coordinates to those of the density, or none if it has no power-law tails.

    Along an axis with the tails of a Student-t of $\nu$ degrees of freedom $-d \\log p / d \\log r$ tends to $\nu + 1$.
    """
    center, scale = located.means[0], located.scales[0].square().sum(-1).sqrt()
    slopes = torch.stack([_slope(density, center, scale, distance) for distance in (NEAR, FAR)])
    near, far = slopes.unbind()
    heavy = ((near / far - 1).abs() < 0.05) & (near > 1.05) & (near < STEEPEST)
    if not bool(heavy.any()):
        return None
    df = torch.where(heavy, far - 1, torch.inf)
    # The curvature at the mode of a Student-t is (nu + 1) / nu of that of its body.
    scale = scale * torch.where(heavy, (far / df).clamp_max(3.0).sqrt(), 1.0)
    return Chain(StudentTail(df), Standardize(center, scale))


def _slope(density: Density, center: Tensor, scale: Tensor, distance: float) -> Tensor:
    """-d log p / d log r along each axis, the smaller of both ways, shape `(features,)`."""
    eye = torch.eye(len(center), dtype=center.dtype)
    directions = torch.cat([eye, -eye]) * scale
    values = [density(center + r * directions) for r in (distance, 3 * distance)]
    slopes = ((values[0] - values[1]) / math.log(3)).nan_to_num(math.inf, math.inf, math.inf)
    return slopes.reshape(2, -1).amin(0)
