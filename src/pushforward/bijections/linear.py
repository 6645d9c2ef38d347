"""Linear maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pushforward.bijections.base import Bijection
from pushforward.bijections.orthogonal import paired_vectors
from pushforward.nn import Parameters
from pushforward.numerics import multiply, reflections, solve_triangular


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
        if not self.indices or sorted(self.indices) != list(range(len(self.indices))):
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
        self._set_sizes(features, context_features, hidden_features)
        # One matrix holds both factors: L below the diagonal, the logarithm of U's diagonal on it, U above.
        self.params = Parameters(
            [torch.zeros(features, features), torch.zeros(features)], context_features, hidden_features
        )

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        lower, upper, log_diagonal, bias = self._factors(context)
        one = lower.dim() == 2
        x = (multiply(lower @ upper, z) if one else multiply(lower, multiply(upper, z))) + bias
        return x, log_diagonal.sum(-1).expand(x.shape[:-1])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        lower, upper, log_diagonal, bias = self._factors(context)
        z = solve_triangular(lower, x - bias, upper=False, unitriangular=True)
        z = solve_triangular(upper, z, upper=True)
        return z, -log_diagonal.sum(-1).expand(z.shape[:-1])

    def _factors(self, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        matrix, bias = self.params(context)
        log_diagonal = matrix.diagonal(dim1=-2, dim2=-1)
        lower = matrix.tril(-1) + torch.eye(self.features, dtype=matrix.dtype, device=matrix.device)
        upper = matrix.triu(1) + torch.diag_embed(log_diagonal.exp())
        return lower, upper, log_diagonal, bias


class Triangular(Bijection):
    """x = T z + b with T triangular, its diagonal positive.

    Starts at the identity. In a chain of them and `Permutation`s it is the linear part of an autoregressive layer.

    Args:
        features: size of the event.
        upper: T is upper triangular, rather than lower.
        context_features: size of the context.
        hidden_features: widths of the network that makes T and b from the context.

    Reference:
        Papamakarios et al., Normalizing Flows for Probabilistic Modeling and Inference, 2021, arXiv 1912.02762,
        section 3.1.3.

    Example:
        >>> Triangular(3, upper=True)(torch.ones(5, 3))[1].shape
        torch.Size([5])
    """

    def __init__(
        self,
        features: int,
        *,
        upper: bool = False,
        context_features: int = 0,
        hidden_features: Sequence[int] = (64, 64),
    ) -> None:
        super().__init__()
        self._set_sizes(features, context_features, hidden_features)
        self.upper = upper
        # The diagonal of the matrix holds the logarithms of T's.
        self.params = Parameters(
            [torch.zeros(features, features), torch.zeros(features)], context_features, hidden_features
        )

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        triangle, log_diagonal, bias = self._factors(context)
        x = multiply(triangle, z) + bias
        return x, log_diagonal.sum(-1).expand(x.shape[:-1])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        triangle, log_diagonal, bias = self._factors(context)
        z = solve_triangular(triangle, x - bias, upper=self.upper)
        return z, -log_diagonal.sum(-1).expand(z.shape[:-1])

    def _factors(self, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        matrix, bias = self.params(context)
        log_diagonal = matrix.diagonal(dim1=-2, dim2=-1)
        strict = matrix.triu(1) if self.upper else matrix.tril(-1)
        return strict + torch.diag_embed(log_diagonal.exp()), log_diagonal, bias


class QR(Bijection):
    """x = Q R z + b with Q a product of Householder reflections and R upper triangular, its diagonal positive.

    Starts at the identity. With as many reflections as features it reaches every linear map of positive determinant,
    or of negative determinant if the number of reflections is odd.

    Args:
        features: size of the event.
        reflections: how many, an even number to start at the identity; by default as many as features, or one more.
        context_features: size of the context.
        hidden_features: widths of the network that makes Q, R and b from the context.

    Raises:
        ValueError: for fewer than one reflection.

    Reference:
        Hoogeboom et al., Emerging Convolutions for Generative Normalizing Flows, 2019, arXiv 1901.11137.

    Example:
        >>> QR(3)(torch.ones(5, 3))[1].shape
        torch.Size([5])
    """

    def __init__(
        self,
        features: int,
        reflections: int | None = None,
        *,
        context_features: int = 0,
        hidden_features: Sequence[int] = (64, 64),
    ) -> None:
        super().__init__()
        self._set_sizes(features, context_features, hidden_features)
        reflections = features + features % 2 if reflections is None else reflections
        if reflections < 1:
            raise ValueError(f"QR: expected reflections >= 1, got {reflections}")
        self.reflections = reflections
        # One matrix holds R, the logarithm of its diagonal on the diagonal.
        start = [torch.zeros(features, features), torch.zeros(features), paired_vectors(reflections, features)]
        self.params = Parameters(start, context_features, hidden_features)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        upper, log_diagonal, bias, u, s = self._factors(context)
        if upper.dim() == 2:
            x = multiply(upper - u.mT @ (s @ upper), z) + bias
        else:
            x = multiply(upper, z)
            x = x - multiply(u.mT, multiply(s, x)) + bias
        return x, log_diagonal.sum(-1).expand(x.shape[:-1])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        upper, log_diagonal, bias, u, s = self._factors(context)
        z = x - bias
        z = solve_triangular(upper, z - multiply(s.mT, multiply(u, z)), upper=True)
        return z, -log_diagonal.sum(-1).expand(z.shape[:-1])

    def _factors(self, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        matrix, bias, vectors = self.params(context)
        log_diagonal = matrix.diagonal(dim1=-2, dim2=-1)
        return matrix.triu(1) + torch.diag_embed(log_diagonal.exp()), log_diagonal, bias, *reflections(vectors)


class MatrixExponential(Bijection):
    """x = exp(W) z + b; the log-determinant is the trace of W, and the inverse takes exp(-W).

    Starts at the identity.

    Args:
        features: size of the event.
        context_features: size of the context.
        hidden_features: widths of the network that makes W and b from the context.

    Reference:
        Xiao and Liu, Generative Flows with Matrix Exponential, 2020, arXiv 2007.09651.

    Example:
        >>> MatrixExponential(3)(torch.ones(5, 3))[1].shape
        torch.Size([5])
    """

    def __init__(self, features: int, *, context_features: int = 0, hidden_features: Sequence[int] = (64, 64)) -> None:
        super().__init__()
        self._set_sizes(features, context_features, hidden_features)
        self.params = Parameters(
            [torch.zeros(features, features), torch.zeros(features)], context_features, hidden_features
        )

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        matrix, bias = self.params(context)
        x = multiply(torch.linalg.matrix_exp(matrix), z) + bias
        return x, _trace(matrix).expand(x.shape[:-1])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        matrix, bias = self.params(context)
        z = multiply(torch.linalg.matrix_exp(-matrix), x - bias)
        return z, -_trace(matrix).expand(z.shape[:-1])


def _trace(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1).sum(-1)
