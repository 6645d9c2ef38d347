"""Bounds on likelihoods that are known otherwise."""

import math

import pytest
import torch
from torch import Tensor

import pushforward as pf

D = torch.float64


def bent(features: int, context_features: int = 0, scale: float = 0.2) -> pf.Flow:
    """A flow away from its start."""
    torch.manual_seed(0)
    flow = pf.real_nvp(features, context_features, layers=2, hidden_features=(8,)).double()
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(scale * torch.randn_like(p))
    return flow


def mean_bound(model: pf.SurjectiveFlow, x: Tensor, draws: int, num_samples: int) -> Tensor:
    """The expected bound of each x, from `draws` repetitions."""
    with torch.no_grad():
        return model.log_prob_bound(x.expand(draws, *x.shape), num_samples=num_samples).mean(0)


def check_bound(model: pf.SurjectiveFlow, x: Tensor, truth: Tensor) -> None:
    """The bound lies below the truth, rises with the draws, and reaches it."""
    torch.manual_seed(0)
    elbo, better = mean_bound(model, x, 4000, 1), mean_bound(model, x, 400, 10)
    assert (elbo < truth + 0.02).all()
    assert (better < truth + 0.02).all()
    assert better.mean() > elbo.mean()
    assert torch.allclose(mean_bound(model, x, 1, 50_000), truth, rtol=0, atol=0.03)


def marginal(flow: pf.Flow, x: Tensor) -> Tensor:
    """log p(x_1) of a flow of (x_1, e), by quadrature over e."""
    e = torch.linspace(-15, 15, 6001, dtype=D)
    points = torch.stack(torch.broadcast_tensors(x, e), -1)
    with torch.no_grad():
        return torch.trapezoid(flow.log_prob(points).exp(), e).log()


def test_augmented_bounds_the_marginal() -> None:
    model = pf.Augmented(bent(2), bent(1, context_features=1, scale=0.1))
    x = torch.linspace(-1, 1, 5, dtype=D).unsqueeze(-1)
    check_bound(model, x, marginal(model.flow, x))


def test_augmented_is_exact_at_the_posterior() -> None:
    """x = e + n: q(e | x) = N(x / 2, 1 / 2), and every draw gives log N(x; 0, 2)."""
    joint = pf.LU(2)
    with torch.no_grad():  # upper factor: (x, e) = [[1, 1], [0, 1]] z
        joint.params.set_(torch.tensor([[0.0, 1.0], [0.0, 0.0]]), torch.zeros(2))
    noise = pf.DiagonalNormal(1, context_features=1, hidden_features=())
    network = noise.params.network
    assert network is not None
    with torch.no_grad():
        network.layers[-1].weight.copy_(torch.tensor([[0.5], [0.0]]))
        noise.params.set_(torch.zeros(1), torch.full((1,), -0.5 * math.log(2)))
    model = pf.Augmented(pf.Flow(joint, pf.StandardNormal(2)), pf.Flow(pf.Chain(), noise)).double()
    x = torch.linspace(-3, 3, 7, dtype=D).unsqueeze(-1)
    truth = torch.distributions.Normal(0.0, torch.tensor(math.sqrt(2.0), dtype=D)).log_prob(x[:, 0])
    for num_samples in (1, 5):
        assert torch.allclose(model.log_prob_bound(x, num_samples=num_samples), truth, rtol=0, atol=1e-6)


@pytest.mark.parametrize("learned", [False, True])
def test_dequantized_bounds_the_probabilities(learned: bool) -> None:
    flow = bent(2)
    # Tails heavier than the logistic's, which u uniform would have, keep the variance of the weights finite.
    noise = pf.Flow(pf.LU(2, context_features=2, hidden_features=(8,)), pf.StudentT(2)).double()
    with torch.no_grad():
        for p in noise.parameters():
            p.add_(0.1 * torch.randn_like(p))
    model = pf.Dequantized(flow, levels=3, noise=noise if learned else None)
    x = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    # The probability of a cell, by the midpoint rule in y = logit(x / levels), the outer cells cut at |y| = 12.
    edges = torch.tensor([-12.0, math.log(1 / 2), math.log(2), 12.0], dtype=D)
    truth = []
    for i, j in x.tolist():
        axes = []
        for k in (i, j):
            n = 60 if k == 1 else 400
            width = (edges[k + 1] - edges[k]) / n
            axes.append((edges[k] + width * (torch.arange(n, dtype=D) + 0.5), width))
        points = torch.cartesian_prod(axes[0][0], axes[1][0])
        with torch.no_grad():
            truth.append((flow.log_prob(points).exp().sum() * axes[0][1] * axes[1][1]).log())
    exact = torch.stack(truth)
    assert abs(exact.exp().sum().item() - 1) < 1e-3
    check_bound(model, x, exact)
    draws = model.sample(20_000)
    frequency = torch.stack([(draws == row).all(-1).double().mean() for row in x.to(D)])
    assert (frequency - exact.exp()).abs().max() < 4 * 0.5 / 20_000**0.5


def test_dequantized_outside_and_at_the_ends() -> None:
    model = pf.Dequantized(pf.nsf(2, layers=1, hidden_features=(8,)), levels=256, noise=None)
    x = torch.tensor([[0.0, 255.0], [0.5, 1.0], [-1.0, 3.0], [256.0, 0.0], [math.nan, 0.0]])
    bound = model.log_prob_bound(x, num_samples=100)
    assert bound[0].isfinite()
    assert (bound[1:] == -math.inf).all()
    assert model.log_prob_bound(x[:1].long()).dtype == torch.float32


def test_absolute_bounds_the_folded_density() -> None:
    flow = bent(2)
    x = torch.tensor([[0.1, 0.5], [1.0, 2.0], [2.0, 0.2]], dtype=D)
    signs = torch.tensor([[a, b] for a in (-1, 1) for b in (-1, 1)], dtype=D)
    with torch.no_grad():
        truth = flow.log_prob(signs.unsqueeze(1) * x).logsumexp(0)
    check_bound(pf.Absolute(flow), x, truth)
    even = pf.Absolute(pf.Flow(pf.Chain(), pf.StandardNormal(2)).double())
    expected = torch.distributions.HalfNormal(torch.ones((), dtype=D)).log_prob(x).sum(-1)
    assert torch.allclose(even.log_prob_bound(x), expected, rtol=0, atol=1e-12)
    assert even.log_prob_bound(torch.tensor([-1.0, 1.0], dtype=D)).item() == -math.inf
    assert (even.sample(100) >= 0).all()


def test_sorted_bounds_the_density_of_the_set() -> None:
    flow = bent(2)
    x = torch.tensor([[-1.0, 0.5], [1.0, 1.5], [-2.0, -0.2]], dtype=D)
    with torch.no_grad():
        truth = torch.stack([flow.log_prob(x), flow.log_prob(x.flip(-1))]).logsumexp(0)
    check_bound(pf.Sorted(flow), x, truth)
    assert pf.Sorted(flow).log_prob_bound(x.flip(-1)).eq(-math.inf).all()
    alike = pf.Sorted(pf.Flow(pf.Chain(), pf.StandardNormal(2)).double())
    expected = torch.distributions.Normal(torch.zeros((), dtype=D), 1.0).log_prob(x).sum(-1) + math.log(2)
    assert torch.allclose(alike.log_prob_bound(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["Augmented", "Dequantized", "Absolute", "Sorted"])
def test_shapes_contexts_and_gradients(kind: str) -> None:
    flow, c = bent(3 if kind == "Augmented" else 2, context_features=2), torch.randn(5, 1, 2, dtype=D)
    noise = bent(1 if kind == "Augmented" else 2, context_features=4)
    model = {
        "Augmented": lambda: pf.Augmented(flow, noise, num_samples=3),
        "Dequantized": lambda: pf.Dequantized(flow, 4, noise=noise, num_samples=3),
        "Absolute": lambda: pf.Absolute(flow, num_samples=3),
        "Sorted": lambda: pf.Sorted(flow, num_samples=3),
    }[kind]()
    assert not isinstance(model, pf.Flow | pf.Bijection)
    assert not hasattr(model, "log_prob")
    x = model.sample(7, c)
    assert x.shape == (7, 5, 1, 2)
    assert model(x, c).shape == (7, 5, 1)
    assert model(x[0, 0, 0], c).shape == (5, 1)
    assert model(x[:0], c).shape == (0, 5, 1)
    pf.MaximumLikelihood(model)(x, c).backward()  # type: ignore[arg-type]
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    with pytest.raises(ValueError, match="trailing shape"):
        model(x[..., :1], c)
    with pytest.raises(ValueError, match="num_samples"):
        model.log_prob_bound(x, c, num_samples=0)


def test_training_tightens_the_bound() -> None:
    torch.manual_seed(0)
    x = torch.cat([torch.randn(500, 1) - 3, torch.randn(500, 1) + 3])
    model = pf.Augmented(
        pf.real_nvp(2, layers=2, hidden_features=(16,)), pf.real_nvp(1, 1, layers=1, hidden_features=(16,))
    )
    before = model.log_prob_bound(x, num_samples=50).mean()
    pf.train(pf.MaximumLikelihood(model), x, max_steps=100, progress=False)  # type: ignore[arg-type]
    assert model.log_prob_bound(x, num_samples=50).mean() > before + 1.0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: pf.Augmented(bent(2), bent(2, 1)), r"\(d \+ k,\)"),
        (lambda: pf.Augmented(bent(2), bent(1)), "context_features=1"),
        (lambda: pf.Dequantized(bent(2), 1), "levels >= 2"),
        (lambda: pf.Dequantized(bent(2), 4, noise=bent(1, 2)), "noise of event shape"),
        (lambda: pf.Sorted(bent(2), num_samples=0), "num_samples >= 1"),
    ],
)
def test_bad_use(build: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()  # type: ignore[operator]
