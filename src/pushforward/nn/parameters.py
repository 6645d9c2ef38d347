"""Parameters of layers and bases: constants, or functions of the context."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pushforward.nn.mlp import MLP
from pushforward.numerics import unaliased


class Parameters(nn.Module):
    """Tensors that are learnable constants or, given a context, constants plus a network of the context.

    This is the one way in which layers and bases become conditional. The network starts at zero, so that
    a conditional layer starts where the unconditional one does.

    Args:
        initial: the starting values, one tensor per parameter.
        context_features: size of the context; 0 makes constants.
        hidden_features: widths of the network's hidden layers.

    Example:
        >>> shift, matrix = Parameters([torch.zeros(2), torch.eye(2)], context_features=3)(torch.ones(7, 3))
        >>> shift.shape, matrix.shape
        (torch.Size([7, 2]), torch.Size([7, 2, 2]))
    """

    def __init__(
        self, initial: Sequence[Tensor], context_features: int = 0, hidden_features: Sequence[int] = (64, 64)
    ) -> None:
        super().__init__()
        self.shapes = [tuple(value.shape) for value in initial]
        self.sizes = [value.numel() for value in initial]
        self.context_features = context_features
        self.constants = nn.Parameter(torch.cat([value.detach().reshape(-1) for value in initial]))
        self.network: MLP | None = None
        if context_features:
            self.network = MLP(context_features, sum(self.sizes), hidden_features)
            self.network.start_at_(torch.zeros_like(self.constants))

    def forward(self, context: Tensor | None = None) -> tuple[Tensor, ...]:
        """The parameters, `(*shape,)` each, or `(*batch, *shape)` for a context `(*batch, context_features)`."""
        flat: Tensor = self.constants
        if self.network is not None:
            flat = flat + self.network(context)
        return self.parts(flat)

    @torch.no_grad()
    def set_(self, *values: Tensor) -> None:
        """Replace the constants."""
        self.constants.copy_(torch.cat([value.reshape(-1) for value in values]))

    def parts(self, flat: Tensor) -> tuple[Tensor, ...]:
        """The parameters, `(*batch, *shape)` each, that lie side by side in `flat`, `(*batch, numbers)`."""
        parts = unaliased(flat.split(self.sizes, dim=-1))
        return tuple(part.reshape(flat.shape[:-1] + shape) for part, shape in zip(parts, self.shapes, strict=True))
