"""Linear maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pushforward.bijections.base import Bijection
from pushforward.nn import Parameters


class Permutation(Bijection):
    """x_i = z_{indices[i]}.

    Args:
        indices: a permutation of 0, ..., features - 1.

    Example:
        >>> Permutation([2, 0, 1])(torch.tensor([10.0, 11.0, 12.0]))[0]
        tensor([12., 10., 11.])
    """

    index: Tensor
    index_inverse: Tensor

    def __init__(self, indices: Sequence[int]) -> None:
        super().__init__()
        self.indices = tuple(int(i) for i in indices)
        if sorted(self.indices) != list(range(len(self.indices))):
            raise ValueError(
                f"Permutation: expected a permutation of 0, ..., {len(self.indices) - 1}, got {self.indices}"
            )
        self.event_shape = (len(self.indices),)
        self.register_buffer("index", torch.tensor(self.indices, dtype=torch.long), persistent=False)
        self.register_buffer("index_inverse", self.index.argsort(), persistent=False)

    @classmethod
    def reverse(cls, features: int) -> Permutation:
        """The permutation that reverses the order."""
        return cls(range(features - 1, -1, -1))

    @classmethod
    def random(cls, features: int, seed: int = 0) -> Permutation:
        """A random permutation, the same for the same seed."""
        return cls(torch.randperm(features, generator=torch.Generator().manual_seed(seed)).tolist())

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z.index_select(-1, self.index), z.new_zeros(z.shape[:-1])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x.index_select(-1, self.index_inverse), x.new_zeros(x.shape[:-1])


class LU(Bijection):
    """x = L U z + b with L unit lower and U upper triangular, the diagonal of U positive.

    Starts at the identity. Put a `Permutation` before or after it for maps that have no such factors.

    Args:
        features: size of the event.
        context_features: size of the context.
        hidden_features: widths of the network that makes L, U and b from the context.

    Reference:
        Kingma and Dhariwal, Glow, 2018, arXiv 1807.03039; Oliva et al., Transformation Autoregressive Networks,
        2018, arXiv 1801.09819.

    Example:
        >>> LU(3)(torch.ones(5, 3))[1].shape
        torch.Size([5])
    """

    def __init__(self, features: int, *, context_features: int = 0, hidden_features: Sequence[int] = (64, 64)) -> None:
        super().__init__()
        self.features = features
        self.event_shape = (features,)
        self.context_features = context_features
        self.hidden_features = tuple(hidden_features)
        # One matrix holds both factors: L below the diagonal, the logarithm of U's diagonal on it, U above.
        self.params = Parameters(
            [torch.zeros(features, features), torch.zeros(features)], context_features, hidden_features
        )

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        lower, upper, log_diagonal, bias = self._factors(context)
        x = (lower @ (upper @ z.unsqueeze(-1))).squeeze(-1) if self.context_features else z @ (lower @ upper).mT
        x = x + bias
        return x, log_diagonal.sum(-1).expand(x.shape[:-1])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        lower, upper, log_diagonal, bias = self._factors(context)
        # Rows as one right-hand side: a whole batch at once where the factors are constant.
        rows = (x - bias).unsqueeze(-2) if self.context_features else (x - bias).reshape(-1, self.features)
        rows = torch.linalg.solve_triangular(lower.mT, rows, upper=True, left=False, unitriangular=True)
        rows = torch.linalg.solve_triangular(upper.mT, rows, upper=False, left=False)
        z = rows.squeeze(-2) if self.context_features else rows.reshape(x.shape)
        return z, -log_diagonal.sum(-1).expand(z.shape[:-1])

    def _factors(self, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        matrix, bias = self.params(context)
        log_diagonal = matrix.diagonal(dim1=-2, dim2=-1)
        lower = matrix.tril(-1) + torch.eye(self.features, dtype=matrix.dtype, device=matrix.device)
        upper = matrix.triu(1) + torch.diag_embed(log_diagonal.exp())
        return lower, upper, log_diagonal, bias
