"""Velocity fields of continuous flows."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pushforward.nn.mlp import MLP


class Velocity(nn.Module):
    r"""v(t, z, context): a multilayer perceptron of z, the first Chebyshev polynomials of 2t - 1, and the context.

    Starts at zero. It knows the trace of its Jacobian in z, without the overhead of automatic differentiation.

    Args:
        features: size of z.
        context_features: size of the context.
        hidden_features: widths of the hidden layers; `()` makes v affine in z.
        time_features: number of polynomials, 0 for a field that does not depend on the time. More resolve changes
            near t = 0 and t = 1, and make the solver take smaller steps.
        activation: class of the nonlinearity; smooth, as the solver's accuracy needs it.

    Example:
        >>> Velocity(2, context_features=3)(torch.zeros(5), torch.ones(5, 2), torch.ones(5, 3)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        features: int,
        context_features: int = 0,
        hidden_features: Sequence[int] = (64, 64),
        *,
        time_features: int = 2,
        activation: type[nn.Module] = nn.SiLU,
    ) -> None:
        super().__init__()
        if time_features < 0:
            raise ValueError(f"Velocity: expected time_features >= 0, got {time_features}")
        self.features = features
        self.context_features = context_features
        self.hidden_features = tuple(hidden_features)
        self.time_features = time_features
        self.activation = activation
        self.network = MLP(
            features + time_features + context_features, features, self.hidden_features, activation=activation
        )
        self.network.start_at_(torch.zeros(features))

    def forward(self, t: Tensor, z: Tensor, context: Tensor | None = None) -> Tensor:
        """dz/dt.

        Args:
            t: shape `(*batch,)`, times in [0, 1].
            z: shape `(*batch, features)`.
            context: shape `(*batch, context_features)`.
        """
        velocity: Tensor = self.network(self._inputs(t, z, context))
        return velocity

    def value_and_trace(
        self, t: Tensor, z: Tensor, context: Tensor | None = None, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The velocity, and the trace of its Jacobian in z, `(*batch,)`: exact, or Hutchinson's estimate with `noise`.

        Example:
            >>> v = Velocity(2, hidden_features=())
            >>> with torch.no_grad():
            ...     _ = v.network.layers[-1].weight.copy_(torch.tensor([[3.0, 0, 0, 0], [0, 4.0, 0, 0]]))
            >>> v.value_and_trace(torch.zeros(1), torch.ones(1, 2))[1]
            tensor([7.], grad_fn=<ExpandBackward0>)
        """
        head, *rest = self.network.layers
        assert isinstance(head, nn.Linear)
        into = head.weight[:, : self.features]
        # Rows are derivatives of the hidden units: along every feature, (d, width), or along the noise.
        along = into.mT if noise is None else F.linear(noise, into)
        value = head(self._inputs(t, z, context))
        for activation, linear in zip(rest[::2], rest[1::2], strict=True):
            assert isinstance(linear, nn.Linear)
            value, slope = _activated(activation, value)
            if noise is not None:
                along = F.linear(along * slope, linear.weight)
            elif linear is not rest[-1]:
                along = F.linear(along * slope.unsqueeze(-2), linear.weight)
            else:
                along = slope * (along * linear.weight).sum(-2)
            value = linear(value)
        if noise is not None:
            return value, (along * noise).sum(-1)
        return value, along.sum(-1) if rest else along.diagonal().sum().expand(z.shape[:-1])

    def _inputs(self, t: Tensor, z: Tensor, context: Tensor | None) -> Tensor:
        parts = [z]
        if self.time_features:
            s = 2 * t - 1
            polynomials = [torch.ones_like(s), s]
            for _ in range(self.time_features - 1):
                polynomials.append(2 * s * polynomials[-1] - polynomials[-2])
            parts.append(torch.stack(polynomials[1 : self.time_features + 1], dim=-1))
        if context is not None:
            parts.append(context)
        return torch.cat(parts, dim=-1)


def _activated(activation: nn.Module, a: Tensor) -> tuple[Tensor, Tensor]:
    """An elementwise activation and its derivative."""
    if isinstance(activation, nn.SiLU):
        s = torch.sigmoid(a)
        value = a * s
        return value, s + value * (1 - s)
    if isinstance(activation, nn.Tanh):
        value = torch.tanh(a)
        return value, 1 - value.square()
    value, pull = torch.func.vjp(activation, a)  # type: ignore[misc]
    return value, pull(torch.ones_like(a))[0]
