"""A fixed change of units."""

from collections.abc import Sequence

from torch import Tensor, nn

from pushforward.numerics import floating


class Rescale(nn.Module):
    """(c - loc) / scale, fixed: as the embedding of a flow, it standardises the context.

    Args:
        loc: shape `(features,)`, in the units of c.
        scale: shape `(features,)`, positive.

    Raises:
        ValueError: the shapes differ, or a scale is not positive.

    Example:
        >>> Rescale([1.0, 2.0], [2.0, 2.0])(torch.tensor([3.0, 2.0]))
        tensor([1., 0.])
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, loc: Tensor | Sequence[float], scale: Tensor | Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("loc", floating(loc))
        self.register_buffer("scale", floating(scale))
        if self.loc.dim() != 1 or self.scale.shape != self.loc.shape or not bool((self.scale > 0).all()):
            raise ValueError(f"Rescale: expected loc and positive scale of one shape, got {self.loc} and {self.scale}")

    def forward(self, context: Tensor) -> Tensor:
        return (context - self.loc) / self.scale
