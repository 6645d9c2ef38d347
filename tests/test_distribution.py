"""Flows inside torch.distributions."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    Normal,
    TransformedDistribution,
    transforms,
)

import pushforward as pf


def flow(context_features: int = 0) -> pf.Flow:
    torch.manual_seed(0)
    made = pf.maf(2, context_features, layers=2, hidden_features=(8,)).double()
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return made


C = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def members(conditional: bool) -> tuple[pf.Flow, pf.FlowDistribution, Tensor | None]:
    """A flow and its distribution of batch shape (4,)."""
    f = flow(3 if conditional else 0)
    c = C if conditional else None
    return f, f.distribution(c) if conditional else f.distribution().expand((4,)), c


both = pytest.mark.parametrize("conditional", [False, True])


@both
def test_shapes_and_values(conditional: bool) -> None:
    f, d, c = members(conditional)
    assert (d.batch_shape, d.event_shape) == ((4,), (2,))
    x = d.sample((5, 7))
    assert x.shape == (5, 7, 4, 2)
    assert torch.equal(d.log_prob(x), f.log_prob(x, c))
    assert d.log_prob(x[0, 0, 0]).shape == (4,)
    assert d.rsample((3,)).requires_grad
    assert not d.sample((3,)).requires_grad
    assert d.support.check(x).all()


@both
def test_members_are_independent(conditional: bool) -> None:
    _, d, _ = members(conditional)
    x = d.sample()
    assert len({tuple(row) for row in x.tolist()}) == 4


@both
def test_expand(conditional: bool) -> None:
    f, d, c = members(conditional)
    e = d.expand((6, 4))
    x = e.sample((5, 7))
    assert x.shape == (5, 7, 6, 4, 2)
    assert len(x.reshape(-1, 2).unique(dim=0)) == 5 * 7 * 6 * 4
    assert torch.allclose(e.log_prob(x), f.log_prob(x, c))


@both
def test_independent(conditional: bool) -> None:
    f, d, c = members(conditional)
    i = Independent(d, 1)
    x = i.sample((5, 7))
    assert (i.batch_shape, i.event_shape, x.shape) == ((), (4, 2), (5, 7, 4, 2))
    assert torch.allclose(i.log_prob(x), f.log_prob(x, c).sum(-1))


@both
def test_mixture(conditional: bool) -> None:
    f, d, c = members(conditional)
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    m = MixtureSameFamily(Categorical(weights), d)
    x = m.sample((5, 7))
    assert x.shape == (5, 7, 2)
    expected = (weights.log() + f.log_prob(x.unsqueeze(-2), c)).logsumexp(-1)
    assert torch.allclose(m.log_prob(x), expected)


@both
def test_transformed(conditional: bool) -> None:
    f, d, c = members(conditional)
    t = TransformedDistribution(d, [transforms.ExpTransform()])
    x = t.sample((5, 7))
    assert x.shape == (5, 7, 4, 2)
    assert torch.allclose(t.log_prob(x), f.log_prob(x.log(), c) - x.log().sum(-1))


@both
@pytest.mark.parametrize("cache_size", [0, 1])
def test_bijection_as_a_transform(conditional: bool, cache_size: int) -> None:
    f = flow(3 if conditional else 0)
    c = C if conditional else None
    base = Independent(Normal(torch.zeros(4, 2, dtype=torch.float64), 1.0), 1)
    transform = pf.BijectionTransform(f.bijection, c, cache_size=cache_size)
    d = TransformedDistribution(base, [transform])
    x = d.rsample((5, 7))
    assert (d.batch_shape, d.event_shape, x.shape) == ((4,), (2,), (5, 7, 4, 2))
    assert torch.allclose(d.log_prob(x), f.log_prob(x, c))
    z = torch.randn(4, 2, dtype=torch.float64)
    assert torch.allclose(transform.inv(transform(z)), z)
    assert (transform.inv(transform(z)) is z) == (cache_size == 1)
    assert torch.allclose(transform.log_abs_det_jacobian(z, transform(z)), f.bijection(z, c)[1])
    assert torch.allclose(transform.inv.log_abs_det_jacobian(transform(z), z), -f.bijection(z, c)[1])


def outside_and_inside() -> tuple[Tensor, Tensor]:
    rows = [[0.2, 0.7], [1.5, 0.5], [0.5, -0.1], [0.9, 0.1], [math.nan, 0.5], [math.inf, 0.5], [-math.inf, 2.0]]
    inside = torch.tensor([True, False, False, True, False, False, False])
    return torch.tensor(rows, dtype=torch.float64), inside


class TestOutsideTheSupport:
    def flows(self) -> list[pf.Flow]:
        sigmoid = pf.FromTorch(transforms.SigmoidTransform())
        box = pf.Uniform([0.0, 0.0], [1.0, 1.0])
        return [
            pf.Flow(pf.Chain(pf.LU(2), pf.Planar(2), sigmoid), pf.StandardNormal(2)).double(),
            pf.Flow(pf.Chain(pf.LU(2), sigmoid), pf.GaussianMixture(2, 2)).double(),
            pf.Flow(pf.Elementwise(pf.RationalQuadratic(bound=1.0, tails="circular"), 2), box).double(),
            pf.Flow(pf.Chain(), box).double(),
        ]

    def test_log_prob_is_minus_infinity_and_gradients_are_those_of_the_rows_inside(self) -> None:
        torch.manual_seed(0)
        x, inside = outside_and_inside()
        for f in self.flows():
            log_prob = f.log_prob(x)
            assert (log_prob[~inside] == -math.inf).all()
            assert log_prob[inside].isfinite().all()
            assert torch.equal(f.distribution().log_prob(x), log_prob)
            parameters = list(f.parameters())
            if not parameters:
                continue
            whole = torch.autograd.grad(log_prob[inside].sum(), parameters)
            alone = torch.autograd.grad(f.log_prob(x[inside]).sum(), parameters)
            for a, b in zip(whole, alone, strict=True):
                assert a.isfinite().all()
                assert torch.allclose(a, b)

    def test_as_a_transform(self) -> None:
        x, inside = outside_and_inside()
        base = Independent(Normal(torch.zeros(2, dtype=torch.float64), 1.0), 1)
        chain = pf.Chain(pf.LU(2), pf.FromTorch(transforms.SigmoidTransform())).double()
        d = TransformedDistribution(base, [pf.BijectionTransform(chain)], validate_args=False)
        assert torch.allclose(d.log_prob(x)[inside], pf.Flow(chain, pf.StandardNormal(2).double()).log_prob(x)[inside])
        assert (d.log_prob(x)[~inside] == -math.inf).all()
