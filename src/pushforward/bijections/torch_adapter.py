"""Bijections from and to the transforms of torch.distributions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Transform, biject_to, constraints
from torch.distributions.transforms import _InverseTransform
from torch.distributions.utils import tril_matrix_to_vec

from pushforward.bijections.base import Bijection


class FromTorch(Bijection):
    """A bijective transform of torch.distributions as a bijection.

    Points outside the transform's domain or codomain get a log-determinant of -inf, so that a flow's density is 0
    there.

    Args:
        transform: the transform, from z to x; it may change the shape of the event.

    Raises:
        ValueError: if the transform is not bijective, or is the inverse of another one.

    Example:
        >>> from torch.distributions.transforms import ExpTransform, StickBreakingTransform
        >>> FromTorch(ExpTransform()).inverse(torch.tensor([1.0, -1.0]))
        (tensor([0., 0.]), tensor([-0., -inf]))
        >>> FromTorch(StickBreakingTransform())(torch.zeros(2))[0]
        tensor([0.3333, 0.3333, 0.3333])
    """

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        if not transform.bijective:
            raise ValueError(f"FromTorch: expected a bijective transform, got {transform}")
        if isinstance(transform, _InverseTransform):
            raise ValueError(
                f"FromTorch: expected a transform that is not an inverse; use FromTorch({transform.inv}).inv"
            )
        self.transform = transform
        self.event_dim = transform.domain.event_dim

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._through(self.transform, z, lambda: self._anchor(z))

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z_like = x.new_empty(self.inverse_shape(tuple(x.shape)))
        return self._through(self.transform.inv, x, lambda: self.transform(self._anchor(z_like)))

    @property
    def data_dim(self) -> int:
        return self.codomain.event_dim

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(self.transform.forward_shape(torch.Size(shape)))

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(self.transform.inverse_shape(torch.Size(shape)))

    @property
    def domain(self) -> constraints.Constraint:
        domain: constraints.Constraint = self.transform.domain
        return domain

    @property
    def codomain(self) -> constraints.Constraint:
        codomain: constraints.Constraint = self.transform.codomain
        return codomain

    def chart(self, x: Tensor) -> Tensor:
        if isinstance(self.codomain, type(constraints.simplex)):
            return x[..., :-1]
        if isinstance(self.codomain, type(constraints.corr_cholesky)):
            return tril_matrix_to_vec(x, diag=-1)
        return x

    def _anchor(self, z: Tensor) -> Tensor:
        """A point that is surely inside, of the shape of z."""
        free = biject_to(self.domain)
        anchor: Tensor = free(z.new_zeros(free.inverse_shape(z.shape)))
        return anchor

    def _through(self, transform: Transform, value: Tensor, anchor: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
        event_dim = transform.domain.event_dim
        batch = value.shape[: value.ndim - event_dim]
        if not value.numel():  # some of torch's own transforms and constraints cannot take an empty batch
            return value.new_zeros(transform.forward_shape(value.shape)), value.new_zeros(batch)
        inside: Tensor = transform.domain.check(value)
        # The anchor keeps the formula, and its gradient, finite for the points outside.
        safe = torch.where(inside.reshape(inside.shape + (1,) * event_dim), value, anchor())
        result: Tensor = transform(safe)
        log_det: Tensor = transform.log_abs_det_jacobian(safe, result)
        return result, torch.where(inside, log_det.expand(inside.shape), -torch.inf)


class BijectionTransform(Transform):
    """A bijection, given a context, as a transform of torch.distributions.

    Args:
        bijection: any bijection of this library.
        context: shape `(*batch, context_features)`, if the bijection is conditional.
        cache_size: 1 to remember the last pair of values, as in torch.distributions.

    Example:
        >>> from torch.distributions import Normal, TransformedDistribution, Independent
        >>> from pushforward.bijections import Standardize
        >>> base = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
        >>> d = TransformedDistribution(base, BijectionTransform(Standardize([0.0, 0.0], [1.0, 2.0])))
        >>> round(d.log_prob(torch.zeros(2)).item(), 4)
        -2.531
    """

    bijective = True

    def __init__(self, bijection: Bijection, context: Tensor | None = None, *, cache_size: int = 0) -> None:
        super().__init__(cache_size=cache_size)
        self.bijection = bijection
        self.context = context

    def with_cache(self, cache_size: int = 1) -> BijectionTransform:
        return BijectionTransform(self.bijection, self.context, cache_size=cache_size)

    @property
    def domain(self) -> constraints.Constraint:  # type: ignore[override]
        domain = self.bijection.domain
        return constraints.independent(domain, self.bijection.event_dim - domain.event_dim)

    @property
    def codomain(self) -> constraints.Constraint:  # type: ignore[override]
        codomain = self.bijection.codomain
        return constraints.independent(codomain, self.bijection.data_dim - codomain.event_dim)

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        return torch.Size(self.bijection.forward_shape(tuple(shape)))

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        return torch.Size(self.bijection.inverse_shape(tuple(shape)))

    def _call(self, x: Tensor) -> Tensor:
        value: Tensor = self.bijection(x, self.context)[0]
        return value

    def _inverse(self, y: Tensor) -> Tensor:
        return self.bijection.inverse(y, self.context)[0]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        # From y, since x does not tell that y is outside the support.
        return -self.bijection.inverse(y, self.context)[1]
