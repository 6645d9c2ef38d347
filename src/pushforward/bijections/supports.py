"""Maps of whole vectors onto simplices, ordered vectors and matrices of several kinds; a map onto any constraint.

Each takes vectors of any length that fits. Outside of its codomain it answers a log-determinant of -inf, as in
`pushforward.bijections.fixed`; rounding, of 1e-6 or 10 d eps, is allowed where the codomain is a surface.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import biject_to as torch_biject_to
from torch.distributions import constraints, transforms

from pushforward.bijections.base import Bijection
from pushforward.bijections.compose import Chain
from pushforward.bijections.fixed import GreaterThan, Interval, LessThan
from pushforward.bijections.parts import Concatenate, Independent, Stack
from pushforward.bijections.torch_adapter import FromTorch

LOG_2 = math.log(2.0)
Shape = tuple[int, ...]


class Simplex(Bijection):
    r"""x_k = \sigma(z_k - log(d + 1 - k)) (1 - x_1 - ... - x_{k-1}): R^d onto d + 1 positive shares of sum 1.

    The stick is broken piece by piece; z = 0 goes to equal shares. The log-determinant is that of x_1, ..., x_d.

    Reference:
        Stan Development Team, Stan Reference Manual, section "Simplex transform"; as in torch.distributions, but
        without clamps: what is left of the stick is summed from its end.

    Example:
        >>> x, log_det = Simplex()(torch.zeros(2))
        >>> x
        tensor([0.3333, 0.3333, 0.3333])
    """

    codomain = constraints.simplex

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        offset = self._offset(z)
        t = z - offset.log()
        log_taken, log_left = F.logsigmoid(t), F.logsigmoid(-t)
        x = (F.pad(log_taken, (0, 1)) + F.pad(log_left.cumsum(-1), (1, 0))).exp()
        return x, (log_taken + offset * log_left).sum(-1)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        inside = (x > 0).all(-1) & ((x.sum(-1) - 1).abs() <= _tolerance(x))
        safe = torch.where(inside.unsqueeze(-1), x, 1.0)
        left = safe.flip(-1).cumsum(-1).flip(-1)[..., 1:]
        t = safe[..., :-1].log() - left.log()
        offset = self._offset(t)
        log_det = -(F.logsigmoid(t) + offset * F.logsigmoid(-t)).sum(-1)
        return t + offset.log(), torch.where(inside, log_det, -torch.inf)

    def forward_shape(self, shape: Shape) -> Shape:
        return (*_leading(self, shape, 1), shape[-1] + 1)

    def inverse_shape(self, shape: Shape) -> Shape:
        return (*_leading(self, shape, 1), shape[-1] - 1)

    def chart(self, x: Tensor) -> Tensor:
        return x[..., :-1]

    @staticmethod
    def _offset(z: Tensor) -> Tensor:
        """d, ..., 1."""
        return torch.arange(z.shape[-1], 0, -1, dtype=z.dtype, device=z.device)


class _OrderedConstraint(constraints.Constraint):
    """Increasing vectors."""

    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        return (value.diff(dim=-1) > 0).all(-1) & value.isfinite().all(-1)


class Ordered(Bijection):
    """x_1 = z_1, x_k = x_{k-1} + exp(z_k), onto increasing vectors x_1 < ... < x_d.

    Example:
        >>> Ordered()(torch.zeros(3))[0]
        tensor([0., 1., 2.])
    """

    codomain = _OrderedConstraint()

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = torch.cat([z[..., :1], z[..., 1:].exp()], -1).cumsum(-1)
        return x, z[..., 1:].sum(-1)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        inside = self.codomain.check(x)
        anchor = torch.arange(x.shape[-1], dtype=x.dtype, device=x.device)
        safe = torch.where(inside.unsqueeze(-1), x, anchor)
        log_steps = safe.diff(dim=-1).log()
        return torch.cat([safe[..., :1], log_steps], -1), torch.where(inside, -log_steps.sum(-1), -torch.inf)


class Cholesky(Bijection):
    """z, d (d + 1) / 2 numbers, as the lower triangle of a d x d matrix, row by row, the diagonal by its exponential.

    Onto the lower triangular matrices of positive diagonal. The log-determinant is that of the triangle.

    Example:
        >>> Cholesky()(torch.tensor([0.0, 5.0, 0.0]))[0]
        tensor([[1., 0.],
                [5., 1.]])
    """

    codomain: constraints.Constraint = constraints.lower_cholesky

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        matrix = _to_lower(z, _size(self, z.shape, 0), 0)
        log_diagonal = matrix.diagonal(dim1=-2, dim2=-1)
        return matrix.tril(-1) + log_diagonal.exp().diag_embed(), log_diagonal.sum(-1)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        positive = (x.diagonal(dim1=-2, dim2=-1) > 0).all(-1)
        inside = positive & (x.triu(1) == 0).all((-2, -1)) & x.isfinite().all((-2, -1))
        safe = torch.where(inside[..., None, None], x, _eye(x))
        log_diagonal = safe.diagonal(dim1=-2, dim2=-1).log()
        z = _from_lower(safe.tril(-1) + log_diagonal.diag_embed(), 0)
        return z, torch.where(inside, -log_diagonal.sum(-1), -torch.inf)

    @property
    def data_dim(self) -> int:
        return 2

    def forward_shape(self, shape: Shape) -> Shape:
        d = _size(self, shape, 0)
        return (*shape[:-1], d, d)

    def inverse_shape(self, shape: Shape) -> Shape:
        d = _square(self, shape)
        return (*shape[:-2], d * (d + 1) // 2)

    def chart(self, x: Tensor) -> Tensor:
        return _from_lower(x, 0)


class PositiveDefinite(Cholesky):
    """x = L L^T with L = `Cholesky()(z)`, onto the symmetric positive definite matrices.

    The log-determinant is that of the lower triangle of x. The inverse has the condition of x.

    Example:
        >>> PositiveDefinite()(torch.tensor([0.0, 2.0, 0.0]))[0]
        tensor([[1., 2.],
                [2., 5.]])
    """

    codomain = constraints.positive_definite

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        lower, log_det = super().forward(z)
        return lower @ lower.mT, log_det + self._log_det_of_square(lower)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        slack = _tolerance(x) * x.abs().amax((-2, -1), keepdim=True)
        inside = ((x - x.mT).abs() <= slack).all((-2, -1)) & x.isfinite().all((-2, -1))
        with torch.no_grad():
            inside = inside & (torch.linalg.cholesky_ex(torch.where(inside[..., None, None], x, _eye(x)))[1] == 0)
        lower = torch.linalg.cholesky_ex(torch.where(inside[..., None, None], x, _eye(x)))[0]
        z, log_det = super().inverse(lower)
        return z, torch.where(inside, log_det - self._log_det_of_square(lower), -torch.inf)

    @staticmethod
    def _log_det_of_square(lower: Tensor) -> Tensor:
        """Of L -> L L^T between lower triangles: 2^d L_11^d L_22^(d - 1) ... L_dd."""
        d = lower.shape[-1]
        powers = torch.arange(d, 0, -1, dtype=lower.dtype, device=lower.device)
        return d * LOG_2 + (powers * lower.diagonal(dim1=-2, dim2=-1).log()).sum(-1)


class CorrCholesky(Bijection):
    r"""Cholesky factors of correlation matrices: lower triangular, of positive diagonal and rows of norm 1.

    z, d (d - 1) / 2 numbers, is the strictly lower triangle row by row;
    x_ij = tanh(z_ij) / (cosh(z_i1) ... cosh(z_i,j-1)), x_ii = 1 / (cosh(z_i1) ... cosh(z_i,i-1)). The
    log-determinant is that of the strictly lower triangle. Saturates where the product of the cosh reaches 1e150 in
    float64, 1e18 in float32.

    Reference:
        Lewandowski, Kurowicka and Joe, Generating random correlation matrices based on vines and extended onion method,
        2009, doi 10.1016/j.jmva.2009.04.008; values as in torch.distributions, but without clamps.

    Example:
        >>> CorrCholesky()(torch.tensor([1.0]))[0]
        tensor([[1.0000, 0.0000],
                [0.7616, 0.6481]])
    """

    codomain = constraints.corr_cholesky

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_sech = _log_sech(z)
        d = _size(self, z.shape, -1)
        log_left = _to_lower(log_sech, d, -1).cumsum(-1)
        before = F.pad(log_left, (1, 0))[..., :-1].exp()
        x = _to_lower(z.tanh(), d, -1) * before + log_left[..., -1].exp().diag_embed()
        return x, self._log_det(log_sech, d)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        squares = x.square()
        inside = (x.diagonal(dim1=-2, dim2=-1) > 0).all(-1) & (x.triu(1) == 0).all((-2, -1))
        inside = inside & ((squares.sum(-1) - 1).abs() <= _tolerance(x)).all(-1)
        safe = torch.where(inside[..., None, None], x, _eye(x))
        left = safe.square().flip(-1).cumsum(-1).flip(-1)
        after = _from_lower(F.pad(left[..., 1:], (0, 1), value=1.0), -1)
        z = torch.asinh(_from_lower(safe, -1) * after.rsqrt())
        return z, torch.where(inside, -self._log_det(_log_sech(z), x.shape[-1]), -torch.inf)

    @property
    def data_dim(self) -> int:
        return 2

    def forward_shape(self, shape: Shape) -> Shape:
        d = _size(self, shape, -1)
        return (*shape[:-1], d, d)

    def inverse_shape(self, shape: Shape) -> Shape:
        d = _square(self, shape)
        return (*shape[:-2], d * (d - 1) // 2)

    def chart(self, x: Tensor) -> Tensor:
        return _from_lower(x, -1)

    @staticmethod
    def _log_det(log_sech: Tensor, d: int) -> Tensor:
        """z_ij is a factor sech^2 of its own x_ij, and sech of the i - j - 1 that follow in its row."""
        i, j = torch.tril_indices(d, d, -1, device=log_sech.device)
        log_det: Tensor = ((i - j + 1) * log_sech).sum(-1)
        return log_det


def biject_to(constraint: constraints.Constraint) -> Bijection:
    """The bijection of an unconstrained space onto a constraint of torch.distributions.

    Values and log-determinants are those of `torch.distributions.biject_to`, but exact in the tails, and -inf, not an
    error, outside; `lower_cholesky`, `positive_definite` and `positive_semidefinite` have one too. The ends of closed
    intervals are not reached. A `dim` >= 0 of `cat` and `stack` counts from the front of one event, without a batch.
    Other constraints get what is registered for them with `torch.distributions.biject_to`, by Pyro for example.

    Args:
        constraint: an instance, as `constraints.positive` or the `support` of a distribution.

    Raises:
        ValueError: if no bijection of a real space fits, as for discrete values.

    Example:
        >>> from torch.distributions import Beta, constraints
        >>> biject_to(Beta(1.0, 2.0).support)(torch.zeros(3))[0]
        tensor([0.5000, 0.5000, 0.5000])
        >>> biject_to(constraints.independent(constraints.greater_than(1.0), 1))(torch.ones(3))[1]
        tensor(3.)
    """
    for kinds, build in _BUILDERS:
        if isinstance(constraint, kinds):
            return build(constraint)
    try:
        return _from_torch(torch_biject_to(constraint))
    except NotImplementedError:
        raise ValueError(
            f"biject_to: expected a constraint that is the image of some real space, got {constraint}"
        ) from None


def _from_torch(transform: transforms.Transform) -> Bijection:
    """Composed and inverted transforms part by part, so that each can be written to a file."""
    if isinstance(transform, transforms.ComposeTransform):
        return Chain(*(_from_torch(part) for part in transform.parts))
    if isinstance(transform, transforms._InverseTransform):
        return _from_torch(transform.inv).inv
    return FromTorch(transform)


def _independent(c: Any) -> Bijection:
    inner, dims = biject_to(c.base_constraint), c.reinterpreted_batch_ndims
    return Independent(inner, dims) if dims else inner


def _cat(c: Any) -> Bijection:
    parts = [biject_to(part) for part in c.cseq]
    dim = c.dim if c.dim < 0 else c.dim - max(c.dim + 1, *(part.data_dim for part in parts))
    lengths = [
        part.inverse_shape((length,) + (1,) * (-dim - 1))[dim] for part, length in zip(parts, c.lengths, strict=True)
    ]
    return Concatenate(parts, lengths, dim)


def _stack(c: Any) -> Bijection:
    parts = [biject_to(part) for part in c.cseq]
    return Stack(parts, c.dim if c.dim < 0 else c.dim - max(c.dim + 1, *(part.data_dim + 1 for part in parts)))


_BUILDERS: list[tuple[tuple[type, ...], Callable[[Any], Bijection]]] = [
    ((constraints.independent,), _independent),
    ((type(constraints.real),), lambda c: Chain()),
    ((constraints.greater_than, constraints.greater_than_eq), lambda c: GreaterThan(c.lower_bound)),
    ((constraints.less_than,), lambda c: LessThan(c.upper_bound)),
    ((constraints.interval, constraints.half_open_interval), lambda c: Interval(c.lower_bound, c.upper_bound)),
    ((type(constraints.simplex),), lambda c: Simplex()),
    ((_OrderedConstraint,), lambda c: Ordered()),
    ((type(constraints.lower_cholesky),), lambda c: Cholesky()),
    ((type(constraints.corr_cholesky),), lambda c: CorrCholesky()),
    ((type(constraints.positive_definite), type(constraints.positive_semidefinite)), lambda c: PositiveDefinite()),
    ((constraints.cat,), _cat),
    ((constraints.stack,), _stack),
]


def _tolerance(x: Tensor) -> float:
    """Rounding that is forgiven when a point of a surface is checked."""
    return max(1e-6, 10 * x.shape[-1] * torch.finfo(x.dtype).eps)


def _log_sech(z: Tensor) -> Tensor:
    return LOG_2 + 0.5 * (F.logsigmoid(2 * z) + F.logsigmoid(-2 * z))


def _eye(x: Tensor) -> Tensor:
    return torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)


def _to_lower(values: Tensor, d: int, offset: int) -> Tensor:
    """`(*, n)` as the lower triangle of `(*, d, d)`, row by row, from the diagonal of the given offset, 0 or -1, on."""
    i = torch.arange(d, device=values.device).unsqueeze(-1)
    j = torch.arange(d, device=values.device)
    place = torch.where(j <= i + offset, i * (i + 1 + 2 * offset) // 2 + j, values.shape[-1])
    lower: Tensor = F.pad(values, (0, 1)).index_select(-1, place.flatten()).unflatten(-1, (d, d))
    return lower


def _from_lower(matrix: Tensor, offset: int) -> Tensor:
    d = matrix.shape[-1]
    i, j = torch.tril_indices(d, d, offset, device=matrix.device)
    return matrix.flatten(-2).index_select(-1, i * d + j)


def _size(owner: Bijection, shape: Shape, offset: int) -> int:
    """d, given n = d (d + 1) / 2 numbers, or d (d - 1) / 2 for offset -1."""
    _leading(owner, shape, 1)
    n = shape[-1]
    d = (math.isqrt(8 * n + 1) - 1) // 2
    if d * (d + 1) // 2 != n:
        sign = "+" if offset == 0 else "-"
        raise ValueError(
            f"{type(owner).__name__}: expected a vector of d (d {sign} 1) / 2 numbers, 1, 3, 6, ..., got {tuple(shape)}"
        )
    return d - offset


def _square(owner: Bijection, shape: Shape) -> int:
    _leading(owner, shape, 2)
    if shape[-1] != shape[-2]:
        raise ValueError(f"{type(owner).__name__}: expected square matrices, got {tuple(shape)}")
    return shape[-1]


def _leading(owner: Bijection, shape: Shape, dims: int) -> Shape:
    if len(shape) < dims:
        raise ValueError(f"{type(owner).__name__}: expected at least {dims} dimensions, got {tuple(shape)}")
    return tuple(shape[:-dims])
