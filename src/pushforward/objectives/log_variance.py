"""The log-variance divergence."""

from collections.abc import Callable

import torch
from torch import Tensor

from pushforward.flow import Flow
from pushforward.objectives.base import DensityObjective
from pushforward.objectives.tempering import Tempering


class LogVariance(DensityObjective):
    r"""$\tfrac12 \mathrm{Var}[\log q(x) - \log \tilde p(x)]$ over draws of q: zero only where q = p, and needs no
    gradient of $\tilde p$.

    On draws of q its gradient has the mean of that of KL(q || p), with the variance of a good baseline.

    Args:
        flow: q.
        log_density: log of the unnormalised density, `(n, *event_shape)` to `(n,)`, in nats.
        num_samples: draws per step, n, at least 2.
        tempering: the power to which the density is raised as training goes on, as `linear_tempering` makes.

    Raises:
        ValueError: there are fewer than 2 draws.

    References:
        Richter et al., VarGrad: A Low-Variance Gradient Estimator for Variational Inference, 2020, arXiv 2010.10436.
        Nüsken and Richter, Solving high-dimensional Hamilton-Jacobi-Bellman PDEs, 2020, arXiv 2005.05409.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> loss = pf.LogVariance(pf.planar(features=2), lambda x: -0.5 * x.square().sum(-1))
        >>> loss().item() < 1e-10  # q is the density
        True
    """

    def __init__(
        self,
        flow: Flow,
        log_density: Callable[[Tensor], Tensor],
        num_samples: int = 64,
        *,
        tempering: Tempering | None = None,
    ) -> None:
        super().__init__(flow, log_density, num_samples, fewest=2, tempering=tempering)
        self.log_weights: Tensor | None = None

    def forward(self, context: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """The loss on `num_samples` fresh draws, for each row of a context `(n, context_features)` if there is one.

        The log-weights of the draws, without gradient, stay in `log_weights`.
        """
        with torch.no_grad():
            x = self.flow.sample(self.num_samples, context)
        log_q = self.flow(x, context)
        with torch.no_grad():
            log_p = self.log_p(x, log_q)
        self.log_weights = (log_p - log_q).detach()
        half: Tensor = 0.5 * (log_q - log_p).var(0).mean()
        return half
