"""Flows in Pyro: as distributions, as guides over all latent sites of a model, fitted to whole models, in NUTS.

Needs `pip install pushforward[pyro]`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Transform, constraints
from torch.distributions import biject_to as torch_biject_to

from pushforward.bases import Uniform
from pushforward.bijections import Bijection, BijectionTransform, Chain, Standardize, Triangular, biject_to
from pushforward.distribution import FlowDistribution
from pushforward.flow import Flow
from pushforward.inference import LogDensityFit, fit_to_log_density
from pushforward.inference.certify import weighted_draws
from pushforward.inference.density import Density, Draws
from pushforward.inference.fit import _dtype
from pushforward.io import register
from pushforward.numerics import sum_rightmost
from pushforward.recipes import iaf, nsf

try:
    import pyro
except ModuleNotFoundError as error:
    if error.name != "pyro":
        raise
    raise ModuleNotFoundError(
        "pushforward.contrib.pyro needs Pyro: pip install pushforward[pyro]", name="pyro"
    ) from None

import pyro.distributions as dist
from pyro import poutine
from pyro.distributions.transforms import CorrMatrixCholeskyTransform, OrderedTransform
from pyro.infer import MCMC, NUTS
from pyro.infer.autoguide import AutoContinuous, AutoGuide, init_to_median
from pyro.infer.autoguide.initialization import InitMessenger
from pyro.params.param_store import param_with_module_name
from pyro.poutine.util import site_is_subsample

__all__ = ["FlowGuide", "PyroFlow", "fit_to_pyro", "neutra_nuts"]

Model = Callable[..., Any]
RUNS = 4  # of a model, to see whether its sites stay the same
QUANTILE_DRAWS = 10_000

# So that fits of models with ordered vectors and correlation matrices can be saved.
for _transform_class in (OrderedTransform, CorrMatrixCholeskyTransform):
    register(_transform_class)


class PyroFlow(FlowDistribution, dist.TorchDistribution):
    """p(x | context) of a flow as a Pyro distribution, for `pyro.sample` in models and guides.

    A draw brings its density along, so that scoring it, as an ELBO does, takes no pass back through the flow; any other
    point is scored as well. The flow's parameters are trained if they are registered, by `pyro.module` or as part of a
    `PyroModule`.

    Args:
        flow: the flow; its parameters stay shared.
        context: shape `(*batch_shape, context_features)`, if the flow is conditional.
        batch_shape: the batch shape of a flow without context; plates expand it.

    Example:
        >>> import pyro
        >>> from pushforward.contrib.pyro import PyroFlow
        >>> flow = pf.nsf(features=2)
        >>> def model(x):
        ...     pyro.module("flow", flow)
        ...     with pyro.plate("rows", len(x)):
        ...         pyro.sample("x", PyroFlow(flow), obs=x)
        >>> pyro.poutine.trace(model).get_trace(torch.zeros(5, 2)).nodes["x"]["fn"].batch_shape
        torch.Size([5])
    """

    def __init__(self, flow: Flow, context: Tensor | None = None, *, batch_shape: tuple[int, ...] = ()) -> None:
        super().__init__(flow, context, batch_shape=batch_shape)
        self._drawn: tuple[Tensor, Tensor, list[Tensor], list[int]] | None = None

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = tuple(sample_shape) if self.context is not None else (*sample_shape, *self.batch_shape)
        x, log_prob = self.flow.rsample_and_log_prob(shape, self.context)
        self._drawn = None
        if torch.is_grad_enabled():  # or the density would lack the gradients of the next caller
            # Optimisers write to the parameters in place, which counts up their versions.
            sources = [x, *self.flow.parameters()]
            self._drawn = (x, log_prob, sources, [s._version for s in sources])
        return x

    def log_prob(self, value: Tensor) -> Tensor:
        if self._drawn is not None:
            x, log_prob, sources, versions = self._drawn
            if value is x and [s._version for s in sources] == versions:
                return log_prob
        return super().log_prob(value)


class FlowGuide(AutoContinuous):
    """An automatic guide whose joint distribution over all latent sites, in unconstrained coordinates, is one flow.

    Sites of any shape, within plates or not, are mapped to unconstrained coordinates by their supports and laid side by
    side. The guide trains in `pyro.infer.SVI`, also with vectorised particles, and works in `Predictive`.

    Args:
        model: a Pyro model, of continuous latent sites that are the same in every run.
        flow: a flow over as many coordinates, or a function from their number to one, as `pf.nsf`; it is used as it is.
            By default three inverse autoregressive layers, for one number splines, and a triangular map, which starts
            at `init_loc_fn` with the standard deviation `init_scale`.
        init_loc_fn: Pyro's strategy for the place where the default flow starts.
        init_scale: its standard deviation, in unconstrained coordinates.
        create_plates: as in Pyro's guides, for data that are subsampled.

    Attributes:
        flow: the flow, once the guide has run.

    Raises:
        ValueError: when it first runs: a latent site is discrete, or within a subsampled plate, or changes from run to
            run, or there is none; the flow is of another size.

    Reference:
        Kucukelbir et al., Automatic Differentiation Variational Inference, 2017, arXiv 1603.00788.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> from pushforward.contrib.pyro import FlowGuide
        >>> def model():
        ...     scale = pyro.sample("scale", dist.Gamma(2.0, 2.0))
        ...     with pyro.plate("rows", 3):
        ...         pyro.sample("x", dist.Normal(0.0, scale))
        >>> pyro.clear_param_store()
        >>> guide = FlowGuide(model)
        >>> svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.005}), pyro.infer.Trace_ELBO())
        >>> losses = [svi.step() for _ in range(10)]
        >>> {name: tuple(x.shape) for name, x in guide.sample(100).items()}
        {'scale': (100,), 'x': (100, 3)}
    """

    flow: Flow
    prototype_trace: Any
    _model: tuple[Any, ...]

    def __init__(
        self,
        model: Model,
        flow: Flow | Callable[[int], Flow] | None = None,
        *,
        init_loc_fn: Callable[..., Any] = init_to_median,
        init_scale: float = 0.3,
        create_plates: Callable[..., Any] | None = None,
    ) -> None:
        if init_scale <= 0:
            raise ValueError(f"FlowGuide: expected init_scale > 0, got {init_scale}")
        # Not AutoContinuous's own, which would hide the model behind the starting values.
        AutoGuide.__init__(self, model, create_plates=create_plates)
        if isinstance(flow, Flow):
            self.flow = flow
        self._make_flow = None if isinstance(flow, Flow) else flow
        self._init_loc_fn = init_loc_fn
        self._init_scale = init_scale

    def get_posterior(self, *args: Any, **kwargs: Any) -> PyroFlow:
        """The joint distribution of the unconstrained coordinates."""
        flow = self.flow  # which registers its parameters
        self._check_registered(flow)
        return PyroFlow(flow)

    def get_base_dist(self) -> PyroFlow:
        """The flow's base, for Pyro's `NeuTraReparam`."""
        return PyroFlow(Flow(Chain(), self.flow.base))

    def get_transform(self, *args: Any, **kwargs: Any) -> BijectionTransform:
        """The flow's bijection, for Pyro's `NeuTraReparam`."""
        return BijectionTransform(self.flow.bijection, cache_size=1)

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Draw all sites, with the model's own arguments."""
        if self.prototype_trace is None:
            self._setup_prototype(*args, **kwargs)
        latent = self.sample_latent(*args, **kwargs)
        plates = self._create_plates(*args, **kwargs)
        values = {}
        for site, u in self._unpack_latent(latent):
            name, event_dim = site["name"], site["fn"].event_dim
            transform = self._transforms[name]
            value = transform(u)
            log_det = transform.log_abs_det_jacobian(u, value)
            log_det = sum_rightmost(log_det, log_det.dim() - value.dim() + event_dim)
            with ExitStack() as stack:
                for frame in self._cond_indep_stacks[name]:
                    stack.enter_context(plates[frame.name])
                values[name] = pyro.sample(name, dist.Delta(value, log_density=-log_det, event_dim=event_dim))
        return values

    @torch.no_grad()
    def sample(self, n: int) -> dict[str, Tensor]:
        """`n` draws of all sites, each of shape `(n, *site)`."""
        return self._values(self._built().sample(n))[0]

    def log_prob(self, values: Mapping[str, Tensor]) -> Tensor:
        """log q in nats of values of all sites, each of shape `(*batch, *site)` and on its own scale: `(*batch,)`."""
        flow = self._built()
        if values.keys() != self._transforms.keys():
            raise ValueError(f"FlowGuide: expected values of the sites {list(self._transforms)}, got {list(values)}")
        parts, log_dets = [], []
        for name, transform in self._transforms.items():
            value = values[name]
            u = transform.inv(value)
            batch = value.shape[: value.dim() - len(self._shapes[name])]
            parts.append(u.reshape((*batch, -1)))
            log_dets.append(transform.log_abs_det_jacobian(u, value).reshape((*batch, -1)).sum(-1))
        return flow.log_prob(torch.cat(parts, dim=-1).to(_dtype(flow))) - torch.stack(log_dets).sum(0)

    def weighted_sample(self, n: int, *args: Any, **kwargs: Any) -> tuple[dict[str, Tensor], Tensor]:
        """`n` draws of all sites and their log importance weights, whose exponentials have the evidence for mean.

        Args:
            n: number of draws.
            args, kwargs: the model's.
        """
        flow = self._built()
        with torch.no_grad():
            u, log_weights = weighted_draws(flow, self._log_joint(args, kwargs), n)
            return self._values(u)[0], log_weights

    @torch.no_grad()
    def quantiles(self, quantiles: Sequence[float], *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Quantiles of each number of each site, `(len(quantiles), *site)`, of 10,000 draws."""
        index = (torch.as_tensor(quantiles) * (QUANTILE_DRAWS - 1)).round().long()
        return {name: x.sort(0).values[index] for name, x in self.sample(QUANTILE_DRAWS).items()}

    def median(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The median of each number of each site, of 10,000 draws."""
        return {name: x[0] for name, x in self.quantiles([0.5]).items()}

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        latents = _latents(self.model, args, kwargs)
        self._transforms = {name: _transform_to(latent.support) for name, latent in latents.items()}
        self._shapes = {name: latent.value.shape for name, latent in latents.items()}
        self._unconstrained_shapes = {
            name: transform.inverse_shape(self._shapes[name]) for name, transform in self._transforms.items()
        }
        self.latent_dim = sum(math.prod(shape) for shape in self._unconstrained_shapes.values())
        model = poutine.block(InitMessenger(self._start)(self.model), self._prototype_hide_fn)
        trace = poutine.block(poutine.trace(model).get_trace)(*args, **kwargs)
        if self.master is not None:
            self.master()._check_prototype(trace)
        sites = trace.iter_stochastic_nodes()
        self._cond_indep_stacks = {
            name: [frame for frame in site["cond_indep_stack"] if frame.vectorized] for name, site in sites
        }
        self._prototype_frames = {frame.name: frame for stack in self._cond_indep_stacks.values() for frame in stack}
        # Not self.flow, which would register the flow before it is known to fit.
        flow = self._modules.get("flow")
        if flow is None:
            flow = self._default_flow(trace) if self._make_flow is None else self._make_flow(self.latent_dim)
        if flow.event_shape != (self.latent_dim,) or flow.context_features:
            raise ValueError(
                f"FlowGuide: expected a flow of event shape {(self.latent_dim,)} without context, got "
                f"{flow.event_shape} and context_features={flow.context_features}"
            )
        self.flow = flow
        self.prototype_trace = trace

    def _start(self, site: dict[str, Any]) -> Tensor:
        try:
            value: Tensor = self._init_loc_fn(site)
        except NotImplementedError:  # a flat prior
            name = site["name"]
            value = self._transforms[name](torch.zeros(self._unconstrained_shapes[name]))
        return value

    def _default_flow(self, trace: Any) -> Flow:
        d = self.latent_dim
        width = max(64, d)
        # Of one number an autoregressive affine layer knows only its mean and scale.
        flow = iaf(d, layers=3, hidden_features=(width, width)) if d > 1 else nsf(d, layers=3)
        values = {name: trace.nodes[name]["value"].detach() for name in self._transforms}
        loc = torch.cat([transform.inv(values[name]).reshape(-1) for name, transform in self._transforms.items()])
        place = Standardize(loc, torch.full_like(loc, self._init_scale))
        layers: list[Bijection] = list(flow.bijection.layers)  # type: ignore[arg-type]
        return Flow(Chain(*layers, Triangular(d), place), flow.base).to(loc)

    def _built(self) -> Flow:
        if self.prototype_trace is None:
            raise ValueError("FlowGuide: it has not met the model yet; train it, or call it with the model's arguments")
        return self.flow

    def _values(self, u: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Unconstrained coordinates `(*batch, n)` as values of all sites, and the log-determinant, `(*batch,)`."""
        pieces = u.split([math.prod(shape) for shape in self._unconstrained_shapes.values()], dim=-1)
        batch, values, log_dets = u.shape[:-1], {}, []
        for (name, transform), piece in zip(self._transforms.items(), pieces, strict=True):
            shaped = piece.reshape((*batch, *self._unconstrained_shapes[name]))
            values[name] = transform(shaped)
            log_dets.append(transform.log_abs_det_jacobian(shaped, values[name]).reshape((*batch, -1)).sum(-1))
        return values, torch.stack(log_dets).sum(0)

    def _log_joint(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Density:
        """The model's log joint in the unconstrained coordinates."""
        joint = _LogJoint(self.model, args, kwargs)
        shapes = {name: latent.value.shape for name, latent in joint.latents.items()}
        if shapes != self._shapes:
            raise ValueError(f"FlowGuide: expected the sites {_listed(self._shapes)}, the model has {_listed(shapes)}")

        def log_density(u: Tensor) -> Tensor:
            values, log_det = self._values(u)
            return joint(values) + log_det

        return Density(log_density, self.latent_dim)

    def _check_registered(self, flow: Flow) -> None:
        """The parameter store must hold the flow's own parameters, or another tensor is trained in silence."""
        if pyro.settings.get("module_local_params"):
            return
        store = pyro.get_param_store()
        for name, parameter in flow.named_parameters():
            if parameter.requires_grad and store.param_name(parameter) is None:
                full = param_with_module_name(self._pyro_get_fullname("flow"), name)
                raise ValueError(
                    f"FlowGuide: Pyro's parameter store holds another guide's {full}; call pyro.clear_param_store() "
                    "before a new guide is used"
                )


def fit_to_pyro(
    model: Model, *args: Any, model_kwargs: Mapping[str, Any] | None = None, **options: Any
) -> LogDensityFit:
    """`fit_to_log_density` of a Pyro model's posterior: a flow over all latent sites, the evidence, and a verdict.

    The log joint is evaluated in float64, for many points in one call by `torch.func.vmap`, or point by point where the
    model branches on its values. A model that cannot take float64, say with float32 weights of its own, keeps its
    dtypes.

    Args:
        model: of continuous latent sites that are the same in every run, without subsampling.
        args: the model's positional arguments.
        model_kwargs: its keyword arguments.
        options: of `fit_to_log_density`, but `features` and `support`, which the model tells.

    Returns:
        The fit. Draws are a dict by site, of shape `(n, *site)` and the model's own dtype, for
        `pyro.infer.Predictive(model, posterior_samples=fit.sample(1000))`.

    Raises:
        ValueError: a latent site is discrete, or changes from run to run, or there is none; the log joint is random.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> from pushforward.contrib.pyro import fit_to_pyro
        >>> def model(x):
        ...     scale = pyro.sample("scale", dist.Gamma(2.0, 2.0))
        ...     with pyro.plate("rows", len(x)):
        ...         pyro.sample("x", dist.Normal(0.0, scale), obs=x)
        >>> fit = fit_to_pyro(model, torch.tensor([0.5, -1.0, 2.0]), max_steps=20)
        >>> fit.sample(1000)["scale"].shape
        torch.Size([1000])
    """
    joint = _LogJoint(model, args, model_kwargs or {})
    values = {name: latent.value for name, latent in joint.latents.items()}
    dtype = torch.float32
    for value in values.values():
        dtype = torch.promote_types(dtype, value.dtype)
    return fit_to_log_density(
        joint,
        {name: tuple(value.shape) for name, value in values.items()},
        support={name: latent.support for name, latent in joint.latents.items()},
        **{"dtype": dtype, **options},
    )


def neutra_nuts(
    source: LogDensityFit | FlowGuide,
    *args: Any,
    model_kwargs: Mapping[str, Any] | None = None,
    num_samples: int = 1000,
    warmup_steps: int = 500,
    num_chains: int = 1,
    group_by_chain: bool = False,
    seed: int = 0,
    **options: Any,
) -> Draws:
    """Neural transport: Pyro's NUTS on the target as the flow's base space sees it, where it is nearly the base itself.

    Args:
        source: a fit, or a guide that has been trained.
        args: the model's positional arguments, for a guide.
        model_kwargs: its keyword arguments, for a guide.
        num_samples: draws of each chain.
        warmup_steps: steps before them that adapt the step size and the mass matrix.
        num_chains: chains, one after the other, each from a draw of the base.
        group_by_chain: keep the chains apart, as `pyro.infer.mcmc.util.print_summary` takes them.
        seed: of the chains.
        options: of `pyro.infer.NUTS`.

    Returns:
        draws of the target, a dict by site of shape `(num_chains * num_samples, *site)`, or with `group_by_chain` of
        `(num_chains, num_samples, *site)`; for a fit without named sites one such tensor.

    Raises:
        ValueError: the base does not fill the space.

    Reference:
        Hoffman et al., NeuTra-lizing Bad Geometry in Hamiltonian Monte Carlo Using Neural Transport, 2019,
        arXiv 1903.03704.

    Example:
        >>> from pushforward.contrib.pyro import neutra_nuts
        >>> fit = pf.fit_to_log_density(lambda x: -0.5 * x.square().sum(-1), features=2, max_steps=10)
        >>> neutra_nuts(fit, num_samples=20, warmup_steps=10).shape
        torch.Size([20, 2])
    """
    flow, density, named = _transport(source, args, model_kwargs or {})
    if isinstance(flow.base, Uniform):
        raise ValueError("neutra_nuts: expected a base on the whole space, got Uniform")
    flow = copy.deepcopy(flow).double().requires_grad_(False)

    def potential(params: dict[str, Tensor]) -> Tensor:
        u, log_det = flow.bijection(params["z"].unsqueeze(0))
        energy: Tensor = -(density(u) + log_det).squeeze(0)
        return energy

    chains = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(num_chains):
            kernel = NUTS(potential_fn=potential, **options)
            start = {"z": flow.base.sample((1,)).squeeze(0)}
            mcmc = MCMC(kernel, num_samples, warmup_steps=warmup_steps, initial_params=start, disable_progbar=True)
            mcmc.run()
            chains.append(mcmc.get_samples()["z"])
    z = torch.stack(chains) if group_by_chain else torch.cat(chains)
    with torch.no_grad():
        return named(flow.from_base(z))


def _transport(
    source: LogDensityFit | FlowGuide, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Flow, Density, Callable[[Tensor], Draws]]:
    """A flow of unconstrained coordinates, the target's density of them, and the way to what the user calls by name."""
    if isinstance(source, LogDensityFit):
        fit = source
        return fit._inner, fit._density, lambda u: fit._named(fit._density.bijection(u)[0])
    guide = source
    flow = guide._built()
    return flow, guide._log_joint(args, kwargs), lambda u: guide._values(u.to(_dtype(flow)))[0]


@dataclass(frozen=True)
class _Latent:
    """A continuous latent site, as one run of the model saw it."""

    value: Tensor
    support: constraints.Constraint


class _LogJoint:
    """log p(latent values, data) of a Pyro model in nats, as a function of one point: a dict of values by site."""

    def __init__(self, model: Model, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.latents = _latents(model, args, kwargs)
        self.model = model
        values = {name: latent.value for name, latent in self.latents.items()}
        self.double, self.args, self.kwargs = True, _as_double(args), _as_double(dict(kwargs))
        try:
            first = self(values)
        except RuntimeError:  # as where float64 meets a matrix of float32
            self.double, self.args, self.kwargs = False, args, kwargs
            first = self(values)
        if not torch.equal(first.nan_to_num(), self(values).nan_to_num()):
            raise ValueError(
                "the model's log joint differs from call to call, at the same values of the latent sites: it must "
                "neither subsample data nor draw numbers elsewhere"
            )

    def __call__(self, values: Mapping[str, Tensor]) -> Tensor:
        dtypes = {name: torch.float64 if self.double else x.value.dtype for name, x in self.latents.items()}
        own = {name: value.to(dtypes[name]) for name, value in values.items()}
        with pyro.validation_enabled(False), poutine.block(), _default_dtype(torch.float64 if self.double else None):
            trace = poutine.trace(poutine.condition(self.model, own)).get_trace(*self.args, **self.kwargs)
            log_prob = torch.as_tensor(trace.log_prob_sum(lambda _, site: not site_is_subsample(site)))
        changed = {name for name, _ in _latent_sites(trace)} | (self.latents.keys() - trace.nodes.keys())
        if changed:
            raise ValueError(f"expected the same latent sites in every run of the model, but {sorted(changed)} changed")
        return log_prob


def _latents(model: Model, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, _Latent]:
    """The latent sites of a model, in order, once it is clear that a flow can hold them."""
    first, *others = (_run(model, args, kwargs) for _ in range(RUNS))
    if not first:
        raise ValueError("expected a model with latent sites, got one with none")
    for other in others:
        shapes, again = ({name: latent.value.shape for name, latent in run.items()} for run in (first, other))
        if shapes != again:
            raise ValueError(
                f"expected the same latent sites in every run of the model, got {_listed(shapes)} and {_listed(again)}"
            )
        for name in first:
            if not torch.equal(_image(first[name]), _image(other[name])):
                raise ValueError(
                    f"{name}: expected the same support in every run of the model, got {first[name].support} and "
                    f"{other[name].support}; sample it on a fixed support, and map it to the other in the model"
                )
    return first


def _run(model: Model, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, _Latent]:
    """One run of the model, from the prior."""
    with poutine.block(), torch.no_grad():
        trace = poutine.trace(InitMessenger(_draw)(model)).get_trace(*args, **kwargs)
    found = {}
    for name, site in _latent_sites(trace):
        support = site["fn"].support
        if support.is_discrete:
            raise ValueError(
                f"{name}: expected continuous latent sites, got a discrete one, {type(site['fn']).__name__}; "
                "sum it out, or hide it with poutine.block and enumerate it"
            )
        if any(frame.full_size not in (None, frame.size) for frame in site["cond_indep_stack"]):
            raise ValueError(f"{name}: expected latent sites of the whole data, got one within a subsampled plate")
        try:
            biject_to(support)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        found[name] = _Latent(site["value"].detach(), support)
    return found


def _draw(site: dict[str, Any]) -> Tensor:
    try:
        value: Tensor = site["fn"].sample()
    except NotImplementedError:  # a flat prior
        bijection, shape = biject_to(site["fn"].support), site["fn"].shape()
        value = bijection(torch.randn(bijection.inverse_shape(tuple(shape))))[0]
    return value


def _latent_sites(trace: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and not site["is_observed"] and not site_is_subsample(site):
            yield name, site


def _image(latent: _Latent) -> Tensor:
    """A point of the support that tells the support."""
    bijection = biject_to(latent.support)
    image: Tensor = bijection(torch.ones(bijection.inverse_shape(tuple(latent.value.shape))))[0]
    return image


def _transform_to(support: constraints.Constraint) -> Transform:
    """torch's transform, which keeps clear of the ends of an interval, or where it has none, one of this library."""
    try:
        transform: Transform = torch_biject_to(support)
    except NotImplementedError:
        transform = BijectionTransform(biject_to(support))
    return transform


def _listed(shapes: Mapping[str, Sequence[int]]) -> str:
    return ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())


def _as_double(value: Any) -> Any:
    """Tensors of floats, also within lists and dicts, as float64."""
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    if type(value) in (list, tuple):
        return type(value)(_as_double(v) for v in value)
    if type(value) is dict:
        return {k: _as_double(v) for k, v in value.items()}
    return value


@contextmanager
def _default_dtype(dtype: torch.dtype | None) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype or before)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
