"""Flow matching: continuous flows by regression."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

from pushforward.bijections import Bijection, Chain, Continuous
from pushforward.flow import Flow
from pushforward.objectives.base import Objective


class FlowMatching(Objective):
    r"""$E\|v(t, x_t) - u\|^2$ with $x_t = (1 - (1 - \sigma) t) z + t x$ and $u = x - (1 - \sigma) z$, z from the base,
    x from the data: its minimiser carries the base to the data, blurred by $\sigma$, and no equation is solved.

    The loss is in squared units of the flow's space, not in nats, and its least value is not known: compare flows by
    their `log_prob`. In evaluation mode, z and t are the same at every call, so that validation losses compare.

    Args:
        flow: a flow of one `Continuous` layer. Other layers and the base stay as they are: the data are mapped back
            through what comes after, such as `Standardize`, and the draws forward through what comes before.
        sigma_min: $\sigma$, the width to which a data point is blurred.
        pairing: which z goes with which x: "independent", or "optimal", the assignment within the batch of the least
            squared distance, for straighter paths. It needs scipy, takes O(n^3) on the host, and has a bias of its own
            that vanishes with large batches; not for conditional flows, where it would mix the contexts.
        times: distribution of t, "uniform", or "logit_normal" with more weight on the middle.

    Raises:
        ValueError: if the flow does not have exactly one `Continuous` layer, another part of it has parameters to
            train, or an option is unknown.
        ModuleNotFoundError: for the optimal pairing, if there is no scipy.

    References:
        Lipman et al., Flow Matching for Generative Modeling, 2022, arXiv 2210.02747.
        Tong et al., Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport, 2023,
        arXiv 2302.00482 (pairing).
        Esser et al., Scaling Rectified Flow Transformers, 2024, arXiv 2403.03206 (logit-normal times).

    Example:
        >>> _ = torch.manual_seed(0)
        >>> x = torch.tensor([5.0, -3.0]) + 0.1 * torch.randn(500, 2)
        >>> flow = pf.Flow(pf.Chain(pf.Continuous(2), pf.Standardize(x.mean(0), x.std(0))), pf.StandardNormal(2))
        >>> result = pf.train(pf.FlowMatching(flow), x, max_steps=30)
        >>> flow.log_prob(x).mean() > 0
        tensor(True)
    """

    def __init__(
        self,
        flow: Flow,
        *,
        sigma_min: float = 0.0,
        pairing: Literal["independent", "optimal"] = "independent",
        times: Literal["uniform", "logit_normal"] = "uniform",
    ) -> None:
        super().__init__(flow)
        if not 0 <= sigma_min < 1:
            raise ValueError(f"FlowMatching: expected 0 <= sigma_min < 1, got {sigma_min}")
        if pairing not in ("independent", "optimal"):
            raise ValueError(f"FlowMatching: expected pairing 'independent' or 'optimal', got {pairing!r}")
        if times not in ("uniform", "logit_normal"):
            raise ValueError(f"FlowMatching: expected times 'uniform' or 'logit_normal', got {times!r}")
        if pairing == "optimal":
            if flow.context_features:
                raise ValueError("FlowMatching: expected a flow without context for pairing='optimal'")
            if find_spec("scipy") is None:
                raise ModuleNotFoundError("FlowMatching: pairing='optimal' needs scipy; pip install scipy")
        self.sigma_min = sigma_min
        self.pairing = pairing
        self.times = times
        before, _, after = self._parts()
        for part in (flow.base, before, after):
            names = [name for name, p in part.named_parameters() if p.requires_grad]
            if names:
                raise ValueError(
                    f"FlowMatching: expected nothing to train besides the Continuous layer and the embedding, got "
                    f"{type(part).__name__} with {', '.join(names)}; freeze it with requires_grad_(False)"
                )

    def forward(self, x: Tensor, context: Tensor | None = None, weights: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """The loss.

        Args:
            x: shape `(n, *event_shape)`.
            context: shape `(n, context_features)`, for a conditional flow.
            weights: shape `(n,)`, non-negative.
        """
        self.flow._check_event("x", x, self.flow.event_shape)
        context = self.flow._embed(context)
        before, continuous, after = self._parts()
        with torch.no_grad(), self._draws(x.device):
            target = after.inverse(x, context if after.context_features else None)[0]
            if self.flow.base.context_features:
                z = self.flow.base.sample((), context)
            else:
                z = self.flow.base.sample(x.shape[:-1])
            z = before(z, context if before.context_features else None)[0]
            if self.pairing == "optimal":
                z = _assigned(z, target)
            t = self._times(x)
            s = t.unsqueeze(-1)
            point = (1 - (1 - self.sigma_min) * s) * z + s * target
            velocity = target - (1 - self.sigma_min) * z
        found = continuous.velocity(t, point, context if continuous.context_features else None)
        error = (found - velocity).square().sum(-1)
        loss: Tensor = (error if weights is None else weights * error).mean()
        return loss

    def initialize(self, x: Tensor, context: Tensor | None = None, weights: Tensor | None = None) -> None:  # type: ignore[override]
        self.flow.initialize(x, context)

    def _parts(self) -> tuple[Chain, Continuous, Chain]:
        """The layers before the continuous one, it, and the layers after."""
        layers = _flat(self.flow.bijection)
        places = [i for i, layer in enumerate(layers) if isinstance(layer, Continuous)]
        if len(places) != 1:
            names = ", ".join(type(layer).__name__ for layer in layers)
            raise ValueError(f"FlowMatching: expected a flow with exactly one Continuous layer, got one of [{names}]")
        (i,) = places
        continuous = layers[i]
        assert isinstance(continuous, Continuous)
        return Chain(*layers[:i]), continuous, Chain(*layers[i + 1 :])

    def _times(self, x: Tensor) -> Tensor:
        """Times for the rows of `x`, evenly spread over [0, 1] from a common random start."""
        batch = x.shape[:-1]
        n = max(batch.numel(), 1)
        u = torch.rand((), dtype=x.dtype, device=x.device) + torch.arange(n, dtype=x.dtype, device=x.device) / n
        t = u[: batch.numel()].remainder(1.0).reshape(batch)
        if self.times == "logit_normal":
            eps = torch.finfo(x.dtype).eps
            t = torch.sigmoid(torch.special.ndtri(t.clamp(eps, 1 - eps)))
        return t

    @contextmanager
    def _draws(self, device: torch.device) -> Iterator[None]:
        """Fresh random numbers in training mode, else the same ones every time."""
        if self.training:
            yield
            return
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            yield


def _flat(bijection: Bijection) -> list[Bijection]:
    if not isinstance(bijection, Chain):
        return [bijection]
    return [part for layer in bijection._bijections() for part in _flat(layer)]


def _assigned(z: Tensor, x: Tensor) -> Tensor:
    """The rows of `z` in the order that makes the sum of squared distances to those of `x` least."""
    from scipy.optimize import linear_sum_assignment

    rows, points = z.reshape(-1, z.shape[-1]), x.reshape(-1, x.shape[-1])
    cost = torch.cdist(points, rows).square()
    order = torch.as_tensor(linear_sum_assignment(cost.cpu().numpy())[1], device=z.device)
    return rows[order].reshape(z.shape)
