"""Objectives on importance-weighted draws of the flow."""

import math
from collections.abc import Callable
from typing import Literal

from torch import Tensor
from torch.func import functional_call

from pushforward.flow import Flow
from pushforward.objectives.base import DensityObjective, Objective
from pushforward.objectives.tempering import Tempering


class ImportanceWeighted(DensityObjective):
    r"""$-E \log \frac1k \sum_{i=1}^k \tilde p(x_i) / q(x_i)$ over k draws of q: a bound that is tighter than the ELBO.

    Args:
        flow: q.
        log_density: log of the unnormalised density, `(n, *event_shape)` to `(n,)`, in nats.
        num_samples: k.
        repeats: number of independent bounds to average.
        gradient: "doubly_reparametrised", whose noise stays small as k grows and vanishes where q = p, or
            "reparametrised".
        tempering: the power to which the density is raised as training goes on, as `linear_tempering` makes.

    Raises:
        ValueError: a count is below 1, or the gradient is unknown.

    References:
        Burda et al., Importance Weighted Autoencoders, 2015, arXiv 1509.00519.
        Tucker et al., Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives, 2018, arXiv 1810.04152.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> loss = pf.ImportanceWeighted(pf.planar(features=2), lambda x: -0.5 * x.square().sum(-1))
        >>> round(loss().item(), 4)  # q is the normalised density: -log Z = -log(2 pi)
        -1.8379
    """

    def __init__(
        self,
        flow: Flow,
        log_density: Callable[[Tensor], Tensor],
        num_samples: int = 10,
        *,
        repeats: int = 10,
        gradient: Literal["doubly_reparametrised", "reparametrised"] = "doubly_reparametrised",
        tempering: Tempering | None = None,
    ) -> None:
        super().__init__(flow, log_density, num_samples, tempering=tempering)
        if repeats < 1:
            raise ValueError(f"ImportanceWeighted: expected repeats >= 1, got {repeats}")
        if gradient not in ("doubly_reparametrised", "reparametrised"):
            raise ValueError(
                f"ImportanceWeighted: expected gradient 'doubly_reparametrised' or 'reparametrised', got {gradient!r}"
            )
        self.repeats = repeats
        self.gradient = gradient

    def forward(self, context: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """The loss on fresh draws, for each row of a context `(n, context_features)` if there is one."""
        shape = (self.num_samples, self.repeats)
        if self.gradient == "reparametrised":
            x, log_q = self.flow.rsample_and_log_prob(shape, context)
            return self._bound(self.log_p(x, log_q) - log_q)
        x = self.flow.rsample(shape, context)
        fixed = {name: p.detach() for name, p in self.flow.named_parameters()}
        log_q = functional_call(self.flow, fixed, (x, None if context is None else context.detach()))
        log_weights = self.log_p(x, log_q) - log_q
        share = log_weights.detach().softmax(0)
        # The squared shares are the gradient; the bound is the value.
        surrogate = -(share.square() * log_weights).sum(0).mean()
        total: Tensor = self._bound(log_weights.detach()) + surrogate - surrogate.detach()
        return total

    def _bound(self, log_weights: Tensor) -> Tensor:
        return -(log_weights.logsumexp(0) - math.log(self.num_samples)).mean()


class AlphaDivergence(DensityObjective):
    r"""$D_\alpha(p \| q) = \frac{1}{\alpha (\alpha - 1)} (E_q[w^\alpha] - 1)$ with weights $w = p / q$ of mean one.

    Between the reverse ($\alpha \to 0$) and the forward divergence ($\alpha \to 1$), and beyond; $\alpha = 2$ is the
    variance of the weights, half of it. p is normalised by the draws themselves.

    Args:
        flow: q.
        log_density: log of the unnormalised density, `(n, *event_shape)` to `(n,)`, in nats.
        alpha: neither 0 nor 1; for these take `ReverseKL` and `ForwardKL`.
        num_samples: draws per step, n.
        tempering: the power to which the density is raised as training goes on, as `linear_tempering` makes.

    Raises:
        ValueError: alpha is 0 or 1, or there are fewer than 2 draws.

    References:
        Hernandez-Lobato et al., Black-Box Alpha Divergence Minimization, 2015, arXiv 1511.03243; Midgley et al., Flow
        Annealed Importance Sampling Bootstrap, 2022, arXiv 2208.01893 (alpha = 2).

    Example:
        >>> _ = torch.manual_seed(0)
        >>> loss = pf.AlphaDivergence(pf.planar(features=2), lambda x: -0.5 * x.square().sum(-1), alpha=2.0)
        >>> abs(loss().item()) < 1e-5  # q is the density
        True
    """

    def __init__(
        self,
        flow: Flow,
        log_density: Callable[[Tensor], Tensor],
        alpha: float = 2.0,
        num_samples: int = 256,
        *,
        tempering: Tempering | None = None,
    ) -> None:
        super().__init__(flow, log_density, num_samples, fewest=2, tempering=tempering)
        if alpha in (0.0, 1.0):
            raise ValueError(f"AlphaDivergence: expected alpha other than 0 and 1, got {alpha}")
        self.alpha = alpha

    def forward(self, context: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """The loss on fresh draws, for each row of a context `(n, context_features)` if there is one."""
        x, log_q = self.flow.rsample_and_log_prob((self.num_samples,), context)
        log_weights = self.log_p(x, log_q) - log_q
        log_mean = log_weights.logsumexp(0) - math.log(self.num_samples)
        moment = (self.alpha * (log_weights - log_mean)).exp().mean(0)
        return ((moment - 1) / (self.alpha * (self.alpha - 1))).mean()


class ForwardKL(Objective):
    r"""$-\sum_i \bar w_i \log q(x_i)$ with self-normalised weights: KL(p || q) up to a constant, on weighted draws.

    The draws may come from anywhere, such as a buffer or annealed importance sampling: pass them as data,
    `pf.train(objective, (x, log_weights))`.

    Args:
        flow: q.

    Reference:
        Midgley et al., Flow Annealed Importance Sampling Bootstrap, 2022, arXiv 2208.01893.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> loss = pf.ForwardKL(pf.planar(features=2))
        >>> round(loss(torch.zeros(5, 2), torch.zeros(5)).item(), 4)  # a new flow is the base: log(2 pi)
        1.8379
    """

    def forward(self, x: Tensor, log_weights: Tensor) -> Tensor:  # type: ignore[override]
        """The loss.

        Args:
            x: shape `(n, *event_shape)`.
            log_weights: shape `(n,)`, in nats, up to a constant.
        """
        total: Tensor = -(log_weights.softmax(0) * self.flow(x)).sum()
        return total

    def initialize(self, x: Tensor, log_weights: Tensor) -> None:  # type: ignore[override]
        self.flow.initialize(x)
