"""Mixture bases."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pushforward.bases.base import Base
from pushforward.bases.normal import LOG_SQRT_2PI
from pushforward.nn import Parameters
from pushforward.numerics import check_count, check_sizes


class GaussianMixture(Base):
    r"""p(z) = sum_k w_k prod_i N(z_i; loc_ki, scale_ki^2), all learnable.

    Draws are reparametrised implicitly: z solves F_i(z_i | z_{<i}) = const with F_i the conditional distribution
    functions of the mixture, so that gradients reach the weights too.

    Args:
        features: size of z.
        components: number of Gaussians.
        spread: standard deviation of the random starting means.
        context_features: size of the context.
        hidden_features: widths of the network that makes weights, means and scales from the context.

    References:
        Stimper et al., Resampling Base Distributions of Normalizing Flows, 2021, arXiv 2110.15828.
        Figurnov et al., Implicit Reparameterization Gradients, 2018, arXiv 1805.08498.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> GaussianMixture(2, components=3).sample((5,)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        features: int,
        components: int,
        *,
        spread: float = 1.0,
        context_features: int = 0,
        hidden_features: Sequence[int] = (64, 64),
    ) -> None:
        super().__init__()
        check_sizes("GaussianMixture", features, context_features, hidden_features)
        check_count("GaussianMixture", "components", components)
        self.features = features
        self.components = components
        self.spread = spread
        self.event_shape = (features,)
        self.context_features = context_features
        self.hidden_features = tuple(hidden_features)
        start = [
            torch.zeros(components),
            spread * torch.randn(components, features),
            torch.zeros(components, features),
        ]
        self.params = Parameters(start, context_features, hidden_features)

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        logits, loc, log_scale = self.params(context)
        log_terms = _log_normal(z.unsqueeze(-2), loc, log_scale).sum(-1)
        log_prob: Tensor = (logits.log_softmax(-1) + log_terms).logsumexp(-1)
        return log_prob

    def sample(self, sample_shape: tuple[int, ...] = (), context: Tensor | None = None) -> Tensor:
        logits, loc, log_scale = self.params(context)
        shape = self._shape(sample_shape, context)
        batch = shape[:-1]
        with torch.no_grad():
            weights = logits.softmax(-1).expand(*batch, self.components)
            k = torch.multinomial(weights.reshape(-1, self.components), 1) if batch.numel() else weights.new_zeros(0, 1)
            index = k.long().reshape(*batch, 1, 1).expand(*batch, 1, self.features)
            noise = torch.randn(shape, dtype=loc.dtype, device=loc.device)
            chosen_loc = loc.expand(*batch, -1, -1).gather(-2, index).squeeze(-2)
            chosen_scale = log_scale.expand(*batch, -1, -1).gather(-2, index).squeeze(-2).exp()
            z = chosen_loc + chosen_scale * noise
        return self._reparametrise(z, logits, loc, log_scale) if torch.is_grad_enabled() else z

    def _reparametrise(self, z: Tensor, logits: Tensor, loc: Tensor, log_scale: Tensor) -> Tensor:
        """`z` with the gradient that keeps every F_i(z_i | z_{<i}) constant: one Newton step of value zero."""
        log_weights = logits.log_softmax(-1).expand(*z.shape[:-1], self.components)
        columns = []
        for i in range(self.features):
            z_i = z[..., i, None]
            log_density = _log_normal(z_i, loc[..., i], log_scale[..., i])
            weights = log_weights.softmax(-1)
            standard = (z_i - loc[..., i]) * (-log_scale[..., i]).exp()
            cdf = (weights * torch.special.ndtr(standard)).sum(-1)
            density = (weights * log_density.exp()).sum(-1).detach()
            attached = z[..., i] - (cdf - cdf.detach()) / density.clamp_min(torch.finfo(z.dtype).tiny)
            columns.append(attached)
            log_weights = log_weights + _log_normal(attached.unsqueeze(-1), loc[..., i], log_scale[..., i])
        return torch.stack(columns, dim=-1)


def _log_normal(z: Tensor, loc: Tensor, log_scale: Tensor) -> Tensor:
    standard = (z - loc) * (-log_scale).exp()
    return -0.5 * standard.square() - log_scale - LOG_SQRT_2PI
