"""Checks for layers and flows of one's own: the properties that this library's tests run on every class of its own."""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError
from torch.distributions import constraints
from torch.func import functional_call, grad, vmap

from pushforward.bases import Base, StandardNormal
from pushforward.bijections import Bijection
from pushforward.flow import Flow
from pushforward.io import load, save

P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M", bound=torch.nn.Module)
BATCH_SHAPES = [(), (7,), (5, 7), (0,)]
TAIL = 30.0
ROUND_TRIP = 1e-12
ROUND_TRIP_32 = 1e-4
CANCEL = 1e-9  # log-determinants, which depend on the point that the round trip ends at
COPY = 1e-12  # a matrix product may round otherwise at another place in memory


class CheckError(AssertionError):
    """A property does not hold; the message is the whole report."""


@dataclass(frozen=True)
class Check:
    """One property of one case.

    Attributes:
        name: the property.
        expected: what should be.
        found: what is.
        passed: whether they agree.
    """

    name: str
    expected: str
    found: str
    passed: bool

    def __str__(self) -> str:
        return f"{'ok    ' if self.passed else 'FAILED'} {self.name}: expected {self.expected}, found {self.found}"


@dataclass(frozen=True)
class Report:
    """What `check_bijection` and `check_flow` found; prints as text."""

    case: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every property holds."""
        return all(check.passed for check in self.checks)

    def __str__(self) -> str:
        return "\n".join([f"{self.case}: {'passed' if self.passed else 'FAILED'}", *(f"  {c}" for c in self.checks)])


def check_bijection(
    bijection: Bijection,
    *,
    event_shape: tuple[int, ...] | None = None,
    name: str | None = None,
    z: Tensor | None = None,
    round_trip: float = ROUND_TRIP,
    tail: float | None = TAIL,
    tail32: float | None = None,
    derivatives: bool = True,
    compiles: bool = True,
    saves: bool = True,
    perturb: float = 0.3,
    raises: bool = True,
) -> Report:
    """Check that a bijection keeps the promises of `Bijection`.

    In float64, with the parameters moved away from their start: round trips both ways; both log-determinants against
    the Jacobian that autodiff finds; first derivatives in input, context and parameters, and second ones, both ways,
    against finite differences; every batch shape; `torch.func.vmap` and gradients per sample; broadcast of the
    context; far tails; device; save and load, state_dict and deepcopy; full-graph compilation. In float32: dtype, and
    round trips to 1e-4. For a map onto a surface, whose x has more numbers than its z, the determinants are those of
    `Bijection.chart` of x, and derivatives of the inverse are taken along the surface; of a map from a surface, check
    the `.inv`.

    Args:
        bijection: what to check; it is copied, not changed.
        event_shape: shape of an event, if the bijection takes any.
        name: what to call it in the report.
        z: points of the domain, `(n, *event_shape)`, n > 1, for maps that are not defined on all of R^d.
        round_trip: tolerance in float64, relative to max(1, |value|) times the condition of the map there, the product
            of the norms of both Jacobians, each at least 1.
        tail: the size of the far points, z and, for maps of R^d onto itself, x; `None` for maps that saturate.
        tail32: the same in float32, for maps that saturate or overflow there sooner; by default `tail`.
        derivatives: whether to check derivatives against finite differences and function transforms, which take most of
            the time.
        compiles: whether the forward and inverse should compile as one full graph.
        saves: whether `pushforward.save` should work.
        perturb: standard deviation of the noise added to the parameters.
        raises: raise on failure, or only report.

    Returns:
        The report.

    Raises:
        CheckError: if a property fails: names the property, the case, what was expected and what was found.

    Example:
        >>> report = check_bijection(pf.LU(2))
        >>> report.passed
        True
    """
    shape = bijection.event_shape or event_shape or (3,) * bijection.event_dim
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        torch.manual_seed(0)
        warnings.simplefilter("error")
        layer = _perturbed(bijection, perturb)
        if z is None:
            z = 1.5 * torch.randn(6, *shape, dtype=torch.float64)
        suite = _BijectionSuite(layer, z.double(), round_trip, name or type(bijection).__name__)
        suite.run("round trip", suite.check_round_trip)
        suite.run("log-determinant", suite.check_log_det)
        suite.run("batch shapes", suite.check_batch_shapes)
        suite.run("float32", suite.check_float32)
        suite.run("device", suite.check_device)
        suite.run("deepcopy and state_dict", suite.check_copies)
        if layer.context_features:
            suite.run("context", suite.check_context)
        if tail is not None:
            suite.run("far tails", lambda: suite.check_tails(tail, tail if tail32 is None else tail32))
        if saves:
            suite.run("save and load", suite.check_save)
        if derivatives:
            suite.run("gradients", suite.check_gradients)
            suite.run("function transforms", suite.check_function_transforms)
        if compiles:
            suite.run("full-graph compile", suite.check_compile)
    return suite.report(raises)


def check_flow(
    flow: Flow,
    *,
    name: str | None = None,
    grid: Tensor | None = None,
    compiles: bool = True,
    perturb: float = 0.1,
    raises: bool = True,
) -> Report:
    """Check that a flow keeps the promises of `Flow`.

    In float64, with the parameters moved away from their start: `log_prob`, `rsample_and_log_prob`, `to_base` and
    `from_base` agree with each other; shapes of samples and densities; the density of a flow of one or two features
    integrates to 1; the samples follow it; every parameter gets a gradient; errors for wrong shapes; dtypes; device;
    save and load, state_dict and deepcopy; full-graph compilation.

    Args:
        flow: what to check; it is copied, not changed.
        name: what to call it in the report.
        grid: for a flow of one or two features, the increasing coordinates to integrate over along each axis.
        compiles: whether `log_prob` should compile as one full graph.
        perturb: standard deviation of the noise added to the parameters.
        raises: raise on failure, or only report.

    Returns:
        The report.

    Raises:
        CheckError: as in `check_bijection`.

    Example:
        >>> check_flow(pf.planar(features=2, layers=2)).passed
        True
    """
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        torch.manual_seed(0)
        warnings.simplefilter("error")
        suite = _FlowSuite(_perturbed(flow, perturb), grid, name or type(flow.bijection).__name__)
        suite.run("directions agree", suite.check_directions)
        suite.run("shapes", suite.check_shapes)
        if flow.event_shape in ((1,), (2,)):
            suite.run("integral and samples", suite.check_density)
        suite.run("gradients", suite.check_gradients)
        suite.run("errors", suite.check_errors)
        suite.run("dtype", suite.check_dtype)
        suite.run("device", suite.check_device)
        suite.run("deepcopy and state_dict", suite.check_copies)
        suite.run("save and load", suite.check_save)
        if compiles:
            suite.run("full-graph compile", suite.check_compile)
    return suite.report(raises)


class _Suite:
    """Runs properties and collects what they found."""

    def __init__(self, case: str) -> None:
        self.case = case
        self.checks: list[Check] = []

    def run(self, name: str, property_: Callable[[], None]) -> None:
        try:
            property_()
        except Exception as error:
            self.checks.append(Check(name, "no error", f"{type(error).__name__}: {error}", False))

    def report(self, raises: bool) -> Report:
        report = Report(self.case, tuple(self.checks))
        if raises and not report.passed:
            raise CheckError(str(report))
        return report

    def below(self, name: str, value: Tensor | float, bound: float) -> None:
        """Record that a value, or the largest of a tensor, is at most `bound`; NaN is not."""
        if isinstance(value, Tensor):
            value = value.abs().max().item() if value.numel() else 0.0
        self.checks.append(Check(name, f"<= {bound:.3g}", f"{value:.3g}", value <= bound))

    def equal(self, name: str, found: object, expected: object) -> None:
        self.checks.append(Check(name, str(expected), str(found), found == expected))

    def raises(self, name: str, call: Callable[[], object]) -> None:
        try:
            call()
        except ValueError as error:
            self.checks.append(Check(name, "a ValueError", f"ValueError: {error}", True))
        else:
            self.checks.append(Check(name, "a ValueError", "no error", False))

    def _check_copies(self, module: M, evaluate: Callable[[M], Tensor]) -> None:
        """A deep copy, and one whose numbers are all lost and loaded again."""
        expected, again = evaluate(module), copy.deepcopy(module)
        self.below("deepcopy", evaluate(again) - expected, COPY)
        for tensor in again.state_dict().values():
            tensor.zero_()
        again.load_state_dict(module.state_dict())
        self.below("state_dict", evaluate(again) - expected, COPY)


class _BijectionSuite(_Suite):
    def __init__(self, layer: Bijection, z: Tensor, tolerance: float, case: str) -> None:
        super().__init__(case)
        self.layer = layer
        self.z = z
        self.tolerance = tolerance
        self.event = z.shape[1:]
        c = layer.context_features
        self.context = torch.randn(len(z), c, dtype=torch.float64) if c else None
        with torch.no_grad():
            self.x = layer(z, self.context)[0]
        self.data = self.x.shape[1:]
        self.on_surface = self.data.numel() != self.event.numel()

    def check_round_trip(self) -> None:
        self._round_trip(self.z, "")

    def check_log_det(self) -> None:
        n = self.event.numel()
        forward = self._jacobians(self._in_coordinates, self.z)
        log_det = torch.linalg.slogdet(forward.reshape(-1, n, n))[1]
        with torch.no_grad():
            found, found_inverse = self.layer(self.z, self.context)[1], self.layer.inverse(self.x, self.context)[1]
        self.below("forward log-det against autodiff", _per_row(found) - log_det, 1e-8)
        inverse = self._jacobians(self.layer.inverse, self.x)
        if self.on_surface:
            product = inverse @ self._jacobians(self.layer, self.z)
            condition = (_norm(forward) * _norm(inverse)).reshape(-1, 1, 1)
            unit = torch.eye(n, dtype=product.dtype)
            self.below("the Jacobians cancel along the surface, by condition", (product - unit) / condition, 1e-8)
            log_det_inverse = -log_det
        else:
            log_det_inverse = torch.linalg.slogdet(inverse.reshape(-1, n, n))[1]
        self.below("inverse log-det against autodiff", _per_row(found_inverse) - log_det_inverse, 1e-8)

    def _in_coordinates(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x, log_det = self.layer(z, context)
        return self.layer.chart(x), log_det

    def check_gradients(self) -> None:
        names = [name for name, _ in self.layer.named_parameters()]
        inputs = [p.detach().clone().requires_grad_() for p in self.layer.parameters()]
        if self.context is not None:
            inputs.append(self.context[:2].clone().requires_grad_())
        for direction, value in (("forward", self.z), ("inverse", self.x)):
            along_surface = direction == "inverse" and self.on_surface

            def function(
                value: Tensor, *rest: Tensor, direction: str = direction, along_surface: bool = along_surface
            ) -> tuple[Tensor, Tensor]:
                if along_surface:
                    value = self.layer(value, self.context[:2] if self.context is not None else None)[0]
                weights = dict(zip((f"layer.{n}" for n in names), rest, strict=False))
                context = rest[-1] if self.context is not None else None
                result: tuple[Tensor, Tensor] = functional_call(
                    _Direction(self.layer, direction), weights, (value, context)
                )
                return result

            value = self.z if along_surface else value
            point = (value[:2].detach().clone().requires_grad_(), *inputs)
            self._agrees(f"{direction} gradcheck", torch.autograd.gradcheck, function, point)
            self._agrees(f"{direction} gradgradcheck", torch.autograd.gradgradcheck, function, point)

    def check_batch_shapes(self) -> None:
        pick = self.z[0]
        context = self.context[0] if self.context is not None else None
        for batch in BATCH_SHAPES:
            z = pick.expand(*batch, *self.event)
            c = context.expand(*batch, -1) if context is not None else None
            x, log_det = self.layer(z, c)
            z_again, log_det_inverse = self.layer.inverse(x, c)
            found = [tuple(t.shape) for t in (x, z_again, log_det, log_det_inverse)]
            events = self.event[: len(self.event) - self.layer.event_dim]
            expected = [(*batch, *self.data), (*batch, *self.event)] + [(*batch, *events)] * 2
            self.equal(f"shapes of a batch {batch}", found, expected)
            self.equal(f"forward_shape of a batch {batch}", self.layer.forward_shape(tuple(z.shape)), tuple(x.shape))
            self.equal(f"inverse_shape of a batch {batch}", self.layer.inverse_shape(tuple(x.shape)), tuple(z.shape))
            if not batch:
                self.below("a row alone and in its batch", x - self.x[0], 1e-10)

    def check_context(self) -> None:
        assert self.context is not None
        c = torch.randn(4, 1, self.layer.context_features, dtype=torch.float64)
        for name, function, value in (("forward", self.layer, self.z), ("inverse", self.layer.inverse, self.x)):
            result, log_det = function(value, c)
            single, log_det_single = function(value[1], c[2, 0])
            difference = torch.cat([(result[2, 1] - single).reshape(-1), (log_det[2, 1] - log_det_single).reshape(-1)])
            self.below(f"{name} broadcasts the context", difference, 1e-10)
        spread = self.layer(self.z[:1], c)[0].reshape(4, -1)
        self.equal("the context has an effect", bool((spread.std(0) > 0).any()), True)

    def check_float32(self) -> None:
        layer = copy.deepcopy(self.layer).float()
        context = self.context.float() if self.context is not None else None
        z = self.z.float()
        with torch.no_grad():
            x, log_det = layer(z, context)
            z_again, log_det_inverse = layer.inverse(x, context)
        dtypes = {t.dtype for t in (x, log_det, z_again, log_det_inverse)}
        self.equal("dtypes of float32", dtypes, {torch.float32})
        self._round_trip(self.z, " in float32", dtype=torch.float32)

    def check_tails(self, tail: float, tail32: float) -> None:
        onto_itself = self.layer.domain == self.layer.codomain == constraints.real and self.data == self.event
        for dtype, size in ((torch.float64, tail), (torch.float32, tail32)):
            where = f" = {size:g} in {str(dtype)[6:]}"
            self._round_trip(size * torch.sign(self.z), f" at |z|{where}", dtype=dtype)
            if onto_itself:
                self._round_trip(size * torch.sign(self.x), f" at |x|{where}", dtype=dtype, backward=True)

    def check_device(self) -> None:
        with torch.device("meta"):  # where every tensor goes that is made without a device
            found = (*self.layer(self.z, self.context), *self.layer.inverse(self.x, self.context))
        self.equal("devices of the results", {t.device for t in found}, {self.z.device})

    def check_copies(self) -> None:
        self._check_copies(self.layer, lambda layer: layer(self.z, self.context)[0])

    def check_function_transforms(self) -> None:
        """`torch.func.vmap` over rows, and the gradient of each row in the parameters against that of the row alone."""
        weights = {f"layer.{name}": weight.detach() for name, weight in self.layer.named_parameters()}
        for direction, value in (("forward", self.z), ("inverse", self.x)):
            module = _Direction(self.layer, direction)

            def call(
                weights: dict[str, Tensor], value: Tensor, context: Tensor | None, module: _Direction = module
            ) -> tuple[Tensor, Tensor]:
                result: tuple[Tensor, Tensor] = functional_call(module, weights, (value, context))
                return result

            def total(weights: dict[str, Tensor], value: Tensor, context: Tensor | None) -> Tensor:
                value, log_det = call(weights, value, context)
                return value.sum() + log_det.sum()

            over_rows = (None, 0, 0 if self.context is not None else None)
            expected = call(weights, value, self.context)
            for found, whole in zip(vmap(call, over_rows)(weights, value, self.context), expected, strict=True):
                self.below(f"{direction} under vmap", _relative(found, whole), 1e-10)
            of_rows = vmap(grad(total), over_rows)(weights, value, self.context)
            of_row = grad(total)(weights, value[1], self.context[1] if self.context is not None else None)
            for name in weights:
                error = _relative(of_rows[name][1], of_row[name])
                self.below(f"{direction} gradient per sample in {name[6:]}", error, 1e-8)

    def check_save(self) -> None:
        again = _saved_and_loaded(Flow(self.layer, _base_for(self.layer, self.event))).bijection
        self.below("save and load", again(self.z, self.context)[0] - self.x, COPY)

    def check_compile(self) -> None:
        def both(z: Tensor, x: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
            return *self.layer(z, context), *self.layer.inverse(x, context)

        found = _compiled(both)(self.z, self.x, self.context)
        expected = both(self.z, self.x, self.context)
        difference = torch.cat([(f - e).reshape(-1) for f, e in zip(found, expected, strict=True)])
        self.below("both directions compile", difference, 1e-10)

    def _round_trip(
        self, value: Tensor, where: str, *, dtype: torch.dtype = torch.float64, backward: bool = False
    ) -> None:
        """There and back again from `value`, a z, or an x if `backward`; the condition is that of float64."""
        layer = self.layer if dtype == torch.float64 else copy.deepcopy(self.layer).to(dtype)
        context = self.context.to(dtype) if self.context is not None else None
        tolerance = self.tolerance if dtype == torch.float64 else ROUND_TRIP_32
        names = ("inverse", "forward") if backward else ("forward", "inverse")
        there, back = (getattr(layer, name) for name in names)
        start = value.to(dtype)
        with torch.no_grad():
            end, log_det = there(start, context)
            start_again, log_det_back = back(end, context)
            end_again = there(start_again, context)[0]
            exact = getattr(self.layer, names[0])(value, self.context)[0]
        points = zip(names, (value, exact), strict=True)
        first, second = (_norm(self._jacobians(getattr(self.layer, name), point)) for name, point in points)
        condition = first * second
        self.below(f"{names[1]} after {names[0]}{where}", _relative(start_again, start, condition), tolerance)
        self.below(f"{names[0]} after {names[1]}{where}", _relative(end_again, end, condition), tolerance)
        if dtype == torch.float64:
            self.below(f"log-dets cancel{where}", _per_row(log_det + log_det_back) / condition, CANCEL)

    def _jacobians(self, function: Callable[..., tuple[Tensor, Tensor]], value: Tensor) -> Tensor:
        """Jacobians of events, `(n, numbers out, numbers in)`: each row from one backward pass of the batch's sum."""
        value = value.detach().requires_grad_()
        result = function(value, self.context)[0].reshape(len(value), -1)
        rows = [torch.autograd.grad(column.sum(), value, retain_graph=True)[0] for column in result.unbind(-1)]
        return torch.stack(rows, dim=1).reshape(len(value), len(rows), -1)

    def _agrees(
        self,
        name: str,
        check: Callable[..., bool],
        function: Callable[..., tuple[Tensor, Tensor]],
        point: tuple[Tensor, ...],
    ) -> None:
        # Context and parameters as one vector: the cost of the check grows with the number of its inputs.
        value, *rest = point
        sizes = [t.numel() for t in rest]
        packed = [torch.cat([t.detach().reshape(-1) for t in rest]).requires_grad_()] if rest else []

        def unpacked(value: Tensor, *packed: Tensor) -> tuple[Tensor, ...]:
            parts = packed[0].split(sizes) if packed else ()
            results = function(value, *(part.view_as(t) for part, t in zip(parts, rest, strict=True)))
            # Results without a graph would not be looked at, also where it is missing by mistake.
            zero = 0 * (value.sum() + sum(part.sum() for part in packed))
            return tuple(result + zero for result in results)

        try:
            check(unpacked, (value, *packed), fast_mode=True, atol=1e-6, rtol=1e-4, nondet_tol=1e-12)
        except GradcheckError as error:
            self.checks.append(Check(name, "agreement with finite differences", str(error), False))
        else:
            self.checks.append(Check(name, "agreement with finite differences", "agreement", True))


class _FlowSuite(_Suite):
    def __init__(self, flow: Flow, grid: Tensor | None, case: str) -> None:
        super().__init__(case)
        self.flow = flow
        self.grid = grid
        c = flow.context_features
        self.context = torch.randn(c, dtype=torch.float64) if c else None
        with torch.no_grad():
            self.x = flow.sample(20, self.context)

    def check_directions(self) -> None:
        flow, c = self.flow, self.context
        with torch.no_grad():
            x, log_prob = flow.rsample_and_log_prob(20, c)
            self.below("log_prob of draws, both ways", flow.log_prob(x, c) - log_prob, 1e-8)
            self.below("from_base(to_base(x)) = x", _relative(flow.from_base(flow.to_base(x, c), c), x), 1e-8)
            last = flow.steps(c)[-1]
            self.below("the last of steps() is the flow", last.log_prob(x) - log_prob, 1e-8)

    def check_shapes(self) -> None:
        flow, event = self.flow, self.flow.event_shape
        contexts = [None] if self.context is None else [self.context, self.context.expand(3, 1, -1)]
        for c in contexts:
            batch = tuple(c.shape[:-1]) if c is not None else ()
            for sample_shape in ((), 4, (5, 7), (0,)):
                leading = (sample_shape,) if isinstance(sample_shape, int) else sample_shape
                x = flow.sample(sample_shape, c)
                found = [tuple(x.shape), tuple(flow.log_prob(x, c).shape)]
                expected = [(*leading, *batch, *event), (*leading, *batch)]
                self.equal(f"shapes of sample({sample_shape}) for contexts {batch}", found, expected)
            expanded = flow.distribution(c).expand((2, *batch))
            self.equal("shape of expanded draws", tuple(expanded.rsample((4,)).shape), (4, 2, *batch, *event))

    def check_density(self) -> None:
        """Integral over a grid, and for each margin the distribution function against the one of draws."""
        flow, c = self.flow, self.context
        grid = torch.linspace(-9, 9, 151, dtype=torch.float64) if self.grid is None else self.grid.double()
        axes = [grid] * flow.event_shape[0]
        points = torch.cartesian_prod(*axes).reshape(-1, len(axes))
        with torch.no_grad():
            blocks = [flow.log_prob(block, c) for block in points.split(200_000)]
            draws = flow.sample(4000, c)
        density = torch.cat(blocks).exp().reshape([len(grid)] * len(axes))
        margins = [density] if len(axes) == 1 else [torch.trapezoid(density, grid, dim=1 - i) for i in range(2)]
        self.below("integral of the density - 1", torch.trapezoid(margins[0], grid) - 1, 1e-3)
        for i, margin in enumerate(margins):
            cdf = torch.cumulative_trapezoid(margin, grid)
            sorted_draws = draws[:, i].sort().values.contiguous()
            k = torch.searchsorted(grid, sorted_draws).clamp(1, len(grid) - 1)
            empirical = torch.arange(1, len(draws) + 1) / len(draws)
            # The step of the grid adds to the Kolmogorov-Smirnov distance, whose 0.1 % point is 1.95 / sqrt(n).
            distance = (cdf[k - 1] - empirical).abs().max()
            self.below(
                f"Kolmogorov-Smirnov distance of margin {i}",
                distance,
                1.95 / len(draws) ** 0.5 + (cdf[k - 1] - cdf[(k - 2).clamp_min(0)]).max().item(),
            )

    def check_gradients(self) -> None:
        if not any(p.requires_grad for p in self.flow.parameters()):
            return
        (-self.flow.log_prob(self.x, self.context)).mean().backward()
        x, log_prob = self.flow.rsample_and_log_prob(8, self.context)
        (log_prob.mean() + x.square().mean()).backward()
        without = [n for n, p in self.flow.named_parameters() if p.grad is None or not bool(p.grad.isfinite().all())]
        self.equal("parameters without a finite gradient", without, [])
        self.flow.zero_grad(set_to_none=True)

    def check_errors(self) -> None:
        flow, n = self.flow, self.flow.event_shape[-1]
        wrong = torch.zeros(5, *flow.event_shape[:-1], n + 1, dtype=torch.float64)
        self.raises("error for an x of a wrong size", lambda: flow.log_prob(wrong, self.context))
        if self.context is None:
            self.raises("error for an unexpected context", lambda: flow.log_prob(self.x, torch.zeros(3)))
        else:
            too_long = torch.zeros(flow.context_features + 1, dtype=torch.float64)
            self.raises("error for a missing context", lambda: flow.log_prob(self.x))
            if flow.embedding is None:
                self.raises("error for a context of a wrong size", lambda: flow.log_prob(self.x, too_long))

    def check_dtype(self) -> None:
        for dtype in (torch.float64, torch.float32):
            flow = copy.deepcopy(self.flow).to(dtype)
            c = self.context.to(dtype) if self.context is not None else None
            x, log_prob = flow.rsample_and_log_prob(3, c)
            found = {t.dtype for t in (x, log_prob, flow.log_prob(x, c), flow.sample(2, c))}
            self.equal(f"dtypes of a flow in {dtype}", found, {dtype})

    def check_device(self) -> None:
        flow, c = self.flow, self.context
        with torch.device("meta"):  # where every tensor goes that is made without a device
            found = (flow.log_prob(self.x, c), flow.sample(3, c), *flow.rsample_and_log_prob(3, c))
        self.equal("devices of the results", {t.device for t in found}, {self.x.device})

    def check_copies(self) -> None:
        self._check_copies(self.flow, lambda flow: flow.log_prob(self.x, self.context))

    def check_save(self) -> None:
        again = _saved_and_loaded(self.flow)
        difference = again.log_prob(self.x, self.context) - self.flow.log_prob(self.x, self.context)
        self.below("save and load", difference, COPY)

    def check_compile(self) -> None:
        found = _compiled(self.flow)(self.x, self.context)
        self.below("log_prob compiles", found - self.flow.log_prob(self.x, self.context), 1e-10)


class _Direction(torch.nn.Module):
    """A bijection read in one direction, as a module of its own."""

    def __init__(self, layer: Bijection, direction: str) -> None:
        super().__init__()
        self.layer = layer
        self.direction = direction

    def forward(self, value: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        result: tuple[Tensor, Tensor] = getattr(self.layer, self.direction)(value, context)
        return result


def _perturbed(module: M, scale: float) -> M:
    again = copy.deepcopy(module).double()
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return again


def _norm(jacobians: Tensor) -> Tensor:
    """The largest singular value, at least 1, of each Jacobian, `(n, d, d)` to `(n,)`."""
    norm: Tensor = torch.linalg.matrix_norm(jacobians, 2)
    return norm.clamp_min(1.0)


def _per_row(log_det: Tensor) -> Tensor:
    """Sum over the events of each row, for bijections whose event is smaller than the row."""
    return log_det.reshape(len(log_det), -1).sum(-1)


def _relative(found: Tensor, expected: Tensor, condition: Tensor | None = None) -> Tensor:
    error = (found - expected).abs() / expected.abs().clamp_min(1.0)
    if condition is None:
        return error
    return error.reshape(len(condition), -1).amax(-1) / condition


def _base_for(layer: Bijection, event: torch.Size) -> Base:
    return StandardNormal(tuple(event))


def _saved_and_loaded(flow: Flow) -> Flow:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "flow.safetensors"
        save(flow, path)
        return load(path).train(flow.training)


def _compiled(function: Callable[P, R]) -> Callable[P, R]:
    torch._dynamo.reset()
    return torch.compile(function, backend="eager", fullgraph=True)
