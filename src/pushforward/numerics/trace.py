"""The trace of a Jacobian: exactly, or by Hutchinson's estimator."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Noise = Literal["rademacher", "gaussian"]


def exact_trace(function: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    r"""v(z) and $\mathrm{tr}\, \partial v/\partial z$ by d reverse-mode products at once.

    Args:
        function: v, row by row `(*batch, d)` to `(*batch, d)`.
        z: shape `(*batch, d)`.

    Returns:
        shapes `(*batch, d)` and `(*batch,)`.

    Example:
        >>> value, trace = exact_trace(lambda z: z**2, torch.tensor([1.0, 3.0]))
        >>> value, trace
        (tensor([1., 9.]), tensor(8.))
    """

    value, pull = torch.func.vjp(function, z)  # type: ignore[misc]

    def along(direction: Tensor) -> Tensor:
        (row,) = pull(direction.expand(z.shape))
        product: Tensor = (row * direction).sum(-1)
        return product

    basis = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
    return value, torch.func.vmap(along)(basis).sum(0)


def hutchinson_trace(function: Callable[[Tensor], Tensor], z: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    r"""v(z) and $\epsilon^\top (\partial v/\partial z) \epsilon$, whose mean over $\epsilon$ is the trace.

    Args:
        function: v, row by row `(*batch, d)` to `(*batch, d)`.
        z: shape `(*batch, d)`.
        noise: $\epsilon$ as `probe` draws it, shape `(*batch, d)`.

    Returns:
        shapes `(*batch, d)` and `(*batch,)`.

    Reference:
        Hutchinson, A stochastic estimator of the trace of the influence matrix, 1989.

    Example:
        >>> hutchinson_trace(lambda z: z**2, torch.tensor([1.0, 3.0]), torch.tensor([1.0, -1.0]))[1]
        tensor(8.)
    """
    value, pull = torch.func.vjp(function, z)  # type: ignore[misc]
    return value, (pull(noise)[0] * noise).sum(-1)


def probe(like: Tensor, noise: Noise = "rademacher") -> Tensor:
    """Independent draws of mean 0 and variance 1, signs or normal ones, shaped as `like`, by the global generator.

    Example:
        >>> probe(torch.zeros(3, 2)).abs()
        tensor([[1., 1.],
                [1., 1.],
                [1., 1.]])
    """
    if noise == "gaussian":
        return torch.randn_like(like)
    return torch.where(torch.rand_like(like) < 0.5, -1.0, 1.0).to(like.dtype)
