"""Distributions of states against enumeration, and whole rows against a known law."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import pushforward as pf
from pushforward.io import load_module
from pushforward.tabular import Schema
from pushforward.tabular.discrete import AutoregressiveCategorical, OneHot, StateEmbedding

LEVELS = (3, 1, 4, 2)


def perturbed(levels: tuple[int, ...] = LEVELS, context_features: int = 0) -> AutoregressiveCategorical:
    """Away from the start, in float64."""
    torch.manual_seed(0)
    model = AutoregressiveCategorical(levels, context_features=context_features, hidden_features=(16, 12)).double()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.5 * torch.randn_like(p))
    return model


def every(levels: tuple[int, ...]) -> Tensor:
    """All combinations of states."""
    return torch.tensor(list(itertools.product(*map(range, levels))))


def joint(seed: int = 0) -> Tensor:
    """A law of three coordinates that depend on each other, not in pairs alone, `(3, 4, 5)`."""
    logits = 1.5 * torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return logits.flatten().softmax(0).view(3, 4, 5)


def draw(p: Tensor, n: int, seed: int = 0) -> Tensor:
    flat = torch.multinomial(p.flatten(), n, replacement=True, generator=torch.Generator().manual_seed(seed))
    return torch.stack(torch.unravel_index(flat, p.shape), dim=-1)


def divergence(p: Tensor, model: AutoregressiveCategorical) -> float:
    """KL(p | model), by enumeration, in nats."""
    log_q = model.log_prob(every(tuple(p.shape))).detach().double()
    return float((p.flatten() * (p.flatten().log() - log_q)).sum())


@pytest.mark.parametrize("levels", [(1,), (5,), LEVELS, (2,) * 8, (40, 3)], ids=str)
@pytest.mark.parametrize("context_features", [0, 2])
def test_probabilities_sum_to_one(levels: tuple[int, ...], context_features: int) -> None:
    model = perturbed(levels, context_features)
    context = torch.randn(7, 1, 2, dtype=torch.float64) if context_features else None
    total = model.log_prob(every(levels), context).logsumexp(-1)
    assert total.shape == ((7,) if context_features else ())
    torch.testing.assert_close(total, torch.zeros_like(total), rtol=0, atol=1e-12)


def test_draws_have_the_probabilities() -> None:
    model = perturbed()
    torch.manual_seed(0)
    n = 100_000
    draws = model.sample(n)
    assert draws.dtype == torch.int64
    p = model.log_prob(every(LEVELS)).exp().detach().view(LEVELS)
    found = torch.zeros(LEVELS, dtype=torch.float64).index_put(draws.unbind(-1), torch.tensor(1 / n).double(), True)
    error = (p * (1 - p) / n).sqrt()
    assert ((found - p).abs() < 4.5 * error).all()


def test_draws_depend_on_the_context() -> None:
    model = perturbed((2, 3), context_features=1)
    contexts = torch.tensor([[-2.0], [3.0]], dtype=torch.float64)
    torch.manual_seed(0)
    draws = model.sample((50_000,), contexts)
    assert draws.shape == (50_000, 2, 2)
    for k in range(2):
        p = model.log_prob(every((2, 3)), contexts[k]).exp().detach()
        found = torch.bincount(draws[:, k, 0] * 3 + draws[:, k, 1], minlength=6) / 50_000
        assert ((found - p).abs() < 4.5 * (p * (1 - p) / 50_000).sqrt()).all()
    assert model.sample((), contexts).shape == (2, 2)
    assert model.sample(0, contexts).shape == (0, 2, 2)


def test_starts_at_the_smoothed_frequencies() -> None:
    """So that without training the coordinates are independent."""
    c = draw(joint(), 1000)
    c[:, 2] = 4  # one state in every row
    model = AutoregressiveCategorical((3, 4, 5)).double()
    uniform = model.log_prob(every((3, 4, 5)))
    torch.testing.assert_close(uniform, torch.full_like(uniform, -math.log(60)), rtol=0, atol=1e-12)
    model.initialize(c)
    expected = torch.zeros(60, dtype=torch.float64)
    for i, n in enumerate((3, 4, 5)):
        counts = torch.bincount(c[:, i], minlength=n) + 0.5
        expected = expected + (counts / counts.sum()).log()[every((3, 4, 5))[:, i]]
    torch.testing.assert_close(model.log_prob(every((3, 4, 5))), expected, rtol=0, atol=1e-6)
    model.initialize(torch.zeros(10, 3))  # as training does, with its first batch
    torch.testing.assert_close(model.log_prob(every((3, 4, 5))), expected, rtol=0, atol=1e-6)


def test_weights_count_rows() -> None:
    model = AutoregressiveCategorical((2,)).double()
    model.initialize(torch.tensor([[0], [1]]), weights=torch.tensor([2.5, 0.5]))
    assert model.log_prob(torch.tensor([0])).exp().item() == pytest.approx(3 / 4, abs=1e-12)


def test_recovers_a_known_law() -> None:
    p = joint()
    torch.manual_seed(0)
    model = AutoregressiveCategorical((3, 4, 5))
    c = draw(p, 50_000)
    model.initialize(c)
    assert divergence(p, model) > 0.3  # what independence costs
    pf.train(pf.MaximumLikelihood(model), c, max_steps=300, batch_size=512, learning_rate=2e-2, progress=False)
    assert divergence(p, model) < 0.005  # 0.0012; the noise of 59 parameters alone is 0.0006


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_recovers_known_laws(seed: int) -> None:
    p = joint(seed)
    torch.manual_seed(seed)
    model = AutoregressiveCategorical((3, 4, 5))
    c = draw(p, 50_000, seed)
    pf.train(pf.MaximumLikelihood(model), c, max_steps=1000, batch_size=512, learning_rate=1e-2, progress=False)
    assert divergence(p, model) < 0.005


def test_states_that_do_not_exist() -> None:
    model = perturbed()
    c = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 2], [-1, 0, 0, 0], [3, 1, 4, 2]])
    log_prob = model.log_prob(c)
    assert log_prob.isfinite().tolist() == [True, False, False, False]
    assert log_prob[1:].tolist() == [-math.inf] * 3
    log_prob[0].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("batch", [(), (7,), (5, 7), (0,)])
def test_batches(batch: tuple[int, ...]) -> None:
    model = perturbed()
    c = torch.zeros(*batch, 4, dtype=torch.int64)
    assert model.log_prob(c).shape == batch
    assert model.log_prob(c).dtype == torch.float64
    assert torch.equal(model.log_prob(c.double()), model.log_prob(c))
    assert model.sample(batch).shape == (*batch, 4)


def test_refused() -> None:
    for levels in ((), (3, 0)):
        with pytest.raises(ValueError, match="expected coordinates of one state or more, got levels="):
            AutoregressiveCategorical(levels)
    with pytest.raises(ValueError, match=r"expected c with trailing shape \(4,\), got \(7, 3\)"):
        perturbed().log_prob(torch.zeros(7, 3))
    with pytest.raises(ValueError, match=r"expected a context with trailing shape \(2,\), got none"):
        perturbed(context_features=2).sample(3)
    with pytest.raises(ValueError, match=r"expected a context with trailing shape \(0,\), got \(3, 2\)"):
        perturbed().log_prob(torch.zeros(3, 4), torch.zeros(3, 2))


def test_saved_and_loaded(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model = perturbed(context_features=2)
    pf.save(model, path, info={"a": 1})
    again = load_module(path)
    assert isinstance(again, AutoregressiveCategorical)
    context = torch.randn(2, dtype=torch.float64)
    assert torch.equal(again.log_prob(every(LEVELS), context), model.log_prob(every(LEVELS), context))
    assert pf.load_info(path) == {"a": 1}
    with pytest.raises(ValueError, match="expected a Flow, got AutoregressiveCategorical"):
        pf.load(path)


def test_embedding_is_saved_with_a_flow(tmp_path: Path) -> None:
    torch.manual_seed(0)
    embedding = StateEmbedding((2, 50, 3))
    assert embedding.features == 2 + 3 + 16
    flow = pf.maf(2, context_features=embedding.features, layers=1, hidden_features=(8,))
    flow = pf.Flow(flow.bijection, flow.base, embedding=embedding).double()
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.1 * torch.randn_like(p))
    x, c = (
        torch.randn(5, 2, dtype=torch.float64),
        torch.tensor([[0, 49, 2], [1, 0, 0], [1, 7, 1], [0, 1, 2], [0, 0, 0]]),
    )
    assert len({flow.log_prob(x[0], row).item() for row in c}) == 5
    pf.save(flow, tmp_path / "flow.safetensors")
    assert torch.equal(pf.load(tmp_path / "flow.safetensors").log_prob(x, c), flow.log_prob(x, c))


def test_one_hot() -> None:
    c = every(LEVELS)
    expected = torch.cat([torch.nn.functional.one_hot(c[:, i], n) for i, n in enumerate(LEVELS)], dim=-1)
    assert torch.equal(OneHot(LEVELS)(c), expected.float())
    assert OneHot(LEVELS).double()(c).dtype == torch.float64
    assert OneHot(())(torch.zeros(5, 0, dtype=torch.int64)).shape == (5, 0)
    assert torch.equal(StateEmbedding(LEVELS)(c), expected.float())


@pytest.mark.slow
def test_compiles_as_one_graph() -> None:
    model = perturbed()
    compiled = torch.compile(model, fullgraph=True)
    torch.testing.assert_close(compiled(every(LEVELS)), model(every(LEVELS)), rtol=0, atol=1e-12)


def test_rows_of_a_table_whose_law_is_known() -> None:
    """A colour, a size that depends on it and may be missing, a count: the bound comes near the truth, from below."""
    rng = np.random.default_rng(0)
    n = 20_000
    red = rng.random(n) < 0.3
    size = np.exp(np.where(red, 1.0, -1.0) + 0.5 * rng.normal(size=n))
    missing = rng.random(n) < np.where(red, 0.4, 0.1)
    count = rng.poisson(np.where(red, 40.0, 20.0))
    table = {"colour": np.where(red, "red", "blue").tolist(), "size": np.where(missing, np.nan, size), "count": count}

    log_normal = -0.5 * ((np.log(size) - np.where(red, 1.0, -1.0)) / 0.5) ** 2 - np.log(size * 0.5 * 2.5066282746)
    log_missing = np.log(np.where(red, np.where(missing, 0.4, 0.6), np.where(missing, 0.1, 0.9)))
    rate = np.where(red, 40.0, 20.0)
    log_count = count * np.log(rate) - rate - torch.lgamma(torch.tensor(count + 1.0)).numpy()
    truth = np.log(np.where(red, 0.3, 0.7)) + log_missing + np.where(missing, 0.0, log_normal) + log_count

    schema = Schema.infer(table, kinds={"size": "positive"})
    assert [str(kind) for kind in schema.kinds.values()] == ["categorical: blue, red", "positive", "integer, 0 or more"]
    torch.manual_seed(0)
    states = AutoregressiveCategorical(schema.levels)
    embedding = StateEmbedding(schema.levels)
    layer = pf.Elementwise(pf.Affine(), schema.features, context_features=embedding.features, hidden_features=(16,))
    flow = pf.Flow(layer, pf.StandardNormal(schema.features), embedding=embedding)
    c, u, log_jacobian, _ = schema.encode(table, torch.Generator().manual_seed(0))
    options = {"max_steps": 300, "batch_size": 512, "learning_rate": 2e-2, "progress": False}
    pf.train(pf.MaximumLikelihood(states), c, **options)
    pf.train(pf.MaximumLikelihood(flow), (u.float(), c), **options)

    with torch.no_grad():
        bound = states.log_prob(c).double() + flow.double().log_prob(u, c) + log_jacobian
    gap = truth.mean() - bound.mean().item()
    assert 0 < gap < 0.03  # 0.015
