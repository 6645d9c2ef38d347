"""The user's log density, as a checked and counted function on an unconstrained space."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from pushforward.bijections import Bijection, Chain, Concatenate, Flattened, biject_to
from pushforward.numerics import sum_rightmost

LogDensity = Callable[[Any], Tensor]
Features = int | Mapping[str, int | tuple[int, ...]]
Support = constraints.Constraint | Mapping[str, constraints.Constraint]
DIFFERENCE = 1e-4
COST_POINTS = 255
SMALLEST, LARGEST = 1e-30, 1e15  # sizes beyond which NaN and +inf are taken for overflow
Draws = Tensor | dict[str, Tensor]


class Density:
    r"""$u \mapsto \log \tilde p(x(u)) + \log|\det \partial x / \partial u|$ for a log density of constrained x.

    Whether the function takes batches and is differentiable is found out by calling it. Points and values are float64.

    Args:
        log_density: from x to log p(x), in nats, up to a constant: `(n, features)` to `(n,)`, or one point
            `(features,)` to a scalar; with named sites it takes a dict of tensors.
        features: the number of coordinates of x; or for named sites the shape of each, a number n meaning `(n,)`.
        support: where x is, by default everywhere; for named sites a constraint for each that is not real.

    Attributes:
        features: the number of coordinates of u.
        bijection: from u to x, flat.
        evaluations: number of points at which the function was called, with or without gradient.
        batched: whether the function takes batches itself.
        differentiable: whether it has a gradient.
        cost: seconds for each of some points at once, as measured first.

    Raises:
        ValueError: the function raises, or returns another shape, NaN or +inf: where, and what. Where a coordinate is
            beyond 1e15, or underflows, NaN and +inf are taken for overflow, that is for -inf. So is a matrix that
            cannot be factorised (`torch.linalg.LinAlgError`).
    """

    def __init__(self, log_density: LogDensity, features: Features, support: Support | None = None) -> None:
        self.function = log_density
        self.shapes: dict[str, tuple[int, ...]] | None = None
        if isinstance(features, Mapping):
            self.shapes = {name: (n,) if isinstance(n, int) else tuple(n) for name, n in features.items()}
        self.bijection, self.features = _onto(features if isinstance(features, int) else self.shapes or {}, support)
        self.evaluations = 0
        self.batched, self.differentiable = True, False
        self._probe()

    def __call__(self, u: Tensor) -> Tensor:
        """The log density at `(n, features)`, shape `(n,)`; differentiable once where gradients are on."""
        if torch.is_grad_enabled() and u.requires_grad:
            value, gradient = self.value_and_gradient(u)
            # Of this value and with this gradient.
            return value.to(u) + ((u - u.detach()) * gradient.to(u)).sum(-1)
        with torch.no_grad():
            return self._checked(u.detach().double())

    def value_and_gradient(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Values `(n,)` and gradients `(n, features)`, by differences where the function has none."""
        u = u.detach().double()
        if not self.differentiable:
            return self._checked(u), self._differences(u)
        with torch.enable_grad():
            u.requires_grad_()
            value = self._checked(u)
            (gradient,) = torch.autograd.grad(value.sum(), u)
        return value.detach(), gradient.nan_to_num(0.0, 0.0, 0.0)

    def hessian(self, u: Tensor) -> Tensor:
        """Second derivatives at `(n, features)` by central differences of the gradient, `(n, features, features)`."""
        steps = DIFFERENCE * torch.eye(self.features, dtype=torch.float64)
        around = torch.cat([u.double().unsqueeze(1) + steps, u.double().unsqueeze(1) - steps], dim=1)
        gradient = self.value_and_gradient(around.flatten(0, 1))[1].unflatten(0, around.shape[:2])
        hessian = (gradient[:, : self.features] - gradient[:, self.features :]) / (2 * DIFFERENCE)
        symmetric: Tensor = (hessian + hessian.mT) / 2
        return symmetric

    def change_coordinates(self, bijection: Bijection) -> None:
        """Let u be what the bijection takes to the coordinates that it was so far."""
        self.bijection = Chain(bijection, self.bijection)

    def named(self, x: Tensor) -> Draws:
        """A flat x, `(*batch, n)`, as the user's function takes it."""
        if self.shapes is None:
            return x
        pieces = x.split([math.prod(shape) for shape in self.shapes.values()], dim=-1)
        return {
            name: piece.reshape((*x.shape[:-1], *shape))
            for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)
        }

    def flat(self, draws: Draws) -> Tensor:
        """The inverse of `named`."""
        if self.shapes is None or isinstance(draws, Tensor):
            return torch.as_tensor(draws)
        if draws.keys() != self.shapes.keys():
            raise ValueError(f"expected a value for each of the sites {list(self.shapes)}, got {list(draws)}")
        values = [(draws[name], len(shape)) for name, shape in self.shapes.items()]
        return torch.cat([value.reshape(*value.shape[: value.dim() - dims], -1) for value, dims in values], dim=-1)

    def _differences(self, u: Tensor) -> Tensor:
        steps = DIFFERENCE * torch.eye(self.features, dtype=torch.float64) * (1 + u.abs()).unsqueeze(-2)
        around = torch.cat([u.unsqueeze(1) + steps, u.unsqueeze(1) - steps], dim=1)
        value = self._checked(around.flatten(0, 1)).unflatten(0, around.shape[:2])
        difference = value[:, : self.features] - value[:, self.features :]
        gradient: Tensor = (difference / (2 * DIFFERENCE * (1 + u.abs()))).nan_to_num(0.0, 0.0, 0.0)
        return gradient

    def _checked(self, u: Tensor) -> Tensor:
        x, log_det = self.bijection(u)
        # Where the map to the support saturates the density is not asked: nothing is there.
        inside = self.bijection.codomain.check(x).reshape(len(x), -1).all(-1) & x.isfinite().all(-1)
        if inside.all():
            value = self._call(x)
        else:
            center = self.bijection(torch.zeros_like(u[:1]))[0]
            value = torch.where(inside, self._call(torch.where(inside[:, None], x, center)), -math.inf)
        self.evaluations += len(u)
        bad = value.isnan() | (value == math.inf)
        # Far out it may overflow.
        beyond = (x.abs() > LARGEST).any(-1) | ((x.abs() < SMALLEST).any(-1) & (u.abs() > 50).any(-1))
        value = torch.where(bad & beyond, -math.inf, value)
        bad = bad & ~beyond
        if bad.any():
            point = x[bad][0].detach()
            raise ValueError(
                f"log_density: expected numbers below +inf, got {value[bad][0].item()} at {_shown(self.named(point))}"
            )
        return value + sum_rightmost(log_det, 1 - self.bijection.data_dim)

    def _call(self, x: Tensor) -> Tensor:
        try:
            if self.batched:
                value = self.function(self.named(x))
            else:
                value = torch.stack([torch.as_tensor(self.function(self.named(row))) for row in x])
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            # At some of the points: find them.
            if len(x) == 1:
                return 0 * x.sum(-1) - math.inf
            return torch.cat([self._call(half) for half in x.chunk(2)])
        return torch.as_tensor(value, dtype=torch.float64)

    @torch.no_grad()
    def _probe(self) -> None:
        u = 0.1 * torch.randn(3, self.features, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        x = self.bijection(u)[0]
        self.batched = self._takes_batches(x)
        if not self.batched:
            self._check_single(x)
            self._vectorise(x)
        self._checked(u)
        many = u.repeat(COST_POINTS // len(u) if self.batched else 1, 1)
        self.cost = min(self._seconds(many) for _ in range(2)) / len(many)
        with torch.enable_grad():
            u.requires_grad_()
            try:
                value = self._call(self.bijection(u)[0])
                self.differentiable = value.requires_grad and value.sum().isfinite().item() is True
                if self.differentiable:
                    (gradient,) = torch.autograd.grad(value.sum(), u, allow_unused=True)
                    self.differentiable = gradient is not None
            except (RuntimeError, TypeError):
                self.differentiable = False

    def _seconds(self, u: Tensor) -> float:
        start = time.perf_counter()
        self._checked(u)
        return time.perf_counter() - start

    def _takes_batches(self, x: Tensor) -> bool:
        """Whether a batch gives one number per row, the same as each row alone."""
        try:
            value = torch.as_tensor(self.function(self.named(x)))
            alone = torch.as_tensor(self.function(self.named(x[:1])))
        except Exception:
            return False
        if value.shape != (len(x),) or alone.shape != (1,):
            return False
        return bool(torch.allclose(value[:1].double(), alone.double(), rtol=1e-4, atol=1e-6, equal_nan=True))

    def _check_single(self, x: Tensor) -> None:
        try:
            value = torch.as_tensor(self.function(self.named(x[0])))
        except Exception as error:
            raise ValueError(
                f"log_density: neither a batch nor one point could be evaluated; at {_shown(self.named(x[0]))} it "
                f"raised {type(error).__name__}: {error}"
            ) from error
        if value.numel() != 1:
            raise ValueError(
                f"log_density: expected a number for one point and {(len(x),)} for {len(x)}, got shape "
                f"{tuple(value.shape)} at {_shown(self.named(x[0]))}"
            )

    def _vectorise(self, x: Tensor) -> None:
        """Let torch map a function of one point over batches, if it can."""
        single = self.function
        mapped = torch.func.vmap(lambda point: torch.as_tensor(single(point)).reshape(()))
        try:
            value = mapped(self.named(x))
            alone = torch.as_tensor(single(self.named(x[0])))
        except Exception:
            return
        if torch.allclose(value[0].double(), alone.double().reshape(()), rtol=1e-4, atol=1e-6, equal_nan=True):
            self.function, self.batched = mapped, True


def _onto(sizes: int | dict[str, tuple[int, ...]], support: Support | None) -> tuple[Bijection, int]:
    """The bijection onto the support and the number of its free coordinates."""
    if isinstance(sizes, int):
        if sizes < 1 or isinstance(support, Mapping):
            raise ValueError(
                f"expected features >= 1 and one constraint as support, got {sizes} and {support}; name the sites in "
                "features to give each its own"
            )
        return _part("features", (sizes,), support)
    constraints_of = support if isinstance(support, Mapping) else {}
    if not sizes or (support is not None and not isinstance(support, Mapping)) or set(constraints_of) - set(sizes):
        raise ValueError(f"expected a support for some of the sites {sorted(sizes)}, got {support}")
    parts = [_part(name, shape, constraints_of.get(name)) for name, shape in sizes.items()]
    lengths = [length for _, length in parts]
    return Concatenate([bijection for bijection, _ in parts], lengths), sum(lengths)


def _part(name: str, shape: tuple[int, ...], constraint: constraints.Constraint | None) -> tuple[Bijection, int]:
    """The bijection onto a value of the given shape, laid out flat, and the number of its free coordinates."""
    if constraint is None:
        return Chain(), math.prod(shape)
    try:
        bijection = biject_to(constraint)
        free = bijection.inverse_shape(shape)
        if len(shape) != 1:
            bijection = Flattened(bijection, free)
    except ValueError as error:
        raise ValueError(f"{name}: no map onto {constraint} of shape {shape}: {error}") from error
    return bijection, math.prod(free)


def _shown(point: Draws) -> str:
    if isinstance(point, Tensor):
        return f"x = {_numbers(point)}"
    return ", ".join(f"{name} = {_numbers(value)}" for name, value in point.items())


def _numbers(value: Tensor) -> str:
    flat = [f"{v:.6g}" for v in value.flatten().tolist()]
    return "[" + ", ".join(flat[:8] + (["..."] if len(flat) > 8 else [])) + "]"
