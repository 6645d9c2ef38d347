"""The flow: a base distribution pushed forward through a bijection."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from pushforward._native import kernels_for
from pushforward.bases import Base
from pushforward.bijections import Bijection, Chain
from pushforward.distribution import FlowDistribution
from pushforward.numerics import check_context, check_event, sum_rightmost
from pushforward.transformers import Transformer

Shape = int | tuple[int, ...] | torch.Size


class Flow(nn.Module):
    r"""x = f(z | context), z from a base: $\log p(x) = \log p_Z(f^{-1}(x)) + \log|\det \partial f^{-1}/\partial x|$.

    Args:
        bijection: f, from base to data.
        base: the distribution of z.
        embedding: a module that maps the user's context, `(*batch, n)`, to what bijection and base take,
            `(*batch, context_features)`; by default the context as it is.

    Raises:
        ValueError: if bijection and base disagree on the event shape or on the size of the context. The methods raise
            one that says which shape or dtype was expected and which came.

    Reference:
        Papamakarios et al., Normalizing Flows for Probabilistic Modeling and Inference, 2021, arXiv 1912.02762.

    Example:
        >>> flow = pf.Flow(pf.Chain(pf.Planar(2), pf.LU(2)), pf.StandardNormal(2))
        >>> flow.log_prob(torch.zeros(5, 2)).shape, flow.sample(1000).shape
        (torch.Size([5]), torch.Size([1000, 2]))
    """

    def __init__(self, bijection: Bijection, base: Base, *, embedding: nn.Module | None = None) -> None:
        super().__init__()
        if not isinstance(bijection, Bijection):
            raise ValueError(
                f"Flow: expected a Bijection, got {type(bijection).__name__}; a Transformer goes into Elementwise, "
                "Coupling or MaskedAutoregressive"
            )
        self.bijection = bijection
        self.base = base
        self.compiled_with: dict[str, Any] | None = None  # the options, if log_prob is compiled
        self.embedding = embedding
        self.context_features = max(bijection.context_features, base.context_features)
        if bijection.event_shape not in (None, base.event_shape):
            raise ValueError(
                f"Flow: expected a base of the bijection's event shape {bijection.event_shape}, got {base.event_shape}"
            )
        if bijection.event_dim > len(base.event_shape):
            raise ValueError(
                f"Flow: expected a base with at least {bijection.event_dim} event dimensions, got {base.event_shape}"
            )
        if bijection.context_features and base.context_features not in (0, bijection.context_features):
            raise ValueError(
                f"Flow: expected a base with the bijection's context_features={bijection.context_features}, "
                f"got {base.context_features}"
            )
        self.event_shape = bijection.forward_shape(base.event_shape)
        if embedding is not None and not self.context_features:
            raise ValueError("Flow: got an embedding, but neither the bijection nor the base takes a context")

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """`log_prob`, so that hooks, data parallelism, compilation and export see it."""
        self._check_event("x", x, self.event_shape)
        context = self._embed(context)
        outside = self._outside(x)
        if outside is not None:
            # No finite point is known to be inside, but 0 keeps the gradients of the other rows finite.
            x = x.masked_fill(outside.view(outside.shape + (1,) * len(self.event_shape)), 0)
        z, log_det = self._inverse(x, context)
        log_prob = self._base_log_prob(z, context) + log_det
        return log_prob if outside is None else log_prob.masked_fill(outside, -torch.inf)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """log p(x | context) in nats.

        Args:
            x: shape `(*batch, *event_shape)`.
            context: shape `(*batch, context_features)`; broadcasts against the batch of `x`.

        Returns:
            shape `(*batch,)`; -inf outside the support, as at infinity.
        """
        log_prob: Tensor = self(x, context)
        return log_prob

    def sample(self, sample_shape: Shape = (), context: Tensor | None = None) -> Tensor:
        """Draws, without gradient.

        Args:
            sample_shape: draws per context, a number or a shape.
            context: shape `(*batch, context_features)`.

        Returns:
            shape `(*sample_shape, *batch, *event_shape)`.
        """
        with torch.no_grad():
            return self.rsample(sample_shape, context)

    def rsample(self, sample_shape: Shape = (), context: Tensor | None = None) -> Tensor:
        """Draws that are differentiable in the parameters and the context; shapes as in `sample`."""
        context = self._embed(context)
        x: Tensor = self.bijection(self._base_sample(sample_shape, context), self._for_bijection(context))[0]
        return x

    def rsample_and_log_prob(self, sample_shape: Shape = (), context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Differentiable draws and their log p(x | context), `(*sample_shape, *batch)`, in one generative pass."""
        context = self._embed(context)
        z = self._base_sample(sample_shape, context)
        x, log_det = self.bijection(z, self._for_bijection(context))
        return x, self._base_log_prob(z, context) - self._per_event(log_det)

    def to_base(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """z = f^-1(x | context), shape `(*batch, *base.event_shape)`."""
        self._check_event("x", x, self.event_shape)
        return self._inverse(x, self._embed(context))[0]

    def from_base(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """x = f(z | context), shape `(*batch, *event_shape)`, for a z of shape `(*batch, *base.event_shape)`."""
        self._check_event("z", z, self.base.event_shape)
        x: Tensor = self.bijection(z, self._for_bijection(self._embed(context)))[0]
        return x

    def compile(self, **options: Any) -> None:
        """Compile what costs one evaluation in closed form: draws, `log_prob`, and with it the steps of `train`.

        Takes effect in place; a direction that finds one feature after the other, or solves equations, is left as it
        is. Each first call for a shape takes the compiler seconds to minutes. Copies and saved flows are not compiled.
        Where there is no compiler, this warns and all goes on as before. On a CPU, coupling, autoregressive and planar
        layers with kernels of this library (`native_status`) are faster as they are: a flow of those is left alone.

        Args:
            options: for `torch.compile`, as `mode="max-autotune"`.

        Example:
            >>> flow = pf.real_nvp(features=2)
            >>> flow.compile(backend="eager")
            >>> flow.log_prob(torch.zeros(5, 2)).shape
            torch.Size([5])
        """
        if self._is_faster_by_kernels():
            return
        if failure := _compiler_failure(next(self.parameters(), torch.zeros(1)), options):
            warnings.warn(f"Flow.compile: no compiler works here, so nothing is compiled: {failure}", stacklevel=2)
            return
        if self.bijection.cheap in ("both", "inverse"):
            super().compile(**options)
            self.compiled_with = options
        if self.bijection.cheap in ("both", "forward"):
            self.bijection.compile(**options)

    def _is_faster_by_kernels(self) -> bool:
        """Whether this library's kernels serve layers of which the compiler makes slower code."""
        parameters = list(self.parameters())
        if not parameters or kernels_for(*parameters) is None:
            return False
        return any(isinstance(part, Bijection | Transformer) and part.outruns_compiler for part in self.modules())

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "compiled_with": None}  # type: ignore[no-untyped-call]

    def steps(self, context: Tensor | None = None) -> list[FlowDistribution]:
        """The distributions after 0, 1, ..., K layers, from the base to the data.

        Example:
            >>> [d.sample().shape for d in pf.planar(features=2, layers=3).steps()]
            [torch.Size([2]), torch.Size([2]), torch.Size([2]), torch.Size([2])]
        """
        self._check_context(context)
        layers = list(self.bijection.layers) if isinstance(self.bijection, Chain) else [self.bijection]
        heads = [Chain(*layers[:k]) for k in range(len(layers) + 1)]
        with torch.no_grad():
            embedded = self._embed(context)
        distributions = []
        for head in heads:
            part = Flow(head, self.base)
            distributions.append(part.distribution(embedded if part.context_features else None))
        return distributions

    def distribution(self, context: Tensor | None = None) -> FlowDistribution:
        """The flow, given a context `(*batch, context_features)`, as a torch distribution of batch shape `batch`."""
        self._check_context(context)
        return FlowDistribution(self, context)

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Let new layers that start from data, such as `ActNorm`, see a batch `x` of shape `(n, *event_shape)`."""
        self._check_event("x", x, self.event_shape)
        self.bijection.initialize(x, self._for_bijection(self._embed(context)))

    def _outside(self, x: Tensor) -> Tensor | None:
        """Which points lie at infinity; `None` if it is plain that none does."""
        # Where kernels may read x, so may this: on the CPU that is cheaper than what would come of an empty mask.
        if kernels_for(x) is not None and math.isfinite(x.detach().sum().item()):
            return None
        n = len(self.event_shape)
        return x.detach().abs().amax(dim=tuple(range(-n, 0))) == torch.inf if n else x.isinf()

    def _inverse(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        z, log_det = self.bijection.inverse(x, self._for_bijection(context))
        return z, self._per_event(log_det)

    def _per_event(self, log_det: Tensor) -> Tensor:
        return sum_rightmost(log_det, len(self.event_shape) - self.bijection.data_dim)

    def _base_sample(self, sample_shape: Shape, context: Tensor | None) -> Tensor:
        shape = tuple(sample_shape) if isinstance(sample_shape, Sequence) else (sample_shape,)
        if any(isinstance(size, float) or size < 0 for size in shape):
            raise ValueError(f"Flow: expected a sample_shape of integers >= 0, got {sample_shape}")
        return self.base.sample(shape, context)

    def _base_log_prob(self, z: Tensor, context: Tensor | None) -> Tensor:
        return self.base.log_prob(z, context if self.base.context_features else None)

    def _for_bijection(self, context: Tensor | None) -> Tensor | None:
        return context if self.bijection.context_features else None

    def _embed(self, context: Tensor | None) -> Tensor | None:
        self._check_context(context)
        if context is None or self.embedding is None:
            return context
        embedded: Tensor = self.embedding(context)
        if embedded.shape[-1] != self.context_features:
            raise ValueError(
                f"Flow: expected the embedding to return (*, {self.context_features}), got {tuple(embedded.shape)}"
            )
        return embedded

    def _check_event(self, name: str, value: Tensor, event_shape: tuple[int, ...]) -> None:
        check_event("Flow", name, value, event_shape)
        own = next(chain(self.base.parameters(), self.base.buffers()), None)
        if own is not None and own.is_floating_point() and value.dtype != own.dtype:
            raise ValueError(f"Flow: expected {name} in {own.dtype}, as the flow's own numbers, got {value.dtype}")

    def _check_context(self, context: Tensor | None) -> None:
        if self.embedding is None or context is None:
            check_context("Flow", context, self.context_features)


def _compiler_failure(like: Tensor, options: Mapping[str, Any]) -> str:
    """Why the smallest function does not compile; empty if it does."""
    try:
        torch.compile(torch.neg, **options)(like.detach().reshape(-1)[:1].clone())
    except Exception as error:  # of a kind that depends on the compiler
        return " ".join(str(error).split("\n\n")[0].split())  # without advice and trace
    return ""
