"""Maps that make tails heavy."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pushforward.numerics import expm1_ratio, log1p_ratio, log_ndtr, log_ndtri
from pushforward.transformers.affine import soft_clamp
from pushforward.transformers.base import Transformer

START = 0.1
LOG_SIGMA = 0.5 * math.log(math.pi / 2)


class TailTransform(Transformer):
    r"""$x = \mu + \sigma \frac{s}{\lambda_s} (\mathrm{erfc}(|z|/\sqrt2)^{-\lambda_s} - 1)$ with $s = \mathrm{sign}(z)$.

    A standard normal z gets tails like those of |x|^(-1/lambda), each side its own; as lambda goes to 0, exponential
    ones. Closed form both ways, with logarithms of the tails; x overflows where lambda z^2 / 2 reaches 700 (88 in
    float32). h holds mu, log sigma softly clamped, and the unnormalised lambda of the left and of the right. The
    identity is not of this family: h = 0 has slope 1 at 0 and lambda = 0.1.

    Args:
        log_scale_bound: bound of log sigma.

    Reference:
        Hickling and Prangle, Flexible Tails for Normalizing Flows, 2024, arXiv 2406.16971.

    Example:
        >>> x, log_slope = TailTransform()(torch.tensor([-4.0, 0.0, 4.0]), torch.tensor([0.0, 0.0, 0.0, 2.0]))
        >>> [round(v, 2) for v in x.tolist()]
        [-20.42, 0.0, 563.26]
    """

    num_params = 4

    def __init__(self, *, log_scale_bound: float = 5.0) -> None:
        super().__init__()
        if not log_scale_bound > 0:
            raise ValueError(f"TailTransform: expected log_scale_bound > 0, got {log_scale_bound}")
        self.log_scale_bound = log_scale_bound

    def forward(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        sign = torch.where(z < 0, -1.0, 1.0).to(z.dtype)
        mu, log_sigma, tail = self._parts(sign, h)
        size = sign * z
        # log erfc(|z| / sqrt 2) is minus this, and this has the normal hazard for its slope.
        energy = -math.log(2) - log_ndtr(-size)
        log_slope = log_sigma + tail * energy + _log_hazard(size, energy)
        return mu + log_sigma.exp() * sign * energy * expm1_ratio(tail * energy), log_slope

    def inverse(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        sign = torch.where(x < h[..., 0], -1.0, 1.0).to(x.dtype)
        mu, log_sigma, tail = self._parts(sign, h)
        r = sign * (x - mu) * (-log_sigma).exp()
        log_term = torch.log1p(tail * r)
        energy = r * log1p_ratio(tail * r)
        size = -log_ndtri(-math.log(2) - energy)
        return sign * size, -(log_sigma + log_term + _log_hazard(size, energy))

    def params_of(self, mu: Tensor, sigma: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """The h, `(*, 4)`, of given mu, sigma and lambda of both sides, each `(*,)` and the last three positive."""
        ratio = (sigma.log() - LOG_SIGMA) / self.log_scale_bound
        log_sigma = self.log_scale_bound * ratio.clamp(-0.99, 0.99).atanh()
        raw = [tail + (-torch.expm1(-tail)).log() - math.log(math.expm1(START)) for tail in (left, right)]
        return torch.stack([mu, log_sigma, *raw], dim=-1)

    def _parts(self, sign: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """mu, log sigma and the lambda of the given side."""
        raw = torch.where(sign < 0, h[..., 2], h[..., 3])
        # Shifted so that h = 0 is a slope of 1 at 0, and a lambda of START.
        log_sigma = LOG_SIGMA + soft_clamp(h[..., 1], self.log_scale_bound)
        return h[..., 0], log_sigma, F.softplus(raw + math.log(math.expm1(START)))


def _log_hazard(size: Tensor, energy: Tensor) -> Tensor:
    """log of the normal density at |z| over the probability beyond it, given the energy."""
    return energy - 0.5 * size.square() + 0.5 * math.log(2 / math.pi)
