"""The map that makes a mixture of normals normal."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pushforward.numerics import log_ndtr, log_ndtri
from pushforward.transformers.affine import soft_clamp
from pushforward.transformers.base import NumericalTransformer
from pushforward.transformers.sigmoidal import spread

LEAST_WIDTH = 0.01  # of a component that starts from data, as a share of their standard deviation


class Gaussianization(NumericalTransformer):
    r"""$x = \Phi^{-1}(\sum_j w_j \Phi((z - m_j) / s_j))$: takes a mixture of normals to the standard normal.

    h holds K unnormalised log-weights, K means and K log-scales, softly clamped. Computed with logarithms of the nearer
    tail, so that the map is onto and accurate however far out. `identity_params` spreads the means from -1/2 to 1/2, so
    that the components can part, with scales that keep the variance 1: nearly the identity.

    Put its `.inv` where data are to become normal in closed form; `params_for` puts a component at each of K quantiles
    of the data, as wide as the distance to its neighbours.

    Args:
        components: K, the number of normals.
        log_scale_bound: bound of the log-scales.

    Reference:
        Meng et al., Gaussianization Flows, 2020, arXiv 2003.01941.

    Example:
        >>> import math
        >>> transformer = Gaussianization(components=1)
        >>> h = torch.tensor([0.0, 1.0, 0.693147])  # one normal: (z - 1) / 2 but for the soft clamp
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
        log_scales = 0.5 * (1 - means.square().mean()).log().expand(means.shape)
        return torch.cat([torch.zeros_like(means), means, self._unclamped(log_scales)])

    def params_for(self, z: Tensor) -> Tensor:
        K = self.components
        size = z.std(0, correction=0).unsqueeze(-1)
        size = torch.where(size > 0, size, 1)
        quantiles = (torch.arange(K, device=z.device) + 0.5) / K
        means = z.sort(0).values[(quantiles * len(z)).long()].mT
        gaps = F.pad(means.diff(dim=-1), (1, 1), mode="replicate") if K > 1 else size.expand(-1, 2)
        widths = torch.maximum(0.5 * (gaps[:, 1:] + gaps[:, :-1]), LEAST_WIDTH * size)
        return torch.cat([torch.zeros_like(means), means, self._unclamped(widths.log())], dim=-1)

    def _unclamped(self, log_scales: Tensor) -> Tensor:
        """What is softly clamped to `log_scales`, or near it where that would be infinite."""
        return self.log_scale_bound * (log_scales / self.log_scale_bound).clamp(-0.99, 0.99).atanh()

    def _parts(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        log_weights, means, log_scales = h.unflatten(-1, (3, self.components)).unbind(-2)
        return log_weights, means, soft_clamp(log_scales, self.log_scale_bound)
