"""Flow matching against closed forms, and fits whose excess over the entropy of a known density is bounded."""

from typing import Any

import pytest
import torch
from torch import nn

import pushforward as pf
from pushforward.objectives import flow_matching
from pushforward.targets import TwoMoons


def linear_flow() -> tuple[pf.Flow, pf.Velocity]:
    velocity = pf.Velocity(1, hidden_features=(), time_features=0).double()
    return pf.Flow(pf.Continuous(1, velocity=velocity), pf.StandardNormal(1)).double(), velocity


@pytest.mark.parametrize("sigma_min", [0.0, 0.3])
def test_gradient_of_a_linear_field(sigma_min: float) -> None:
    r"""v = a z + c for x ~ N(m, s^2): the moments of x_t = r z + t x and u = x - (1 - sigma) z, r = 1 - (1 - sigma) t.

    Over 200 batches of 500, within 4.5 standard errors.
    """
    torch.manual_seed(0)
    flow, velocity = linear_flow()
    a, c, m, s, k = 0.7, -0.2, 1.5, 0.5, 1 - sigma_min
    with torch.no_grad():
        velocity.network.layers[-1].weight.fill_(a)
        velocity.network.layers[-1].bias.fill_(c)
    loss = pf.FlowMatching(flow, sigma_min=sigma_min)
    second = 1 - k + k**2 / 3 + (s**2 + m**2) / 3  # E x_t^2
    mixed = (s**2 + m**2) / 2 - k * (1 - k / 2)  # E x_t u
    expected = 2 * torch.tensor([a * second + c * m / 2 - mixed, a * m / 2 + c - m], dtype=torch.float64)
    rows = []
    for _ in range(200):
        x = m + s * torch.randn(500, 1, dtype=torch.float64)
        gradient = torch.autograd.grad(loss(x), [velocity.network.layers[-1].weight, velocity.network.layers[-1].bias])
        rows.append(torch.cat([g.reshape(-1) for g in gradient]))
    found = torch.stack(rows)
    assert ((found.mean(0) - expected) / (found.std(0) / 200**0.5)).abs().max() < 4.5


def test_weights_and_reproducible_evaluation() -> None:
    torch.manual_seed(0)
    flow, _ = linear_flow()
    loss = pf.FlowMatching(flow)
    x = torch.randn(50, 1, dtype=torch.float64)
    assert not torch.equal(loss(x), loss(x))
    loss.eval()
    state = torch.get_rng_state()
    assert torch.equal(loss(x), loss(x))
    assert torch.equal(torch.get_rng_state(), state)
    weights = torch.cat([torch.full((25,), 2.0), torch.zeros(25)]).double()
    assert torch.allclose(loss(x, weights=weights) + loss(x, weights=2 - weights), 2 * loss(x))


def test_times_cover_the_interval() -> None:
    flow, _ = linear_flow()
    x = torch.zeros(1000, 1, dtype=torch.float64)
    t = pf.FlowMatching(flow)._times(x)
    assert 0 <= t.min() < t.max() < 1
    assert (t.sort().values - torch.arange(1000) / 1000).abs().max() < 1e-3
    logit = torch.logit(pf.FlowMatching(flow, times="logit_normal")._times(x))
    assert logit.mean().abs() < 0.02 and (logit.std() - 1).abs() < 0.02


def test_optimal_pairing_is_monotone_on_the_line() -> None:
    torch.manual_seed(0)
    z, x = torch.randn(40, 1), torch.randn(40, 1)
    paired = flow_matching._assigned(z, x)
    assert torch.equal(paired[x[:, 0].argsort()], z.sort(dim=0).values)


def test_other_layers_map_the_data() -> None:
    """`Standardize` after the continuous layer and a permutation before it: the same loss on data mapped by hand."""
    torch.manual_seed(0)
    velocity = pf.Velocity(2, hidden_features=(4,)).double()
    nn.init.normal_(velocity.network.layers[-1].weight)
    standardize = pf.Standardize([5.0, -1.0], [3.0, 0.1]).double()
    whole = pf.Flow(
        pf.Chain(pf.Permutation([1, 0]), pf.Chain(pf.Continuous(2, velocity=velocity), standardize)),
        pf.StandardNormal(2),
    )
    bare = pf.Flow(pf.Chain(pf.Permutation([1, 0]), pf.Continuous(2, velocity=velocity)), pf.StandardNormal(2))
    x = torch.randn(20, 2, dtype=torch.float64)
    losses = [pf.FlowMatching(f.double()).eval()(v) for f, v in ((whole, x), (bare, standardize.inverse(x)[0]))]
    assert torch.allclose(losses[0], losses[1])


def fit(flow: pf.Flow, data: Any, seed: int, **options: Any) -> pf.TrainResult:
    return pf.train(pf.FlowMatching(flow, **options.pop("objective", {})), data, seed=seed, **options)


@pytest.mark.parametrize("pairing", ["independent", "optimal"])
def test_fits_a_gaussian(pairing: Any) -> None:
    """A quick one: N(m, C) in two dimensions, excess over the entropy below 0.05 nats, with the layer standardised."""
    torch.manual_seed(0)
    truth = torch.distributions.MultivariateNormal(torch.tensor([4.0, -2.0]), torch.tensor([[2.0, 1.2], [1.2, 1.0]]))
    x = truth.sample((2000,))
    flow = pf.Flow(
        pf.Chain(pf.Continuous(2, hidden_features=(32,)), pf.Standardize(x.mean(0), x.std(0))), pf.StandardNormal(2)
    )
    fit(flow, x, 0, max_steps=250, learning_rate=1e-2, batch_size=128, objective={"pairing": pairing})
    fresh = truth.sample((500,))
    with torch.no_grad():
        excess = (truth.log_prob(fresh) - flow.log_prob(fresh)).mean()
    assert excess < 0.05


def test_fits_with_a_context_and_an_embedding() -> None:
    """x | c ~ N(3 c, 0.5^2): excess over the entropy below 0.05 nats; the embedding is trained too."""
    torch.manual_seed(0)
    c = torch.randn(2000, 1)
    x = 3 * c + 0.5 * torch.randn(2000, 1)
    flow = pf.Flow(
        pf.Continuous(1, context_features=2, hidden_features=(32,)), pf.StandardNormal(1), embedding=nn.Linear(1, 2)
    )
    before = [p.detach().clone() for p in flow.embedding.parameters()]  # type: ignore[union-attr]
    fit(flow, {"x": x, "context": c}, 0, max_steps=400, learning_rate=1e-2, batch_size=128)
    with torch.no_grad():
        excess = (torch.distributions.Normal(3 * c, 0.5).log_prob(x)[:, 0] - flow.log_prob(x, c)).mean()
    assert excess < 0.05
    after = flow.embedding.parameters()  # type: ignore[union-attr]
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pairing", "batch", "hidden"), [("independent", 1024, (64, 64, 64)), ("optimal", 256, (128, 128))]
)
def test_fits_two_moons(pairing: Any, batch: int, hidden: tuple[int, ...]) -> None:
    """3000 steps: excess over the entropy, of 4000 fresh draws, below 0.3 nats; independent pairs need more rows."""
    torch.manual_seed(0)
    moons = TwoMoons(noise=0.1)
    flow = pf.cnf(2, hidden_features=hidden)
    options = {"max_steps": 3000, "batch_size": batch, "learning_rate": 3e-3, "objective": {"pairing": pairing}}
    fit(flow, lambda n: moons.sample(n), 0, **options)
    x = moons.sample(4000)
    with torch.no_grad():
        excess = (moons.log_prob(x) - flow.log_prob(x)).mean()
    assert excess < 0.3


def test_training_that_diverges_stops_and_keeps_a_sound_state() -> None:
    """By maximum likelihood, where the solver is in the loop and gives up."""
    torch.manual_seed(0)
    flow = pf.cnf(1, hidden_features=(4,), solver="rk4", steps=2)
    x = torch.randn(100, 1)
    result = pf.train(
        pf.MaximumLikelihood(flow), x, max_steps=30, schedule=None, clip=None,
        optimizer=lambda p: torch.optim.SGD(p, lr=1e12),
    )  # fmt: skip
    assert "non-finite" in result.stopped
    assert flow.log_prob(x).isfinite().all()


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"exactly one Continuous layer, got one of \[Planar\]"):
        pf.FlowMatching(pf.planar(2, layers=1))
    with pytest.raises(ValueError, match=r"got one of \[Continuous, Continuous\]"):
        pf.FlowMatching(pf.cnf(2, layers=2))
    with pytest.raises(ValueError, match=r"got one of \[Inverse\]"):
        pf.FlowMatching(pf.Flow(pf.Continuous(2).inv, pf.StandardNormal(2)))
    trainable = pf.Flow(pf.Chain(pf.Continuous(2), pf.ActNorm(2)), pf.StandardNormal(2))
    with pytest.raises(ValueError, match=r"got Chain with layers\.0\.params\.constants; freeze it with requires_grad_"):
        pf.FlowMatching(trainable)
    trainable.bijection.layers[1].requires_grad_(False)  # type: ignore[index, union-attr]
    pf.FlowMatching(trainable)
    with pytest.raises(ValueError, match=r"got DiagonalNormal with params\.constants"):
        pf.FlowMatching(pf.Flow(pf.Continuous(2), pf.DiagonalNormal(2)))
    flow = pf.cnf(2)
    for options, message in (
        ({"sigma_min": 1.0}, "0 <= sigma_min < 1, got 1.0"),
        ({"pairing": "greedy"}, "'independent' or 'optimal', got 'greedy'"),
        ({"times": "beta"}, "'uniform' or 'logit_normal', got 'beta'"),
    ):
        with pytest.raises(ValueError, match=message):
            pf.FlowMatching(flow, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="without context for pairing='optimal'"):
        pf.FlowMatching(pf.cnf(2, 1), pairing="optimal")


def test_optimal_pairing_without_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_matching, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="needs scipy; pip install scipy"):
        pf.FlowMatching(pf.cnf(2), pairing="optimal")
