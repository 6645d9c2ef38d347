"""The reverse Kullback-Leibler divergence."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.func import functional_call

from pushforward.flow import Flow
from pushforward.objectives.base import DensityObjective
from pushforward.objectives.tempering import Tempering

WEIGHT_LIMIT = 10.0  # of importance weights of mean 1


class ReverseKL(DensityObjective):
    r"""$E_q[\log q(x) - \log \tilde p(x)]$, which is KL(q || p) - log Z, the free energy: minus the ELBO.

    Args:
        flow: q.
        log_density: log of the unnormalised density, `(n, *event_shape)` to `(n,)`, in nats.
        num_samples: draws per step, n.
        gradient: "reparametrised", or "path": without the score term, whose mean is zero, so that the gradient's
            variance vanishes as q reaches p ("sticking the landing"; one more pass, in the direction x to z).
        coverage: weight of a term that pulls q towards draws that it holds too rarely, $-\sum_i (w_i - \bar w) \log
            q(x_i)$ with clipped importance weights $w_i$ of mean one: the gradient of KL(p || q) on draws of q, zero
            where q = p. It keeps a mixture from starving components; with the path gradient only.
        tempering: the power to which the density is raised as training goes on, as `linear_tempering` makes.

    Raises:
        ValueError: the gradient is unknown, there is no draw, or `coverage` does not go with the gradient.

    References:
        Rezende and Mohamed, Variational Inference with Normalizing Flows, 2015, arXiv 1505.05770.
        Roeder et al., Sticking the Landing, 2017, arXiv 1703.09194; Vaitl et al., Gradients should stay on Path, 2022,
        arXiv 2207.08219.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> loss = pf.ReverseKL(pf.planar(features=2), lambda x: -0.5 * x.square().sum(-1), num_samples=100)
        >>> round(loss().item(), 4)  # q is the normalised density: -log Z = -log(2 pi)
        -1.8379
    """

    def __init__(
        self,
        flow: Flow,
        log_density: Callable[[Tensor], Tensor],
        num_samples: int = 64,
        *,
        gradient: Literal["reparametrised", "path"] = "reparametrised",
        coverage: float = 0.0,
        tempering: Tempering | None = None,
    ) -> None:
        super().__init__(flow, log_density, num_samples, tempering=tempering)
        if gradient not in ("reparametrised", "path"):
            raise ValueError(f"ReverseKL: expected gradient 'reparametrised' or 'path', got {gradient!r}")
        if coverage < 0 or (coverage and gradient != "path"):
            raise ValueError(f"ReverseKL: expected coverage >= 0, with gradient 'path' if positive, got {coverage}")
        self.gradient = gradient
        self.coverage = coverage
        self.log_weights: Tensor | None = None

    def forward(self, context: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """The loss on `num_samples` fresh draws, for each row of a context `(n, context_features)` if there is one.

        The log-weights of the draws, without gradient, stay in `log_weights`.
        """
        if self.gradient == "path" and torch.is_grad_enabled():
            return self._path(context)
        x, log_q = self.flow.rsample_and_log_prob((self.num_samples,), context)
        log_p = self.log_p(x, log_q)
        self.log_weights = (log_p - log_q).detach()
        return (log_q - log_p).mean()

    def _path(self, context: Tensor | None) -> Tensor:
        """The loss with the gradient of the draws alone: that of x times what pulls on x, held fixed."""
        flow = self.flow
        embedded = flow._embed(context)
        z, log_choice = flow.base.sample_choices((self.num_samples,), embedded)
        x = flow.bijection(z, flow._for_bijection(embedded))[0]
        point = x.detach().requires_grad_()
        if self.coverage:
            log_q: Tensor = flow(point, context)
        else:
            fixed = {name: p.detach() for name, p in flow.named_parameters()}
            log_q = functional_call(flow, fixed, (point, None if context is None else context.detach()))
        free_energy = log_q - self.log_p(point, log_q)
        (pull,) = torch.autograd.grad(free_energy.sum(), point, retain_graph=bool(self.coverage))
        free_energy = free_energy.detach()
        self.log_weights = -free_energy
        dims = tuple(range(free_energy.dim(), x.dim()))
        loss = (x * pull).sum(dims)
        if log_choice is not None:
            n = len(free_energy)
            # The mean of the others as baseline leaves no bias.
            centred = (free_energy - free_energy.mean(0)) * (n / max(n - 1, 1))
            limit = WEIGHT_LIMIT * centred.abs().median()
            loss = loss + centred.clamp(-limit, limit) * log_choice
        if self.coverage:
            loss = loss - self.coverage * self._excess() * log_q
        # Of the free energy's value.
        total: Tensor = free_energy.mean() + loss.mean() - loss.mean().detach()
        return total

    def _excess(self) -> Tensor:
        """Clipped importance weights of mean one, minus their mean."""
        assert self.log_weights is not None
        weights = self.log_weights.softmax(0) * len(self.log_weights)
        weights = weights.clamp_max(WEIGHT_LIMIT)
        return weights - weights.mean(0)
