"""Maps through mixtures of logistic distribution functions."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pushforward.transformers.affine import soft_clamp
from pushforward.transformers.base import NumericalTransformer
from pushforward.transformers.bins import positive

SPREAD = 0.5


class DeepSigmoidal(NumericalTransformer):
    r"""Deep sigmoidal flow: x = logit(sum_j w_j sigmoid(a_j z + b_j)), one such layer after the other.

    The weights sum to one, so that the map is onto; far out it is linear, of the smallest slope a_j. All is computed
    with logarithms of both tails, without clamps. h holds, for each layer, K unnormalised log-weights, K unnormalised
    slopes and K offsets. `identity_params` spreads the offsets from -1/2 to 1/2, so that the sigmoids can part: each
    layer is then within 0.05 of the identity.

    Args:
        components: K, the number of sigmoids.
        layers: number of layers.
        min_slope: smallest slope a_j; below 1.

    Reference:
        Huang et al., Neural Autoregressive Flows, 2018, arXiv 1804.00779 (DSF).

    Example:
        >>> transformer = DeepSigmoidal(components=4)
        >>> h = torch.randn(5, transformer.num_params, generator=torch.Generator().manual_seed(0))
        >>> z = torch.linspace(-30, 30, 5)
        >>> x, log_slope = transformer(z, h)
        >>> torch.allclose(z, transformer.inverse(x, h)[0], atol=1e-4)
        True
    """

    def __init__(self, components: int = 8, layers: int = 1, *, min_slope: float = 1e-3) -> None:
        super().__init__()
        if components < 1 or layers < 1:
            raise ValueError(
                f"DeepSigmoidal: expected components >= 1 and layers >= 1, got components={components}, layers={layers}"
            )
        if not 0 < min_slope < 1:
            raise ValueError(f"DeepSigmoidal: expected 0 < min_slope < 1, got {min_slope}")
        self.components = components
        self.layers = layers
        self.min_slope = min_slope
        self.num_params = 3 * components * layers

    def forward(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        total = torch.zeros_like(z)
        for log_weights, slopes, offsets in self._layers(h):
            z, log_slope = mixture_logit(z.unsqueeze(-1) * slopes + offsets, log_weights, slopes.log())
            total = total + log_slope
        return z, total

    def bracket(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        lower = upper = x
        for _, slopes, offsets in reversed(self._layers(h)):
            # logit(mixture) lies between the least and the greatest a_j z + b_j.
            lower = ((lower.unsqueeze(-1) - offsets) / slopes).amin(-1)
            upper = ((upper.unsqueeze(-1) - offsets) / slopes).amax(-1)
        return lower, upper

    def identity_params(self) -> Tensor:
        K = self.components
        layer = torch.cat([torch.zeros(2 * K), spread(K)])
        return layer.repeat(self.layers)

    def _layers(self, h: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        log_weights, slopes, offsets = h.unflatten(-1, (self.layers, 3, self.components)).unbind(-2)
        slopes = positive(slopes, self.min_slope)
        return list(zip(log_weights.unbind(-2), slopes.unbind(-2), offsets.unbind(-2), strict=True))


class LogisticMixture(NumericalTransformer):
    r"""x = exp(a) logit(sum_j w_j sigmoid((z - m_j) / s_j)) + b: a mixture of logistics, then scale and shift.

    h holds K unnormalised log-weights, K means m_j, K log-scales log s_j, a and b; log-scales and a are softly clamped.
    The map is onto; far out it is linear. `identity_params` spreads the means from -1/2 to 1/2, so that the components
    can part: the map is then within 0.05 of the identity.

    Args:
        components: K, the number of logistic distributions.
        log_scale_bound: bound of the log-scales and of a.

    Reference:
        Ho et al., Flow++: Improving Flow-Based Generative Models with Variational Dequantization and Architecture
        Design, 2019, arXiv 1902.00275.

    Example:
        >>> transformer = LogisticMixture(components=4)
        >>> h = torch.randn(5, transformer.num_params, generator=torch.Generator().manual_seed(0))
        >>> z = torch.linspace(-30, 30, 5)
        >>> x, log_slope = transformer(z, h)
        >>> torch.allclose(z, transformer.inverse(x, h)[0], atol=1e-4)
        True
    """

    def __init__(self, components: int = 8, *, log_scale_bound: float = 5.0) -> None:
        super().__init__()
        if components < 1:
            raise ValueError(f"LogisticMixture: expected components >= 1, got {components}")
        if not log_scale_bound > 0:
            raise ValueError(f"LogisticMixture: expected log_scale_bound > 0, got {log_scale_bound}")
        self.components = components
        self.log_scale_bound = log_scale_bound
        self.num_params = 3 * components + 2

    def forward(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        log_weights, means, log_scales, a, b = self._parts(h)
        c = (z.unsqueeze(-1) - means) * (-log_scales).exp()
        logit, log_slope = mixture_logit(c, log_weights, -log_scales)
        return a.exp() * logit + b, a + log_slope

    def bracket(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        _, means, log_scales, a, b = self._parts(h)
        logit = (x - b) * (-a).exp()
        ends = means + log_scales.exp() * logit.unsqueeze(-1)
        return ends.amin(-1), ends.amax(-1)

    def identity_params(self) -> Tensor:
        K = self.components
        return torch.cat([torch.zeros(K), spread(K), torch.zeros(K + 2)])

    def _parts(self, h: Tensor) -> tuple[Tensor, ...]:
        K = self.components
        log_weights, means, log_scales = h[..., : 3 * K].unflatten(-1, (3, K)).unbind(-2)
        a = soft_clamp(h[..., 3 * K], self.log_scale_bound)
        return log_weights, means, soft_clamp(log_scales, self.log_scale_bound), a, h[..., 3 * K + 1]


def mixture_logit(c: Tensor, log_weights: Tensor, log_slopes: Tensor) -> tuple[Tensor, Tensor]:
    """logit(sum_j w_j sigmoid(c_j)) and the logarithm of its derivative, with c_j of log-derivative `log_slopes`.

    Args:
        c: shape `(*, components)`.
        log_weights: shape `(*, components)`, unnormalised.
        log_slopes: shape `(*, components)`.
    """
    log_left, log_right = F.logsigmoid(c), F.logsigmoid(-c)
    left = (log_weights + log_left).logsumexp(-1)
    right = (log_weights + log_right).logsumexp(-1)
    log_density = (log_weights + log_slopes + log_left + log_right).logsumexp(-1)
    return left - right, log_density + log_weights.logsumexp(-1) - left - right


def spread(components: int) -> Tensor:
    """Where components start: apart, since alike they would get the same gradients and stay alike."""
    return torch.linspace(-SPREAD, SPREAD, components) if components > 1 else torch.zeros(1)
