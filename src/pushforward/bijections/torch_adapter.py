"""Bijections from and to the transforms of torch.distributions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Transform, biject_to, constraints
from torch.distributions.transforms import _InverseTransform

from pushforward.bijections.base import Bijection


class FromTorch(Bijection):
    """A bijective transform of torch.distributions as a bijection.

    Points outside the transform's domain or codomain get a log-determinant of -inf, so that a flow's density is 0
    there.

    Args:
        transform: the transform, from z to x.

    Raises:
        ValueError: if the transform is not bijective, or is the inverse of another one; in use, if it changes the
            shape of the event.

    Example:
        >>> from torch.distributions.transforms import ExpTransform
        >>> FromTorch(ExpTransform()).inverse(torch.tensor([1.0, -1.0]))
        (tensor([0., 0.]), tensor([-0., -inf]))
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
        return _apply(self.transform, z, self.event_dim)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return _apply(self.transform.inv, x, self.event_dim)


def _apply(transform: Transform, value: Tensor, event_dim: int) -> tuple[Tensor, Tensor]:
    if not value.numel():  # some of torch's own transforms and constraints cannot take an empty batch
        return value, value.new_zeros(value.shape[: value.ndim - event_dim])
    inside: Tensor = transform.domain.check(value)
    # A point that is surely inside keeps the formula, and its gradient, finite for those outside.
    anchor = biject_to(transform.domain)(torch.zeros_like(value))
    safe = torch.where(inside.reshape(inside.shape + (1,) * event_dim), value, anchor)
    result: Tensor = transform(safe)
    if result.shape != value.shape:
        raise ValueError(f"FromTorch: expected a transform that keeps the shape {tuple(value.shape)}, got {transform}")
    log_det: Tensor = transform.log_abs_det_jacobian(safe, result)
    log_det = log_det.expand(inside.shape)
    return result, torch.where(inside, log_det, -torch.inf)


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
        return constraints.independent(constraints.real, self.bijection.event_dim)

    @property
    def codomain(self) -> constraints.Constraint:  # type: ignore[override]
        return constraints.independent(constraints.real, self.bijection.event_dim)

    def _call(self, x: Tensor) -> Tensor:
        value: Tensor = self.bijection(x, self.context)[0]
        return value

    def _inverse(self, y: Tensor) -> Tensor:
        return self.bijection.inverse(y, self.context)[0]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        # From y, since x does not tell that y is outside the support.
        return -self.bijection.inverse(y, self.context)[1]
