"""The map that makes a mixture of normals normal."""

import math

import torch
from torch import Tensor

from pushforward.numerics import log_ndtr, log_ndtri
from pushforward.transformers.affine import soft_clamp
from pushforward.transformers.base import NumericalTransformer
from pushforward.transformers.sigmoidal import spread


class Gaussianization(NumericalTransformer):
    r"""$x = \Phi^{-1}(\sum_j w_j \Phi((z - m_j) / s_j))$: takes a mixture of normals to the standard normal.

    h holds K unnormalised log-weights, K means and K log-scales, softly clamped. Computed with logarithms of the nearer
    tail, so that the map is onto and accurate however far out. `identity_params` spreads the means from -1/2 to 1/2, so
    that the components can part, with scales that keep the variance 1: nearly the identity.

    Put its `.inv` where data are to become normal in closed form.

    Args:
        components: K, the number of normals.
        log_scale_bound: bound of the log-scales.

    Reference:
        Meng et al., Gaussianization Flows, 2020, arXiv 2003.01941.

    Example:
        >>> transformer = Gaussianization(components=1)
        >>> h = torch.tensor([0.0, 1.0, math.log(2.0)])  # one normal: an affine map, here but for the soft clamp
        >>> x, log_slope = transformer(torch.tensor([-1.0, 1.0, 31.0]), h)
        >>> [round(v, 3) for v in x.tolist()]
        [-1.004, 0.0, 15.066]
    """

    def __init__(self, components: int = 8, *, log_scale_bound: float = 5.0) -> None:
        super().__init__()
        if components < 1:
            raise ValueError(f"Gaussianization: expected components >= 1, got {components}")
        if not log_scale_bound > 0:
            raise ValueError(f"Gaussianization: expected log_scale_bound > 0, got {log_scale_bound}")
        self.components = components
        self.log_scale_bound = log_scale_bound
        self.num_params = 3 * components

    def forward(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        log_weights, means, log_scales = self._parts(h)
        log_weights = log_weights.log_softmax(-1)
        c = (z.unsqueeze(-1) - means) * (-log_scales).exp()
        left = (log_weights + log_ndtr(c)).logsumexp(-1)
        right = (log_weights + log_ndtr(-c)).logsumexp(-1)
        lower_half = left <= right
        x = log_ndtri(torch.where(lower_half, left, right))
        x = torch.where(lower_half, x, -x)
        # Of both densities without their common factor.
        log_density = (log_weights - log_scales - 0.5 * c.square()).logsumexp(-1)
        return x, log_density + 0.5 * x.square()

    def bracket(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        _, means, log_scales = self._parts(h)
        # x lies between the least and the greatest (z - m_j) / s_j.
        ends = means + log_scales.exp() * x.unsqueeze(-1)
        return ends.amin(-1), ends.amax(-1)

    def identity_params(self) -> Tensor:
        means = spread(self.components)
        log_scale = 0.5 * math.log1p(-means.square().mean().item())
        raw = self.log_scale_bound * math.atanh(max(log_scale / self.log_scale_bound, -0.99))
        return torch.cat([torch.zeros_like(means), means, torch.full_like(means, raw)])

    def _parts(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        log_weights, means, log_scales = h.unflatten(-1, (3, self.components)).unbind(-2)
        return log_weights, means, soft_clamp(log_scales, self.log_scale_bound)
