"""Flows in Pyro, against targets whose log joint, evidence or posterior is known without it."""

import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import constraints

import pushforward as pf
from pushforward.cli import main
from pushforward.inference.density import Density
from pushforward.recipes import RECIPES
from pushforward.targets import CorrelatedNormal, EightSchools, Funnel

pyro = pytest.importorskip("pyro")

import pyro.distributions as dist
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO, TraceEnum_ELBO, config_enumerate
from pyro.infer.autoguide import AutoGuideList, AutoNormal
from pyro.infer.mcmc.util import initialize_model, summary
from pyro.infer.reparam import NeuTraReparam
from pyro.nn import PyroModule, PyroSample

from pushforward.contrib.pyro import FlowGuide, PyroFlow, _LogJoint, fit_to_pyro, neutra_nuts

pytestmark = pytest.mark.filterwarnings("ignore:Singular sample detected:UserWarning")  # of torch's Wishart

D = torch.float64
QUICK: dict[str, Any] = {"max_seconds": 120.0, "progress": False}
SCHOOLS = EightSchools()


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    pyro.set_rng_seed(0)
    with pyro.get_param_store().scope():
        yield


def schools(y: Tensor | None = None) -> None:
    """`EightSchools`, of the sites mu, tau and theta."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", 8):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta, torch.tensor(SCHOOLS.errors)), obs=y)


Y = torch.tensor(SCHOOLS.effects)


def known(values: dict[str, Tensor]) -> Tensor:
    """The log joint of `schools` without Pyro, on the sites' own scales."""
    mu, tau, theta = values["mu"].unsqueeze(-1), values["tau"].unsqueeze(-1), values["theta"]
    return SCHOOLS.log_density(torch.cat([mu, tau.log(), theta], dim=-1).double()) - tau.squeeze(-1).log()


def every_support(correlation: bool = True) -> None:
    """Sites of every kind, within plates and without."""
    if correlation:  # which Pyro cannot expand
        pyro.sample("correlation", dist.LKJ(2, 1.5))
    pyro.sample("positive", dist.Gamma(2.0, 1.0))
    pyro.sample("interval", dist.Uniform(torch.tensor([-1.0, 0.0]), torch.tensor([2.0, 0.5])).to_event(1))
    pyro.sample("corr", dist.LKJCholesky(3, 2.0))
    pyro.sample("covariance", dist.Wishart(torch.tensor(4.0), torch.eye(2)))
    pyro.sample("bounded", dist.Uniform(0.0, 1.0).expand([2, 3]).to_event(2))
    with pyro.plate("rows", 5, dim=-2):
        pyro.sample("simplex", dist.Dirichlet(torch.ones(3)))
        with pyro.plate("columns", 4, dim=-1):
            pyro.sample("real", dist.Normal(0.0, 1.0))
    pyro.sample("ordered", ordered(3))


def ordered(n: int) -> Any:
    normal = dist.Normal(0.0, 1.0).expand([n]).to_event(1)
    return dist.TransformedDistribution(normal, dist.transforms.OrderedTransform())


SHAPES = {
    "correlation": (2, 2),
    "positive": (),
    "interval": (2,),
    "corr": (3, 3),
    "covariance": (2, 2),
    "bounded": (2, 3),
    "simplex": (5, 1, 3),
    "real": (5, 4),
    "ordered": (3,),
}
COORDINATES = 1 + 2 + 3 + 1 + 3 + 6 + 10 + 20 + 3


def density_of(model: Callable[..., Any], *args: Any) -> Density:
    """The log joint of a model in unconstrained coordinates, as `fit_to_pyro` sees it."""
    joint = _LogJoint(model, args, {})
    shapes = {name: tuple(latent.value.shape) for name, latent in joint.latents.items()}
    return Density(joint, shapes, {name: latent.support for name, latent in joint.latents.items()})


def flow_of(features: int = 2, context_features: int = 0) -> pf.Flow:
    """A flow that is not the identity."""
    torch.manual_seed(0)
    made = pf.iaf(features, context_features, layers=2, hidden_features=(8,)).double()
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return made


C = torch.randn(4, 3, dtype=D, generator=torch.Generator().manual_seed(1))


class TestPyroFlow:
    @pytest.mark.parametrize("conditional", [False, True])
    def test_shapes_and_values(self, conditional: bool) -> None:
        flow = flow_of(2, 3 if conditional else 0)
        c = C if conditional else None
        d = PyroFlow(flow, c) if conditional else PyroFlow(flow).expand([4])
        assert isinstance(d, dist.TorchDistribution) and isinstance(d.expand([6, 4]), PyroFlow)
        x = d((5, 7))
        assert x.shape == (5, 7, 4, 2) and d.expand_by([6])().shape == (6, 4, 2)
        expected = flow.log_prob(x, c)
        assert torch.allclose(d.log_prob(x), expected) and torch.allclose(d.log_prob(x.clone()), expected)
        assert torch.allclose(d.to_event(1).log_prob(x), expected.sum(-1))
        mask = torch.tensor([True, False, True, False])
        assert torch.allclose(d.mask(mask).log_prob(x), expected * mask)

    def test_a_draw_brings_its_density(self, monkeypatch: pytest.MonkeyPatch) -> None:
        flow = flow_of()
        d = PyroFlow(flow).expand([10])
        x = d()
        monkeypatch.setattr(flow, "_inverse", lambda *_: pytest.fail("went back through the flow"))
        log_prob = d.log_prob(x)
        monkeypatch.undo()
        assert torch.allclose(log_prob, flow.log_prob(x))
        mine = torch.autograd.grad(log_prob.sum(), list(flow.parameters()), retain_graph=True)
        its = torch.autograd.grad(flow.log_prob(x).sum(), list(flow.parameters()))
        assert all(torch.allclose(a, b) for a, b in zip(mine, its, strict=True))

    def test_the_density_is_never_stale(self) -> None:
        flow = flow_of()
        d = PyroFlow(flow).expand([10])
        x = d()
        with torch.no_grad():
            for p in flow.parameters():
                p.add_(0.1)
        assert torch.equal(d.log_prob(x), flow.log_prob(x))
        x = d().detach()
        before = d.log_prob(x)
        x += 1
        assert not torch.allclose(d.log_prob(x), before)
        x = d.sample()
        assert d.log_prob(x).requires_grad and torch.equal(d.log_prob(x), flow.log_prob(x))

    def test_as_a_likelihood_given_a_context(self) -> None:
        flow = flow_of(2, 3)
        x = torch.randn(4, 2, dtype=D)

        def model(x: Tensor, c: Tensor) -> None:
            pyro.module("flow", flow)
            with pyro.plate("rows", len(x)):
                pyro.sample("x", PyroFlow(flow, c), obs=x)

        for elbo in (Trace_ELBO(), Trace_ELBO(3, vectorize_particles=True, max_plate_nesting=1)):
            loss = elbo.loss(model, lambda *_: None, x, C)
            assert loss == pytest.approx(-flow.log_prob(x, C).sum().item())
        svi = SVI(model, lambda *_: None, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
        assert svi.step(x, C) > [svi.step(x, C) for _ in range(20)][-1]

    def test_as_a_prior_within_a_pyro_module(self) -> None:
        class Model(PyroModule):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.flow = pf.planar(2, layers=2)

            def forward(self, y: Tensor) -> None:
                with pyro.plate("rows", 3):
                    z = pyro.sample("z", PyroFlow(self.flow))
                    pyro.sample("y", dist.Normal(z, 1.0).to_event(1), obs=y)

        model, y = Model(), torch.randn(3, 2)
        guide = FlowGuide(model)
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO(4, vectorize_particles=True))
        before = [p.clone() for p in model.parameters()]
        svi.step(y)
        assert guide.latent_dim == 6
        assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


class TestFlowGuide:
    def test_the_elbo_is_that_by_hand(self) -> None:
        """With log p by the target's own formula, and log q by the other direction of the flow."""
        guide = FlowGuide(schools, lambda d: flow_of(d))
        guide(Y)
        for k in (1, 8):
            pyro.set_rng_seed(1)
            elbo = -Trace_ELBO(k, vectorize_particles=k > 1, max_plate_nesting=1).loss(schools, guide, Y)
            pyro.set_rng_seed(1)
            values = guide.sample(k)
            expected = known(values) - guide.log_prob(values)
            assert elbo == pytest.approx(
                expected.mean().item(), rel=1e-7
            )  # torch's own transforms of sites are a little less exact

    def test_vectorised_particles_are_looped_ones(self) -> None:
        guide = FlowGuide(schools, lambda d: flow_of(d))
        losses = {
            vectorised: torch.tensor(
                [Trace_ELBO(20, vectorize_particles=vectorised).loss(schools, guide, Y) for _ in range(10)]
            )
            for vectorised in (False, True)
        }
        error = math.hypot(*(x.std().item() / math.sqrt(10) for x in losses.values()))
        assert abs(losses[False].mean() - losses[True].mean()) < 4 * error

    def test_gradients_reach_the_flow_alike(self) -> None:
        guide = FlowGuide(schools, lambda d: flow_of(d))
        guide(Y)
        pyro.set_rng_seed(1)
        Trace_ELBO().loss_and_grads(schools, guide, Y)
        mine = [p.grad.clone() for p in guide.flow.parameters()]
        pyro.set_rng_seed(1)
        u, log_q = guide.flow.rsample_and_log_prob(1)
        mu, log_tau, theta = u[:, 0], u[:, 1], u[:, 2:]
        loss = log_q - SCHOOLS.log_density(torch.cat([mu[:, None], log_tau[:, None], theta], -1))
        expected = torch.autograd.grad(loss.sum(), list(guide.flow.parameters()))
        assert all(torch.allclose(a, b, rtol=1e-5) for a, b in zip(mine, expected, strict=True))

    def test_every_support(self) -> None:
        guide = FlowGuide(every_support)
        trace = poutine.trace(guide).get_trace()
        assert guide.latent_dim == COORDINATES
        values = {name: trace.nodes[name]["value"] for name in SHAPES}
        assert trace.log_prob_sum().item() == pytest.approx(guide.log_prob(values).item(), rel=1e-4)
        draws = guide.sample(6)
        sites = poutine.trace(every_support).get_trace().nodes
        for name, shape in SHAPES.items():
            assert values[name].shape == shape and draws[name].shape == (6, *shape)
            assert sites[name]["fn"].support.check(draws[name]).all()
        assert guide.log_prob(draws).shape == (6,)
        assert math.isfinite(Trace_ELBO().loss(every_support, guide))

    def test_every_support_in_parallel(self) -> None:
        guide = FlowGuide(every_support)
        assert math.isfinite(Trace_ELBO(3, vectorize_particles=True).loss(every_support, guide, correlation=False))
        draws = Predictive(every_support, guide=guide, num_samples=6, parallel=True)(correlation=False)
        assert draws["covariance"].shape == (6, 1, 1, 2, 2) and draws["simplex"].shape == (6, 5, 1, 3)

    @pytest.mark.parametrize("parallel", [False, True])
    def test_predictive(self, parallel: bool) -> None:
        guide = FlowGuide(schools)
        guide(Y)
        draws = Predictive(schools, guide=guide, num_samples=7, parallel=parallel)()
        assert {k: v.shape[0] for k, v in draws.items()} == dict.fromkeys(("mu", "tau", "theta", "y"), 7)
        assert draws["y"].shape == draws["theta"].shape == (7, 8)
        assert len(draws["mu"].unique()) == 7
        again = Predictive(schools, posterior_samples=guide.sample(5), parallel=parallel)()
        assert again["y"].shape == (5, 8)

    @pytest.mark.parametrize("name", RECIPES)
    def test_every_recipe_trains(self, name: str) -> None:
        def model() -> None:
            scale = pyro.sample("scale", dist.Gamma(2.0, 2.0))
            pyro.sample("x", dist.Normal(0.0, scale))

        guide = FlowGuide(model, RECIPES[name])
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.005, "betas": (0.9, 0.999)}), Trace_ELBO())
        svi.step()
        before = [p.detach().clone() for p in guide.flow.parameters()]
        for _ in range(2):
            assert math.isfinite(svi.step())
        assert any(not torch.equal(a, b) for a, b in zip(before, guide.flow.parameters(), strict=True))

    def test_a_posterior_that_is_known(self) -> None:
        """x ~ N(m, 1) five times, m ~ N(0, 1): the posterior is N(sum x / 6, 1 / 6), and the evidence is a normal's."""
        x = torch.tensor([1.0, 2.0, 0.5, 3.0, 1.5])

        def model() -> None:
            m = pyro.sample("m", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            with pyro.plate("rows", 5):
                pyro.sample("x", dist.Normal(m, 1.0).to_event(1), obs=torch.stack([x, -x], -1))

        guide = FlowGuide(model)
        elbo = Trace_ELBO(16, vectorize_particles=True)
        adam = {"lr": 0.02, "betas": (0.9, 0.99)}
        rate = pyro.optim.ExponentialLR({"optimizer": torch.optim.Adam, "optim_args": adam, "gamma": 0.985})
        svi = SVI(model, guide, rate, elbo)
        for _ in range(250):
            svi.step()
            rate.step()
        m = guide.sample(4000)["m"]
        assert m.mean(0).tolist() == pytest.approx([8 / 6, -8 / 6], abs=0.1)
        assert m.std(0).tolist() == pytest.approx([6**-0.5] * 2, rel=0.25)
        draws, log_weights = guide.weighted_sample(4000)
        assert draws["m"].shape == (4000, 2)
        covariance = torch.eye(5, dtype=D) + 1
        exact = 2 * torch.distributions.MultivariateNormal(torch.zeros(5, dtype=D), covariance).log_prob(x.double())
        assert pf.diagnostics.log_evidence(log_weights)[0] == pytest.approx(exact.item(), abs=0.05)
        assert log_weights.mean() < exact

    def test_quantiles_of_a_flow_that_is_known(self) -> None:
        """The identity: log x ~ N(0, 1)."""
        guide = FlowGuide(
            lambda: pyro.sample("x", dist.LogNormal(torch.zeros(3), 1.0).to_event(1)),
            pf.Flow(pf.Chain(), pf.StandardNormal(3)),
        )
        guide()
        assert guide.median()["x"].log().tolist() == pytest.approx([0.0] * 3, abs=0.06)  # 5 standard errors
        found = guide.quantiles([0.16, 0.84])["x"]
        assert found.shape == (2, 3)
        assert found.log().flatten().tolist() == pytest.approx([-0.9945] * 3 + [0.9945] * 3, abs=0.08)

    def test_one_coordinate_and_a_start(self) -> None:
        guide = FlowGuide(lambda: pyro.sample("x", dist.Normal(7.0, 1.0)), init_scale=0.01)
        guide()
        assert guide.flow.event_shape == (1,)
        assert guide.sample(200)["x"].mean().item() == pytest.approx(7.0, abs=2.0)  # the median of 15 draws

    def test_a_flat_prior(self) -> None:
        def model() -> None:
            x = pyro.sample("x", dist.ImproperUniform(constraints.positive, (), ()))
            pyro.factor("density", -x)

        guide = FlowGuide(model)
        assert math.isfinite(SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO()).step())
        u = torch.linspace(-3, 3, 5, dtype=D).unsqueeze(-1)
        assert torch.allclose(density_of(model)(u), (u - u.exp()).squeeze(-1))

    def test_models_that_are_modules_and_lists_of_guides(self) -> None:
        class Regression(PyroModule):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.linear = PyroModule[torch.nn.Linear](3, 1)
                self.linear.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 3]).to_event(2))

            def forward(self, x: Tensor, y: Tensor | None = None) -> None:
                noise = pyro.sample("noise", dist.Gamma(2.0, 2.0))
                mean = self.linear(x).squeeze(-1)
                with pyro.plate("rows", len(x)):
                    pyro.sample("y", dist.Normal(mean, noise), obs=y)

        model, x, y = Regression(), torch.randn(10, 3), torch.randn(10)
        guide = AutoGuideList(model)
        guide.append(FlowGuide(poutine.block(model, expose=["linear.weight"])))
        guide.append(AutoNormal(poutine.block(model, expose=["noise"])))
        assert math.isfinite(SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO()).step(x, y=y))
        pyro.clear_param_store()
        guide = FlowGuide(model)
        guide(x, y)
        draws = Predictive(model, guide=guide, num_samples=4)(x)
        assert draws["linear.weight"].shape == (4, 1, 1, 3) and draws["y"].shape == (4, 10)

    def test_discrete_sites_that_are_enumerated(self) -> None:
        x = torch.cat([torch.randn(20) - 3, torch.randn(20) + 3])

        @config_enumerate  # type: ignore[untyped-decorator]
        def model(x: Tensor) -> None:
            weight = pyro.sample("weight", dist.Dirichlet(torch.ones(2)))
            with pyro.plate("components", 2):
                mean = pyro.sample("mean", dist.Normal(torch.tensor([-1.0, 1.0]), 3.0))
            with pyro.plate("rows", len(x)):
                k = pyro.sample("k", dist.Categorical(weight))
                pyro.sample("x", dist.Normal(mean[k], 1.0), obs=x)

        guide = FlowGuide(poutine.block(model, hide=["k"]))
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), TraceEnum_ELBO(max_plate_nesting=1))
        losses = torch.tensor([svi.step(x) for _ in range(200)])
        assert losses[-20:].median() < losses[:10].median() - 5
        mean = guide.median()["mean"]
        assert (mean - torch.tensor([-3.0, 3.0])).abs().max() < 0.7

    def test_sequential_plates(self) -> None:
        def model() -> None:
            m = pyro.sample("m", dist.Normal(0.0, 1.0))
            for i in pyro.plate("rows", 3):
                pyro.sample(f"x{i}", dist.Normal(m, 1.0))

        guide = FlowGuide(model, lambda d: pf.Flow(pf.Chain(), pf.StandardNormal(d)))
        guide()
        pyro.set_rng_seed(1)
        elbo = -Trace_ELBO().loss(model, guide)
        pyro.set_rng_seed(1)
        x = guide.flow.sample(1)[0]
        normal = torch.distributions.Normal
        joint = normal(0.0, 1.0).log_prob(x[0]) + normal(x[0], 1.0).log_prob(x[1:]).sum()
        assert elbo == pytest.approx((joint - normal(0.0, 1.0).log_prob(x).sum()).item(), rel=1e-5)
        assert density_of(model)(x.unsqueeze(0)).item() == pytest.approx(joint.item(), rel=1e-5)

    def test_subsampled_data(self) -> None:
        def model(x: Tensor) -> None:
            m = pyro.sample("m", dist.Normal(0.0, 1.0))
            with pyro.plate("rows", len(x), subsample_size=5) as rows:
                pyro.sample("x", dist.Normal(m, 1.0), obs=x[rows])

        assert math.isfinite(
            SVI(model, FlowGuide(model), pyro.optim.Adam({"lr": 0.01}), Trace_ELBO()).step(torch.randn(20))
        )

    def test_neutra_reparam_of_pyro_sees_the_same_density(self) -> None:
        guide = FlowGuide(schools, lambda d: flow_of(d))
        guide(Y)
        model = NeuTraReparam(guide).reparam(schools)
        _, potential, _, _ = initialize_model(model, (Y,))
        z = torch.randn(10, dtype=D)
        u, log_det = guide.flow.bijection(z)
        expected = -(SCHOOLS.log_density(u) + log_det)
        assert potential({"mu_shared_latent": z}).item() == pytest.approx(expected.item(), rel=1e-6)

    def test_another_guide_needs_a_clean_store(self) -> None:
        first, second = FlowGuide(schools), FlowGuide(schools)
        first(Y)
        with pytest.raises(ValueError, match="clear_param_store"):
            second(Y)
        pyro.clear_param_store()
        second(Y)


def discrete() -> None:
    pyro.sample("k", dist.Bernoulli(0.5))


def empty(y: Tensor | None = None) -> None:
    pyro.sample("y", dist.Normal(0.0, 1.0), obs=torch.tensor(1.0))


def changing() -> None:
    pyro.sample(f"x{next(COUNTER)}", dist.Normal(0.0, 1.0))


COUNTER = iter(range(10_000))


def moving() -> None:
    width = pyro.sample("width", dist.Gamma(2.0, 2.0))
    pyro.sample("x", dist.Uniform(0.0, width))


def local() -> None:
    with pyro.plate("rows", 10, subsample_size=2):
        pyro.sample("x", dist.Normal(0.0, 1.0))


def spherical() -> None:
    pyro.sample("x", dist.ProjectedNormal(torch.ones(3)))


UNUSABLE = {
    discrete: "k: expected continuous latent sites, got a discrete one, Bernoulli",
    empty: "a model with latent sites, got one with none",
    changing: r"the same latent sites in every run of the model, got x\d+ \(\) and x\d+ \(\)",
    moving: "x: expected the same support in every run",
    local: "x: expected latent sites of the whole data, got one within a subsampled plate",
    spherical: "x: biject_to: expected a constraint",
}


@pytest.mark.parametrize("model", UNUSABLE, ids=lambda model: model.__name__)
def test_unusable_models(model: Callable[[], None]) -> None:
    for use in (FlowGuide(model), lambda: fit_to_pyro(model)):
        with pytest.raises(ValueError, match=UNUSABLE[model]):
            use()


def test_unusable_arguments() -> None:
    with pytest.raises(ValueError, match=r"event shape \(10,\) without context, got \(3,\)"):
        FlowGuide(schools, pf.planar(3))(Y)
    with pytest.raises(ValueError, match="has not met the model"):
        FlowGuide(schools).sample(3)
    with pytest.raises(ValueError, match="init_scale > 0"):
        FlowGuide(schools, init_scale=0.0)
    guide = FlowGuide(schools)
    guide(Y)
    with pytest.raises(ValueError, match=r"values of the sites \['mu', 'tau', 'theta'\], got \['mu'\]"):
        guide.log_prob({"mu": torch.zeros(())})
    guide = FlowGuide(schools, lambda d: pf.Flow(pf.Chain(), pf.Uniform([0.0] * d, [1.0] * d)))
    guide()
    with pytest.raises(ValueError, match="a base on the whole space"):
        neutra_nuts(guide)


# The distribution of a site, and where its density ends in unconstrained coordinates.
PRIORS: dict[str, tuple[Callable[[], Any], float]] = {
    "positive": (lambda: dist.Gamma(2.0, 1.0), 30.0),
    "interval": (lambda: dist.Uniform(-1.0, 2.0), 30.0),
    "simplex": (lambda: dist.Dirichlet(torch.tensor([1.5, 2.0, 1.0])), 20.0),
    "cholesky": (lambda: dist.LKJCholesky(2, 2.0), 15.0),
    "correlation": (lambda: dist.LKJ(2, 1.5), 15.0),
    "ordered": (lambda: ordered(2), 12.0),
    "rows": (lambda: dist.Uniform(torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0], [5.0]])).to_event(2), 30.0),
}


class TestLogJoint:
    def test_eight_schools_point_for_point(self) -> None:
        density = density_of(schools, Y)
        assert density.batched and density.differentiable
        u = 3 * torch.randn(50, 10, dtype=D)
        value, gradient = density.value_and_gradient(u)
        expected = SCHOOLS.log_density(u.requires_grad_())
        assert torch.allclose(value, expected, rtol=1e-12)
        assert torch.allclose(gradient, torch.autograd.grad(expected.sum(), u)[0], rtol=1e-9)

    @pytest.mark.parametrize("name", PRIORS)
    def test_priors_integrate_to_one(self, name: str) -> None:
        """In unconstrained coordinates, by the trapezoidal rule, which is exact to rounding for such densities."""
        build, width = PRIORS[name]
        density = density_of(lambda: pyro.sample("x", build()))
        line = torch.linspace(-width, width, 241, dtype=D)
        u = torch.cartesian_prod(*[line] * density.features).reshape(-1, density.features)
        step = (2 * width / 240) ** density.features
        assert density(u).exp().sum().item() * step == pytest.approx(1.0, abs=1e-5)

    def test_every_support_in_its_own_shape(self) -> None:
        joint, density = _LogJoint(every_support, (), {}), density_of(every_support)
        assert density.features == COORDINATES and density.batched
        draws = density.named(density.bijection(torch.randn(4, COORDINATES, dtype=D))[0])
        assert {name: x.shape[1:] for name, x in draws.items()} == SHAPES
        for name, x in draws.items():
            assert joint.latents[name].support.check(x).all()
        assert torch.equal(density.flat(draws), torch.cat([x.reshape(4, -1) for x in draws.values()], -1))

    def test_a_matrix_product_and_float32(self) -> None:
        """What an outer plate could not do, and what float64 can only do where the data are arguments."""
        x, y = torch.randn(20, 3), torch.randn(20)

        def model(x: Tensor, y: Tensor) -> None:
            w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            with pyro.plate("rows", len(x)):
                pyro.sample("y", dist.Normal(x @ w, 0.5), obs=y)

        w = torch.randn(6, 3, dtype=D)
        expected = torch.distributions.Normal(w @ x.double().T, 0.5).log_prob(y.double()).sum(-1)
        expected = expected + torch.distributions.Normal(0.0, 1.0).log_prob(w).sum(-1)
        density = density_of(model, x, y)
        assert density.batched and torch.allclose(density(w), expected, rtol=1e-12)
        density = density_of(lambda: model(x, y))
        assert density.batched and torch.allclose(density(w), expected, rtol=1e-5)

    def test_a_model_with_branches_goes_point_by_point(self) -> None:
        def model() -> None:
            x = pyro.sample("x", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(x if x > 0 else 2 * x, 1.0), obs=torch.tensor(0.5))

        density = density_of(model)
        assert not density.batched and density.differentiable
        u = torch.tensor([[-1.0], [2.0]], dtype=D)
        normal = torch.distributions.Normal(0.0, 1.0)
        expected = normal.log_prob(u[:, 0]) + normal.log_prob(0.5 - torch.tensor([-2.0, 2.0], dtype=D))
        assert torch.allclose(density(u), expected)

    def test_factors_masks_and_scales(self) -> None:
        def model() -> None:
            x = pyro.sample("x", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.factor("half", 0.5 * x.sum())
            with poutine.scale(scale=2.0), pyro.plate("rows", 3), poutine.mask(mask=torch.tensor([True, False, True])):
                pyro.sample("y", dist.Normal(x, 1.0), obs=torch.zeros(3))

        u = torch.randn(5, 3, dtype=D)
        normal = torch.distributions.Normal(0.0, 1.0).log_prob(u)
        expected = normal.sum(-1) + 0.5 * u.sum(-1) + 2 * normal[:, [0, 2]].sum(-1)
        assert torch.allclose(density_of(model)(u), expected)

    def test_points_without_a_factorisation_have_density_zero(self) -> None:
        def model() -> None:
            x = pyro.sample("x", dist.Normal(0.0, 0.1))
            one = torch.ones_like(x)
            matrix = torch.stack([torch.stack([one, x]), torch.stack([x, one])])
            pyro.sample("y", dist.MultivariateNormal(torch.zeros(2), matrix), obs=torch.zeros(2))

        density = density_of(model)
        value = density(torch.tensor([[0.5], [2.0], [-3.0], [0.0]], dtype=D))
        assert density.batched and value.isfinite().tolist() == [True, False, False, True]

    def test_a_random_joint(self) -> None:
        def model(x: Tensor) -> None:
            m = pyro.sample("m", dist.Normal(0.0, 1.0))
            with pyro.plate("rows", len(x), subsample_size=5) as rows:
                pyro.sample("x", dist.Normal(m, 1.0), obs=x[rows])

        with pytest.raises(ValueError, match="neither subsample"):
            fit_to_pyro(model, torch.randn(20))

    def test_a_site_that_appears_later(self) -> None:
        def model() -> None:
            x = pyro.sample("x", dist.Normal(0.0, 1e-3))
            if x > 1:
                pyro.sample("z", dist.Normal(0.0, 1.0))

        joint = _LogJoint(model, (), {})
        with pytest.raises(ValueError, match=r"\['z'\] changed"):
            joint({"x": torch.tensor(2.0)})

    def test_validation_and_default_dtype_are_left_as_they_were(self) -> None:
        with pyro.validation_enabled(True):
            density_of(schools, Y)
            with pytest.raises(ValueError, match="scale"):
                dist.Normal(0.0, -1.0)
        assert torch.get_default_dtype() == torch.float32


def pooled(y: Tensor | None = None) -> None:
    """Eight schools with tau = 5: jointly normal."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    with pyro.plate("schools", 8):
        theta = pyro.sample("theta", dist.Normal(mu, 5.0))
        pyro.sample("y", dist.Normal(theta, torch.tensor(SCHOOLS.errors)), obs=y)


class TestFit:
    def test_draws_by_site(self, tmp_path: Path) -> None:
        fit = fit_to_pyro(pooled, model_kwargs={"y": Y}, max_steps=50, **QUICK)
        assert fit.verdict == "good", fit.report
        covariance = 25 * torch.ones(8, 8, dtype=D) + (25 + torch.tensor(SCHOOLS.errors, dtype=D).square()).diag()
        exact = torch.distributions.MultivariateNormal(torch.zeros(8, dtype=D), covariance).log_prob(Y.double())
        assert fit.log_evidence == pytest.approx(exact.item(), abs=0.01)
        draws = fit.sample(6, seed=0)
        assert isinstance(draws, dict)
        assert {name: (x.shape, x.dtype) for name, x in draws.items()} == {
            "mu": ((6,), torch.float32),
            "theta": ((6, 8), torch.float32),
        }
        weighted, log_weights = fit.weighted_sample(2000)
        assert isinstance(weighted, dict)
        joint = _LogJoint(pooled, (Y,), {})
        expected = torch.func.vmap(joint)(weighted) - fit.log_prob(weighted)
        assert torch.allclose(log_weights, expected, atol=1e-4)  # of draws that were rounded to float32
        for parallel in (False, True):
            y = Predictive(pooled, posterior_samples=draws, parallel=parallel)()["y"]
            assert y.shape == (6, 8)
        fit.save(tmp_path / "fit.safetensors")
        again = pf.load(tmp_path / "fit.safetensors")
        x = torch.cat([draws["mu"].unsqueeze(-1), draws["theta"]], dim=-1).double()
        assert torch.equal(again.log_prob(x), fit.log_prob(draws))
        assert pf.load_info(tmp_path / "fit.safetensors")["sites"] == {"mu": [], "theta": [8]}
        with pytest.raises(ValueError, match=r"each of the sites \['mu', 'theta'\], got \['mu'\]"):
            fit.log_prob({"mu": draws["mu"]})

    def test_every_support_is_saved(self, tmp_path: Path) -> None:
        density = density_of(every_support)
        flow = pf.Flow(density.bijection, pf.StandardNormal(density.features)).double()
        pf.save(flow, tmp_path / "flow.safetensors")
        x = flow.sample(5)
        assert torch.equal(pf.load(tmp_path / "flow.safetensors").log_prob(x), flow.log_prob(x))

    @pytest.mark.slow
    def test_the_evidence_of_eight_schools(self) -> None:
        fit = fit_to_pyro(schools, Y, **QUICK)
        assert fit.verdict != "failed", fit.report
        assert abs(fit.log_evidence - SCHOOLS.log_normalizer) < 0.02
        draws = fit.sample(4000, exact=True, seed=0)
        assert isinstance(draws, dict)
        assert draws["mu"].mean().item() == pytest.approx(4.39682, abs=0.3)
        assert draws["tau"].log().mean().item() == pytest.approx(0.80214, abs=0.15)

    @pytest.mark.slow
    def test_a_prior_of_every_support_has_evidence_one(self) -> None:
        fit = fit_to_pyro(every_support, max_steps=2000, **QUICK)
        assert fit.verdict != "failed", fit.report
        assert fit.log_evidence == pytest.approx(0.0, abs=0.05)


class TestNeutra:
    def test_moments_of_a_correlated_normal(self) -> None:
        """Through a flow that is only roughly right, so that what comes out is the chain's doing."""
        target = CorrelatedNormal(2, 0.3, 3.0)
        fit = pf.fit_to_log_density(target.log_density, 2, max_steps=1, **QUICK)
        x = neutra_nuts(fit, num_samples=150, warmup_steps=60, group_by_chain=True)
        assert isinstance(x, Tensor) and x.shape == (1, 150, 2)
        figures = summary({"x": x})["x"]
        covariance = target.rotation @ target.scales.square().diag() @ target.rotation.T
        assert (figures["n_eff"] > 40).all()
        errors = (covariance.diagonal() / figures["n_eff"]).sqrt()
        assert (figures["mean"].abs() < 4 * errors).all()
        assert torch.allclose(figures["std"], covariance.diagonal().sqrt(), rtol=0.25)

    def test_a_guide_by_name(self) -> None:
        guide = FlowGuide(schools)
        guide(Y)
        draws = neutra_nuts(guide, Y, num_samples=3, warmup_steps=2, num_chains=2, max_tree_depth=2)
        assert isinstance(draws, dict)
        assert {name: x.shape for name, x in draws.items()} == {"mu": (6,), "tau": (6,), "theta": (6, 8)}
        again = neutra_nuts(guide, Y, num_samples=3, warmup_steps=2, num_chains=2, max_tree_depth=2)
        assert isinstance(again, dict) and torch.equal(draws["theta"], again["theta"])

    @pytest.mark.slow
    def test_the_funnel(self) -> None:
        """x_0 ~ N(0, 3), the others N(0, exp(x_0 / 2)): plain NUTS does not reach the neck."""
        fit = pf.fit_to_log_density(Funnel().log_density, 10, **QUICK)
        x = neutra_nuts(fit, num_samples=500, warmup_steps=200, num_chains=2, group_by_chain=True)
        assert isinstance(x, Tensor)
        figures = summary({"x": x})["x"]
        assert figures["r_hat"][0] < 1.05 and figures["n_eff"][0] > 200
        assert abs(figures["mean"][0].item()) < 4 * 3 / math.sqrt(figures["n_eff"][0])
        assert figures["std"][0].item() == pytest.approx(3.0, rel=0.1)


def test_the_mixture_demo_in_pyro(tmp_path: Path) -> None:
    assert main(["demo", "mixture", "--pyro", "--flow", "iaf", "--steps", "30", "--out", str(tmp_path)]) == 0
    written = {path.name for path in tmp_path.iterdir()}
    assert {"model.safetensors", "metrics.json", "loss.png", "density.png", "steps.png", "target.png"} <= written


@pytest.mark.slow
def test_svi_finds_both_components(tmp_path: Path) -> None:
    from pushforward.demos.mixture import run

    found = run(tmp_path, flow="iaf", steps=1000, in_pyro=True, progress=False).metrics["iaf"]
    assert found["kl"] < 0.06  # one component alone would cost log 2


def test_without_pyro() -> None:
    code = "import sys; sys.modules['pyro'] = None\nimport pushforward.contrib\n"
    code += "from pushforward.cli import main\nsys.exit(main(['demo', 'mixture', '--pyro', '--out', 'nowhere']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2 and "pip install pushforward[pyro]" in done.stderr
    assert done.stderr.count("\n") == 1 and not Path("nowhere").exists()
