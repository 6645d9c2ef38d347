"""Matrices that are applied to a batch, and matrices with orthonormal columns."""

import torch
from torch import Tensor


def multiply(matrix: Tensor, rows: Tensor) -> Tensor:
    """A z for each row: `(*batch, m, n)` and `(*batch, n)` to `(*batch, m)`; under one matrix, a single product."""
    if matrix.dim() == 2:
        return rows @ matrix.mT
    return (matrix @ rows.unsqueeze(-1)).squeeze(-1)


def solve_triangular(matrix: Tensor, rows: Tensor, *, upper: bool, unitriangular: bool = False) -> Tensor:
    """The z of A z = x for each row x, with A, `(*batch, n, n)`, triangular; under one matrix, a single solve."""
    if torch.promote_types(matrix.dtype, rows.dtype) != matrix.dtype:
        raise ValueError(f"expected rows of the matrix's dtype {matrix.dtype}, got {rows.dtype}")  # torch would round
    one = matrix.dim() == 2
    right: Tensor = rows.reshape(-1, rows.shape[-1]) if one else rows.unsqueeze(-2)
    right = torch.linalg.solve_triangular(matrix.mT, right, upper=not upper, left=False, unitriangular=unitriangular)
    return right.reshape(rows.shape) if one else right.squeeze(-2)


def cayley(matrix: Tensor) -> Tensor:
    """The rotation (I + A)^-1 (I - A), A the skew matrix M - M^T, for M of shape `(*batch, n, n)`."""
    skew = matrix - matrix.mT
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    rotation: Tensor = torch.linalg.solve(eye + skew, eye - skew)
    return rotation


def rotation_exponential(matrix: Tensor) -> Tensor:
    """The rotation exp(M - M^T), for M of shape `(*batch, n, n)`."""
    rotation: Tensor = torch.linalg.matrix_exp(matrix - matrix.mT)
    return rotation


def orthonormal(matrix: Tensor) -> Tensor:
    """Gram and Schmidt's orthonormal columns of M, `(*batch, n, m)`, of rank m: the Q of M = Q R with diag(R) > 0."""
    q, r = torch.linalg.qr(matrix)
    # The signs that QR chooses jump with M; these do not.
    signs = torch.where(r.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(q.dtype)
    columns: Tensor = q * signs.unsqueeze(-2)
    return columns


def reflections(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """The factors U and S of a product of Householder reflections, H_k ... H_1 = I - U^T S, each `(*batch, k, n)`.

    U holds the unit vectors, and S = (strictly lower part of U U^T + I / 2)^-1 U.
    """
    tiny = torch.finfo(vectors.dtype).tiny
    unit = vectors * vectors.square().sum(-1, keepdim=True).clamp_min(tiny).rsqrt()
    half = 0.5 * torch.eye(vectors.shape[-2], dtype=vectors.dtype, device=vectors.device)
    lower = (unit @ unit.mT).tril(-1) + half
    return unit, torch.linalg.solve_triangular(lower, unit, upper=False)
