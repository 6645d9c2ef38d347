"""Gradients of convex functions."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pushforward.bijections.base import Bijection
from pushforward.nn import ConvexMLP
from pushforward.numerics import broadcast_batch, solve_rows, solve_system


class ConvexPotential(Bijection):
    r"""x = \nabla F(z), the gradient of a strongly convex network.

    The Jacobian is the Hessian of F, symmetric and positive definite. Its eigenvalues are at least `min_curvature`,
    and F grows like a quadratic form far out, so that the map is one-to-one and onto. Gradient and Hessian are exact;
    the inverse minimises F(z) - x·z by damped Newton steps. Either costs d^3 operations for d features. Starts near
    the identity.

    For a model of data, whose density should be cheap, take `.inv`.

    Args:
        features: size of the event.
        context_features: size of the context.
        hidden_features: widths of the network F, and of the one that makes its coefficients from the context.
        min_curvature: lower bound of the eigenvalues of the Jacobian; between 0 and 1.

    Warns:
        InversionWarning: if the inverse did not reach the precision of the dtype.

    Reference:
        Huang et al., Convex Potential Flows, 2020, arXiv 2012.05942.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> layer = ConvexPotential(2, hidden_features=(16,))
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
        min_curvature: float = 1e-2,
    ) -> None:
        super().__init__()
        self._set_sizes(features, context_features, hidden_features)
        self.min_curvature = min_curvature
        self.potential = ConvexMLP(
            features, self.hidden_features, context_features=context_features, min_curvature=min_curvature
        )

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, hessian = self.potential.derivatives(z, self.potential.coefficients(context))
        return x, torch.linalg.slogdet(hessian)[1]

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, context = broadcast_batch(x, context)
        coefficients = self.potential.coefficients(context)

        def function(z: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
            gradient, hessian = self.potential.derivatives(z, coefficients)
            return gradient, lambda rows: solve_rows(hessian, rows)

        z = solve_system(function, x, x)
        hessian = self.potential.derivatives(z, coefficients)[1]
        return z, -torch.linalg.slogdet(hessian)[1]
