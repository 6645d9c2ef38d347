"""Invertible residual blocks."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pushforward.bijections.base import Bijection
from pushforward.nn import LipschitzMLP
from pushforward.numerics import broadcast_batch, log_det_series, solve_rows, solve_system

EXACT_WIDTH = 64


class Residual(Bijection):
    r"""x = z + g(z), with a network g of Lipschitz constant below 1, which makes the map one-to-one and onto.

    The Jacobian of g is a product of the layers' matrices, and $\det(I + UV) = \det(I + VU)$: the exact log-det, and
    each of the few Newton steps of the inverse, cost a determinant of the size of the narrowest of the layers and the
    event. The estimate, which costs some $1/(1 - \text{lipschitz})$ products with the Jacobian, is for layers that are
    all wide, and for training alone: in `eval` mode the log-det is exact. Starts at the identity.

    For a model of data, whose density should be cheap, take `.inv`.

    Args:
        features: size of the event.
        context_features: size of the context.
        hidden_features: widths of g, and of the network that makes its biases from the context.
        lipschitz: bound of the Lipschitz constant of g, below 1.
        log_det: "exact"; "estimate", in training mode an unbiased estimate with one probe; "auto", the estimate if
            event and hidden layers are all wider than 64.

    Warns:
        InversionWarning: if the inverse did not reach the precision of the dtype.

    References:
        Behrmann et al., Invertible Residual Networks, 2018, arXiv 1811.00995.
        Chen et al., Residual Flows for Invertible Generative Modeling, 2019, arXiv 1906.02735.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> layer = Residual(2, hidden_features=(16,))
        >>> z = torch.randn(5, 2)
        >>> z_again, _ = layer.inverse(layer(z)[0])
        >>> torch.allclose(z, z_again, atol=1e-5)
        True
    """

    cheap = "forward"

    def __init__(
        self,
        features: int,
        *,
        context_features: int = 0,
        hidden_features: Sequence[int] = (64, 64),
        lipschitz: float = 0.97,
        log_det: Literal["auto", "exact", "estimate"] = "auto",
    ) -> None:
        super().__init__()
        self._set_sizes(features, context_features, hidden_features)
        if not 0 < lipschitz < 1:
            raise ValueError(f"Residual: expected 0 < lipschitz < 1, got {lipschitz}")
        if log_det not in ("auto", "exact", "estimate"):
            raise ValueError(f"Residual: expected log_det 'auto', 'exact' or 'estimate', got {log_det!r}")
        self.lipschitz = lipschitz
        self.log_det = log_det
        self.network = LipschitzMLP(
            features, features, self.hidden_features, lipschitz=lipschitz, context_features=context_features
        )
        widths = [*self.hidden_features, features]
        self.estimates = log_det == "estimate" or (log_det == "auto" and min(widths) > EXACT_WIDTH)
        # Where the Jacobian is cut into U V: after this many layers; after all of them if the event is narrowest.
        self.cut = len(widths) if min(widths) == features else 1 + widths.index(min(widths))

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, context = broadcast_batch(z, context)
        weights, biases = self.network.bounded(context)
        g, slopes = self.network.evaluate(z, weights, biases)
        return z + g, self._log_det(z, weights, slopes)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, context = broadcast_batch(x, context)
        weights, biases = self.network.bounded(context)

        def function(z: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
            g, slopes = self.network.evaluate(z, weights, biases)
            u, v, small = self._factors(weights, slopes)

            def solve(rows: Tensor) -> Tensor:
                if u is None:
                    return solve_rows(small, rows)
                inner = solve_rows(small, (v @ rows.unsqueeze(-1)).squeeze(-1))
                return rows - (u @ inner.unsqueeze(-1)).squeeze(-1)

            return z + g, solve

        z = solve_system(function, x, x)
        slopes = self.network.evaluate(z, weights, biases)[1]
        return z, -self._log_det(z, weights, slopes)

    def _log_det(self, z: Tensor, weights: list[Tensor], slopes: list[Tensor]) -> Tensor:
        if not (self.estimates and self.training):
            log_det: Tensor = torch.linalg.slogdet(self._factors(weights, slopes)[2])[1]
            return log_det

        def apply(v: Tensor) -> Tensor:
            for weight, slope in zip(weights[:-1], slopes, strict=True):
                v = slope * F.linear(v, weight)
            return F.linear(v, weights[-1])

        return log_det_series(apply, z, self.lipschitz)

    def _factors(self, weights: list[Tensor], slopes: list[Tensor]) -> tuple[Tensor | None, Tensor, Tensor]:
        """U and V with the Jacobian of g equal to U V, and I + V U; no U if that is the identity."""
        v = weights[0]
        for weight, slope in zip(weights[1 : self.cut], slopes, strict=False):
            v = weight @ (slope.unsqueeze(-1) * v)
        u: Tensor | None = None
        for i in range(len(weights) - 1, self.cut - 1, -1):
            u = (weights[i] if u is None else u @ weights[i]) * slopes[i - 1].unsqueeze(-2)
        small = v if u is None else v @ u
        return u, v, small + torch.eye(small.shape[-1], dtype=small.dtype, device=small.device)
