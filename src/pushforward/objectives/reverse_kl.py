"""The reverse Kullback-Leibler divergence."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn
from torch.func import functional_call

from pushforward.flow import Flow
from pushforward.objectives.base import Objective


class ReverseKL(Objective):
    r"""$E_q[\log q(x) - \log \tilde p(x)]$, which is KL(q || p) - log Z, the free energy: minus the ELBO.

    Args:
        flow: q.
        log_density: log of the unnormalised density, `(n, *event_shape)` to `(n,)`, in nats.
        num_samples: draws per step, n.
        gradient: "reparametrised", or "path": without the score term, whose mean is zero, so that the gradient's
            variance vanishes as q reaches p ("sticking the landing"; one more pass, in the direction x to z).

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
    ) -> None:
        super().__init__(flow)
        if gradient not in ("reparametrised", "path"):
            raise ValueError(f"ReverseKL: expected gradient 'reparametrised' or 'path', got {gradient!r}")
        if num_samples < 1:
            raise ValueError(f"ReverseKL: expected num_samples >= 1, got {num_samples}")
        # As a plain function: the parameters of a target that is a module are not this module's to train.
        self.log_density = log_density.__call__ if isinstance(log_density, nn.Module) else log_density
        self.num_samples = num_samples
        self.gradient = gradient

    def forward(self, context: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """The loss on `num_samples` fresh draws, for each row of a context `(n, context_features)` if there is one."""
        shape = (self.num_samples,)
        if self.gradient == "path":
            x = self.flow.rsample(shape, context)
            frozen = {name: p.detach() for name, p in self.flow.named_parameters()}
            log_q: Tensor = functional_call(self.flow, frozen, (x, context))
        else:
            x, log_q = self.flow.rsample_and_log_prob(shape, context)
        log_p = self.log_density(x)
        if log_p.shape != log_q.shape:
            raise ValueError(
                f"ReverseKL: expected log_density to map x of shape {tuple(x.shape)} to {tuple(log_q.shape)}, "
                f"got {tuple(log_p.shape)}"
            )
        return (log_q - log_p).mean()
