"""Scalar functions that several layers share."""

import math

import torch.nn.functional as F
from torch import Tensor

_SHIFT = math.log(math.expm1(1.0))


def positive(raw: Tensor) -> Tensor:
    """A smooth map of the line onto the positive numbers: softplus, shifted so that 0 gives 1."""
    return F.softplus(raw + _SHIFT)
