"""Losses and the gradients of draws against closed forms; Monte Carlo means within 4.5 standard errors."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import pushforward as pf

MU, S = torch.tensor([1.0, -2.0], dtype=torch.float64), torch.tensor([0.5, 3.0], dtype=torch.float64)


def target(x: Tensor) -> Tensor:
    """Unnormalised N(MU, S^2)."""
    return -0.5 * ((x - MU) / S).square().sum(-1)


def gaussian(loc: Tensor, log_scale: Tensor) -> pf.Flow:
    base = pf.DiagonalNormal(2).double()
    base.params.set_(loc, log_scale)
    return pf.Flow(pf.Chain(), base)


def gradients(loss: pf.Objective, repeats: int) -> Tensor:
    """One row per fresh evaluation of the loss."""
    parameters = list(loss.parameters())
    rows = [torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss(), parameters)]) for _ in range(repeats)]
    return torch.stack(rows)


def z_scores(rows: Tensor, expected: Tensor) -> Tensor:
    return (rows.mean(0) - expected) / (rows.std(0) / len(rows) ** 0.5)


@pytest.mark.parametrize("gradient", ["reparametrised", "path"])
def test_reverse_kl_has_the_analytic_value_and_gradient(gradient: str) -> None:
    torch.manual_seed(0)
    loc = torch.tensor([0.0, 1.0], dtype=torch.float64)
    log_scale = torch.tensor([0.3, -0.4], dtype=torch.float64)
    loss = pf.ReverseKL(gaussian(loc, log_scale), target, 50, gradient=gradient)  # type: ignore[arg-type]
    variance = (2 * log_scale).exp()
    expected = torch.cat([(loc - MU) / S**2, variance / S**2 - 1])
    assert z_scores(gradients(loss, 400), expected).abs().max() < 4.5
    log_2_pi = math.log(2 * math.pi)
    free_energy = (-0.5 * log_2_pi - log_scale - 0.5 + 0.5 * (variance + (loc - MU) ** 2) / S**2).sum()
    losses = torch.stack([loss().detach() for _ in range(400)])
    assert z_scores(losses[:, None], free_energy[None]).abs() < 4.5


def test_only_the_path_gradient_loses_its_variance_at_the_optimum() -> None:
    torch.manual_seed(0)
    flow = gaussian(MU, S.log())
    path = gradients(pf.ReverseKL(flow, target, 10, gradient="path"), 20)
    plain = gradients(pf.ReverseKL(flow, target, 10), 20)
    assert path.abs().max() < 1e-12
    assert plain.std(0)[2:].min() > 0.1  # of 1 - noise^2, over 10 draws: 0.45


def test_the_two_gradients_agree_for_a_layered_flow() -> None:
    torch.manual_seed(0)
    flow = pf.maf(2, layers=2, hidden_features=(4,)).double()
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.2 * torch.randn_like(p))
    a, b = (gradients(pf.ReverseKL(flow, target, 100, gradient=g), 120) for g in ("reparametrised", "path"))
    error = ((a.var(0) + b.var(0)) / len(a)).sqrt()
    assert ((a.mean(0) - b.mean(0)) / error.clamp_min(1e-9)).abs().max() < 4.5


def test_the_path_gradient_leaves_the_parameters_in_place() -> None:
    flow = pf.real_nvp(2, 1, layers=2, hidden_features=(8,))
    before = {name: id(p) for name, p in flow.named_parameters()}
    pf.ReverseKL(flow, lambda x: -x.square().sum(-1), num_samples=3, gradient="path")(torch.zeros(1, 1)).backward()
    assert {name: id(p) for name, p in flow.named_parameters()} == before
    assert all(p.grad is not None for p in flow.parameters())


def test_reverse_kl_with_a_context() -> None:
    torch.manual_seed(0)
    flow = pf.maf(2, 3, layers=1)
    loss = pf.ReverseKL(flow, lambda x: -0.5 * x.square().sum(-1), 7)
    assert loss(torch.randn(5, 3)).item() == pytest.approx(-math.log(2 * math.pi), abs=1e-5)


def test_errors() -> None:
    flow = gaussian(MU, S.log())
    for wrong in (lambda x: -x.square(), lambda x: -x.square().sum(), lambda x: -x.square().sum(-1, keepdim=True)):
        with pytest.raises(ValueError, match=r"log_density to map x of shape \(64, 2\) to \(64,\), got"):
            pf.ReverseKL(flow, wrong)()
    with pytest.raises(ValueError, match="'reparametrised' or 'path', got 'score'"):
        pf.ReverseKL(flow, target, gradient="score")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_samples >= 1, got 0"):
        pf.ReverseKL(flow, target, 0)


def test_maximum_likelihood_is_the_mean_negative_log_prob() -> None:
    flow = gaussian(MU, S.log())
    loss = pf.MaximumLikelihood(flow)
    x = torch.randn(6, 2, dtype=torch.float64)
    expected = -torch.distributions.Normal(MU, S).log_prob(x).sum(-1)
    assert torch.allclose(loss(x), expected.mean())
    weights = torch.tensor([0.0, 1, 2, 0, 1, 2], dtype=torch.float64)
    assert torch.allclose(loss(x, weights=weights), (weights * expected).mean())


class TestGradientsOfDraws:
    def rows(self, base: pf.Base, function: object, repeats: int = 200, n: int = 500) -> Tensor:
        rows = []
        for _ in range(repeats):
            value = function(base.sample((n,))).mean()  # type: ignore[operator]
            rows.append(torch.autograd.grad(value, base.params.constants)[0])  # type: ignore[union-attr]
        return torch.stack(rows)

    def test_mixture(self) -> None:
        """E[sum z^2 + z_1 z_2] in closed form: means, scales and weights, and the dependence between features."""
        torch.manual_seed(0)
        base = pf.GaussianMixture(2, 3, spread=1.5).double()
        with torch.no_grad():
            base.params.constants.add_(0.3 * torch.randn_like(base.params.constants))
        logits, loc, log_scale = base.params()
        moments = (loc.square() + (2 * log_scale).exp()).sum(-1) + loc.prod(-1)
        expected = (logits.softmax(-1) * moments).sum()
        (gradient,) = torch.autograd.grad(expected, base.params.constants)
        rows = self.rows(base, lambda z: z.square().sum(-1) + z.prod(-1))
        assert z_scores(rows, gradient).abs().max() < 4.5
        assert (rows.mean(0) - gradient).abs().max() < 0.1 * gradient.abs().max()

    def test_mixture_whose_constants_are_frozen(self) -> None:
        """The gradient reaches the network of the context all the same."""
        base = pf.GaussianMixture(2, 3, context_features=1)
        base.params.constants.requires_grad_(False)
        base.sample((5,), torch.ones(1)).sum().backward()
        assert base.params.network is not None
        assert base.params.network.layers[-1].weight.grad is not None

    def test_student(self) -> None:
        """E[z^2] = loc^2 + scale^2 df / (df - 2)."""
        torch.manual_seed(0)
        base = pf.StudentT(1, df=12.0).double()
        base.params.set_(*(torch.tensor([v], dtype=torch.float64) for v in (math.log(12.0), 0.7, 0.2)))
        log_df, loc, log_scale = base.params()
        df = log_df.exp()
        expected = loc**2 + (2 * log_scale).exp() * df / (df - 2)
        (gradient,) = torch.autograd.grad(expected.sum(), base.params.constants)
        rows = self.rows(base, lambda z: z.square().sum(-1))
        assert z_scores(rows, gradient).abs().max() < 4.5
        assert (rows.mean(0) - gradient).abs().max() < 0.1 * gradient.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_student_with_many_degrees_of_freedom_is_normal(dtype: torch.dtype) -> None:
    z = torch.linspace(-4, 4, 9, dtype=dtype)[:, None]
    for df in (150.0, 190.0, 210.0, 1e3):
        expected = torch.distributions.StudentT(torch.tensor(df, dtype=torch.float64)).log_prob(z.double()).sum(-1)
        found = pf.StudentT(1, df).to(dtype).log_prob(z)
        assert torch.allclose(found.double(), expected, rtol=0, atol=2e-4 if dtype == torch.float32 else 1e-6)
    found = pf.StudentT(1, 1e6).to(dtype).log_prob(z)
    assert torch.allclose(found, pf.StandardNormal(1).log_prob(z), rtol=0, atol=1e-4)


def test_uniform_bounds() -> None:
    base = pf.Uniform([0, 0], [2, 4])  # integers are numbers too
    assert base.sample((3,)).dtype == torch.float32
    assert base.log_prob(torch.tensor([1.0, math.nan])) == -math.inf
    for bounds in (([1.0], [1.0]), ([0.0], [math.inf]), ([math.nan], [1.0])):
        with pytest.raises(ValueError, match="finite lower < upper"):
            pf.Uniform(*bounds)


class TestOnWeightedDraws:
    """Objectives on importance weights, for q = N(MU, S^2) and p = N(0, 1), against closed forms and each other."""

    def test_the_bound_of_one_draw_is_the_elbo(self) -> None:
        torch.manual_seed(0)
        flow = gaussian(MU, S.log())
        bound = pf.ImportanceWeighted(flow, target, 1, repeats=200_000)
        exact = pf.ReverseKL(flow, target, 200_000)
        assert bound().item() == pytest.approx(exact().item(), abs=0.02)

    def test_its_two_gradients_agree(self) -> None:
        torch.manual_seed(0)
        flow = gaussian(MU, S.log())
        a, b = (
            gradients(pf.ImportanceWeighted(flow, target, 5, repeats=500, gradient=g), 100)
            for g in ("doubly_reparametrised", "reparametrised")
        )
        error = ((a.var(0) + b.var(0)) / len(a)).sqrt()
        assert ((a.mean(0) - b.mean(0)) / error.clamp_min(1e-9)).abs().max() < 4.5

    def test_the_log_variance_has_the_gradient_of_the_reverse_divergence(self) -> None:
        torch.manual_seed(0)
        flow = gaussian(MU, S.log())
        a = gradients(pf.LogVariance(flow, target, 500), 200)
        b = gradients(pf.ReverseKL(flow, target, 500), 200)
        error = ((a.var(0) + b.var(0)) / len(a)).sqrt()
        assert ((a.mean(0) - b.mean(0)) / error.clamp_min(1e-9)).abs().max() < 4.5

    def test_alpha_two_is_half_the_variance_of_the_weights(self) -> None:
        """For q = N(0, s^2) and p = N(0, 1), s > 1: E_q[w^2] = s^2 / sqrt(2 s^2 - 1)."""
        torch.manual_seed(0)
        s = torch.tensor([1.5, 1.0], dtype=torch.float64)
        flow = gaussian(torch.zeros(2, dtype=torch.float64), s.log())
        normal = lambda x: -0.5 * x.square().sum(-1)  # noqa: E731
        loss = pf.AlphaDivergence(flow, normal, 2.0, 200_000)().item()
        assert loss == pytest.approx(0.5 * (1.5**2 / math.sqrt(2 * 1.5**2 - 1) - 1), abs=0.005)

    def test_forward_kl_of_equal_weights_is_maximum_likelihood(self) -> None:
        flow = gaussian(MU, S.log())
        x = torch.randn(50, 2, dtype=torch.float64)
        same = torch.full((50,), 3.0, dtype=torch.float64)
        assert torch.allclose(pf.ForwardKL(flow)(x, same), pf.MaximumLikelihood(flow)(x))

    @pytest.mark.parametrize("kind", [pf.ImportanceWeighted, pf.LogVariance, pf.AlphaDivergence])
    def test_wrong_shapes_are_named(self, kind: Any) -> None:
        with pytest.raises(ValueError, match=rf"{kind.__name__}: expected log_density to map x of shape"):
            kind(gaussian(MU, S.log()), lambda x: x)()


class TestTempering:
    @pytest.mark.parametrize("kind", [pf.ReverseKL, pf.ImportanceWeighted, pf.LogVariance, pf.AlphaDivergence])
    def test_the_density_is_raised_to_the_power_of_the_step(self, kind: Any) -> None:
        """In training alone: step after step the loss is that of the target to the power of 1/10, 6/10 and 1."""
        flow = gaussian(MU, (1.5 * S).log())
        loss = kind(flow, target, 50, tempering=pf.linear_tempering(0.1, 2))
        for power in (0.1, 0.6, 1.0, 1.0):
            torch.manual_seed(0)
            found = loss()
            torch.manual_seed(0)
            expected = kind(flow, lambda x, power=power: power * target(x), 50)()
            assert torch.allclose(found, expected, rtol=1e-5)
        torch.manual_seed(0)
        at_the_end = loss.eval()()
        torch.manual_seed(0)
        assert torch.equal(at_the_end, kind(flow, target, 50)())

    def test_a_resumed_run_goes_on_at_its_power(self, tmp_path: Any) -> None:
        def run(steps: int, checkpoint: Any) -> pf.TrainResult:
            torch.manual_seed(0)
            loss = pf.ReverseKL(gaussian(MU, S.log()), target, 5, tempering=pf.geometric_tempering(0.1, 20))
            stop = lambda step: step == steps  # noqa: E731
            return pf.train(loss, max_steps=20, checkpoint=checkpoint, checkpoint_every=10, callback=stop)

        run(10, tmp_path / "half")
        assert run(20, tmp_path / "half").losses == run(20, tmp_path / "whole").losses

    def test_it_finds_a_mode_far_away(self) -> None:
        """A flow between two modes, whose plain divergence falls into the nearer one, keeps both if heated first."""
        log_weights = torch.tensor([0.5, 0.5]).log()
        normals = torch.distributions.Normal(torch.tensor([-5.0, 3.0]), 0.5)
        density = lambda x: (log_weights + normals.log_prob(x)).logsumexp(-1)  # noqa: E731
        shares = []
        for tempering in (None, pf.geometric_tempering(0.01, 300)):
            torch.manual_seed(0)
            flow = pf.nsf(1, layers=2, bins=16)
            loss = pf.ReverseKL(flow, density, 100, tempering=tempering)
            pf.train(loss, max_steps=400, learning_rate=1e-2, progress=False)
            shares.append((flow.sample(4000) < 0).double().mean().item())
        assert shares[0] < 0.05 and 0.3 < shares[1] < 0.7, shares

    def test_errors(self) -> None:
        for start, steps in ((0.0, 10), (1.1, 10), (0.5, 0)):
            with pytest.raises(ValueError, match="expected 0 < start <= 1 and steps > 0"):
                pf.linear_tempering(start, steps)


class TestChoices:
    """The gradient of E[f(z)] through the draws and the log-probability of the choices, in closed form."""

    @pytest.mark.parametrize("kind", ["LocatedMixture", "MarginalMixtures"])
    def test_the_path_gradient_moves_mass_between_separate_components(self, kind: str) -> None:
        torch.manual_seed(0)
        loc = torch.tensor([[-6.0], [6.0]], dtype=torch.float64)
        one, weights = torch.ones_like(loc), torch.tensor([0.5, 0.5], dtype=torch.float64)
        base: pf.Base
        if kind == "LocatedMixture":
            base = pf.LocatedMixture(loc, one.unsqueeze(-1), weights)
        else:
            base = pf.MarginalMixtures(loc.mT, one.mT, weights.unsqueeze(0))
        flow = pf.Flow(pf.Chain(), base)
        log_p = torch.tensor([0.8, 0.2], dtype=torch.float64).log()
        normals = torch.distributions.Normal(loc[:, 0], 1.0)
        density = lambda x: (log_p + normals.log_prob(x)).logsumexp(-1)  # noqa: E731
        rows = gradients(pf.ReverseKL(flow, density, 500, gradient="path"), 100)[:, :2]
        # d/dl of sum_k w_k log(w_k / p_k) at equal weights: w_k (log(w_k / p_k) - its mean)
        ratio = (weights.log() - log_p).double()
        expected = weights * (ratio - (weights * ratio).sum())
        assert (z_scores(rows, expected)).abs().max() < 4.5
        assert (rows.mean(0) - expected).abs().max() < 0.02
