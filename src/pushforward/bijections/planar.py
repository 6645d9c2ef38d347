"""Maps that act along one direction."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pushforward.bijections.base import Bijection
from pushforward.nn import Parameters
from pushforward.numerics import solve_increasing


class Planar(Bijection):
    r"""x = z + \hat u tanh(w·z + b), with \hat u such that w·\hat u > -1.

    The constraint makes the map one-to-one and onto. Its inverse needs one number, a = w·z, the root of
    a + (w·\hat u) tanh(a + b) = w·x. Starts at the identity.

    Args:
        features: size of the event.
        context_features: size of the context.
        hidden_features: widths of the network that makes u, w and b from the context.

    Reference:
        Rezende and Mohamed, Variational Inference with Normalizing Flows, 2015, arXiv 1505.05770.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> layer = Planar(2)
        >>> z = torch.randn(5, 2)
        >>> z_again, _ = layer.inverse(layer(z)[0])
        >>> torch.allclose(z, z_again, atol=1e-5)
        True
    """

    cheap = "forward"

    def __init__(self, features: int, *, context_features: int = 0, hidden_features: Sequence[int] = (64, 64)) -> None:
        super().__init__()
        self.features = features
        self.event_shape = (features,)
        self.context_features = context_features
        self.hidden_features = tuple(hidden_features)
        w = torch.randn(features) / features**0.5
        self.params = Parameters([torch.zeros(features), w, torch.zeros(())], context_features, hidden_features)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        u, w, b, wu = self._constrained(context)
        t = torch.tanh((z * w).sum(-1) + b)
        return z + u * t.unsqueeze(-1), torch.log1p(wu * (1 - t.square()))

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        u, w, b, wu = self._constrained(context)

        def along_w(a: Tensor) -> tuple[Tensor, Tensor]:
            t = torch.tanh(a + b)
            return a + wu * t, 1 + wu * (1 - t.square())

        wx = (x * w).sum(-1)
        wx, reach, start = torch.broadcast_tensors(wx, wu.abs(), -b)
        # From its inflection point, Newton's method converges for this function, in some 10 steps.
        t = torch.tanh(solve_increasing(along_w, wx, wx - reach, wx + reach, start=start, steps=32) + b)
        return x - u * t.unsqueeze(-1), -torch.log1p(wu * (1 - t.square()))

    def _constrained(self, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """u moved along w until w·u > -1 (by an ELU, which leaves u as it is where w·u >= 0), w, b and w·u."""
        u, w, b = self.params(context)
        raw = (w * u).sum(-1)
        wu = F.elu(raw)
        along = (wu - raw) / w.square().sum(-1).clamp_min(torch.finfo(w.dtype).tiny)
        return u + along.unsqueeze(-1) * w, w, b, wu
