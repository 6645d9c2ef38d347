"""The logarithm of the normal distribution function, and its inverse, with derivatives of every order."""

import math

import torch
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)


def log_ndtr(x: Tensor) -> Tensor:
    r"""$\log \Phi(x)$; unlike `torch.special.log_ndtr` with finite second derivatives in the far right too.

    Example:
        >>> log_ndtr(torch.tensor([0.0, -30.0]))
        tensor([  -0.6931, -454.3213])
    """
    left = x < 0
    a = torch.where(left, -x, 0) * math.sqrt(0.5)
    b = torch.where(left, 0, x) * math.sqrt(0.5)
    tail = (0.5 * torch.special.erfcx(a)).log() - a.square()
    return torch.where(left, tail, torch.log1p(-0.5 * torch.erfc(b)))


def log_ndtri(log_p: Tensor) -> Tensor:
    r"""The x of $\log \Phi(x) = $ `log_p`, for `log_p` < 0, however far on either side.

    Two Newton steps in the graph carry the derivatives.

    Example:
        >>> log_ndtri(torch.tensor([-454.3212, -2.0, -1e-30]))
        tensor([-30.0000,  -1.1015,  11.4640])
    """
    right = log_p > -math.log(2)
    # log(1 - p), from the left tail by symmetry.
    mirrored = (-torch.expm1(torch.where(right, log_p, -1.0))).log()
    target = torch.where(right, mirrored, log_p)
    with torch.no_grad():
        y = target.detach()
        near = y > -50
        # Far out, -2 y = x^2 + log(2 pi x^2) + O(1 / x^2).
        square = -2 * torch.where(near, -50.0, y) - LOG_2PI
        far = -(square - (square - square.log()).log()).sqrt()
        x = torch.where(near, torch.special.ndtri(y.exp()).clamp(-12.0, 0.0), far)
        x = _newton(_newton(x, y), y)
    x = _newton(_newton(x, target), target)
    return torch.where(right, -x, x)


def _newton(x: Tensor, y: Tensor) -> Tensor:
    """One step towards log Phi(x) = y from x < 0; the slope as a ratio in which no large numbers cancel."""
    a = -math.sqrt(0.5) * x
    scaled: Tensor = torch.special.erfcx(a)
    value = (0.5 * scaled).log() - a.square()
    return x - (value - y) * math.sqrt(0.5 * math.pi) * scaled
