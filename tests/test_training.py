"""The training loop against what is known: entropies, repeated runs, interrupted runs and broken ones."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import pushforward as pf
from pushforward._native import without_kernels
from pushforward.objectives import MaximumLikelihood, Objective, ReverseKL
from pushforward.training import FlatParameters, TrainResult, cosine, exponential, gradient_function

X = 3 + 2 * torch.randn(400, 2, generator=torch.Generator().manual_seed(0))


def small_flow(seed: int = 0, context_features: int = 0) -> pf.Flow:
    torch.manual_seed(seed)
    return pf.maf(2, context_features, layers=1, hidden_features=(8,))


def state(flow: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in flow.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def log_density(x: Tensor) -> Tensor:
    return -0.5 * ((x - 1) / 0.5).square().sum(-1)


class Interruption(Exception):
    pass


class BreaksAt(Objective):
    """Maximum likelihood that turns into `value` at the given step."""

    def __init__(self, flow: pf.Flow, step: int, value: float) -> None:
        super().__init__(flow)
        self.step = step
        self.value = value
        self.calls = 0
        self.before: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        if self.training:
            self.calls += 1
            if self.calls == self.step:
                self.before = state(self.flow)
        broken = self.training and self.calls >= self.step
        return -self.flow(x).mean() * (self.value if broken else 1.0)


class TestFlatParameters:
    @pytest.mark.parametrize("kind", ["kernels", "formulas", "compiled", "dtypes", "idle"])
    def test_adam_goes_the_same_way(self, kind: str) -> None:
        """Adam on the whole goes where Adam on the parameters goes."""

        def trained(is_flat: bool) -> list[Tensor]:
            loss = self.loss(kind)
            parameters = list(loss.parameters())
            flat = FlatParameters(parameters) if is_flat else None
            gradient = gradient_function(loss, flat)
            optimizer = torch.optim.Adam(parameters if flat is None else flat.wholes, lr=0.01, fused=True)
            with without_kernels() if kind == "formulas" else nullcontext():
                for _ in range(20):
                    gradient(X[:50].double())
                    optimizer.step()
            return parameters

        start, plain, flat = self.loss(kind).parameters(), trained(False), trained(True)
        torch.testing.assert_close(flat, plain, rtol=1e-9, atol=1e-9)
        moved = [not torch.equal(p, before) for p, before in zip(flat, start, strict=True)]
        assert sum(moved) == len(moved) - (kind == "idle")

    @staticmethod
    def loss(kind: str) -> Objective:
        """Of a flow whose parameters are float64, but for one."""
        flow = small_flow().double()
        if kind == "compiled":
            with without_kernels():
                flow.compile(backend="eager")
        if kind in ("dtypes", "idle"):
            flow.bijection.register_parameter("odd", torch.nn.Parameter(torch.ones(3)))
        loss = MaximumLikelihood(flow)
        if kind == "dtypes":
            loss.register_forward_hook(lambda module, args, value: value + flow.bijection.odd.square().sum())
        return loss

    def test_memory(self) -> None:
        """Every part starts at a multiple of 64 bytes of one piece; afterwards it has its own again."""
        flow = small_flow()
        before, parameters = state(flow), list(flow.parameters())
        with FlatParameters(parameters) as flat:
            (whole,) = flat.wholes
            places = [p.data_ptr() - whole.data_ptr() for p in parameters]
            assert all(place % 64 == 0 and 0 <= place < 4 * whole.numel() for place in places)
            assert whole.numel() - sum(p.numel() for p in parameters) < 16 * len(parameters)
            assert same(state(flow), before)
        assert all(p.untyped_storage().nbytes() == 4 * p.numel() for p in parameters)
        assert same(state(flow), before)

    def test_parameters_that_are_no_longer_parts(self) -> None:
        flow = small_flow()
        loss = MaximumLikelihood(flow)
        gradient = gradient_function(loss, FlatParameters(flow.parameters()))
        gradient(X)
        flow.to(torch.float64)
        with pytest.raises(RuntimeError, match="keep their memory"):
            gradient(X.double())
        gradient = gradient_function(loss, FlatParameters(flow.parameters()))
        next(flow.parameters()).requires_grad_(False)
        with pytest.raises(RuntimeError, match="frozen"):
            gradient(X.double())

    def test_a_callback_that_freezes_needs_another_optimizer(self) -> None:
        flow = small_flow()
        first, seen = next(flow.parameters()), []

        def freeze(step: int) -> None:
            first.requires_grad_(False)
            seen.append(first.clone())

        with pytest.raises(RuntimeError, match="`optimizer` of `train`"):
            pf.train(MaximumLikelihood(flow), X, max_steps=3, callback=freeze)
        first.requires_grad_()
        seen.clear()
        pf.train(MaximumLikelihood(flow), X, max_steps=3, callback=freeze, optimizer=torch.optim.Adam)
        assert len(seen) == 3 and all(torch.equal(first, value) for value in seen)

    def test_graphs_from_before_a_step_are_refused(self) -> None:
        flow = small_flow()
        flat = FlatParameters(flow.parameters())
        gradient = gradient_function(MaximumLikelihood(flow), flat)
        outdated = flow.log_prob(X).mean()
        gradient(X)
        torch.optim.Adam(flat.wholes, fused=True).step()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            outdated.backward()

    def test_a_run_leaves_parameters_as_they_were(self) -> None:
        flow = small_flow()
        parameters = list(flow.parameters())
        with pytest.raises(Interruption):
            pf.train(MaximumLikelihood(flow), X, max_steps=3, callback=self.interrupt)
        pf.train(MaximumLikelihood(flow), X, max_steps=3)
        assert all(a is b for a, b in zip(flow.parameters(), parameters, strict=True))
        assert all(p.untyped_storage().nbytes() == 4 * p.numel() for p in parameters)

    @staticmethod
    def interrupt(step: int) -> bool:
        raise Interruption


class TestFit:
    def test_reaches_the_entropy_of_a_gaussian(self) -> None:
        torch.manual_seed(0)
        matrix = torch.tensor([[2.0, 0.0], [1.5, 0.5]])
        entropy = math.log(2 * math.pi * math.e) + math.log(2.0 * 0.5)
        x = torch.randn(4000, 2) @ matrix.T + torch.tensor([5.0, -3.0])
        layers = small_flow().bijection.layers
        flow = pf.Flow(pf.Chain(*layers, pf.ActNorm(2)), pf.StandardNormal(2))
        pf.train(MaximumLikelihood(flow), x, max_steps=300, learning_rate=0.03, ema=0.99)
        fresh = torch.randn(20000, 2) @ matrix.T + torch.tensor([5.0, -3.0])
        # The mean of 20000 has a standard error of 0.007; four parameters fitted to 4000 rows cost 0.001.
        assert abs(-flow.log_prob(fresh).mean().item() - entropy) < 0.03

    def test_reverse_kl_finds_log_evidence(self) -> None:
        flow = small_flow()
        result = pf.train(ReverseKL(flow, log_density, 64, gradient="path"), max_steps=300, learning_rate=0.03)
        log_z = math.log(2 * math.pi * 0.5**2)
        assert abs(result.losses[-1] + log_z) < 0.01  # no variance is left at the optimum

    @pytest.mark.parametrize(
        "optimizer",
        [
            lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
            lambda p: torch.optim.RMSprop(p, lr=0.02),
            lambda p: torch.optim.AdamW(p, lr=0.05),
            lambda p: torch.optim.LBFGS(p, lr=0.5, max_iter=2),
        ],
        ids=["SGD", "RMSprop", "AdamW", "LBFGS"],
    )
    @pytest.mark.parametrize("clip", [5.0, None])
    def test_any_optimizer(self, optimizer: Callable[[list[Tensor]], Any], clip: float | None) -> None:
        flow = small_flow()
        result = pf.train(
            MaximumLikelihood(flow),
            X,
            max_steps=60,
            batch_size=400,
            optimizer=optimizer,
            schedule=exponential(0.98),
            clip=clip,
        )
        assert result.stopped == "all steps done"
        loss = -flow.log_prob(X).mean().item()
        assert loss < result.losses[0] - 1.5 or loss < 4.4  # from 9.4; the entropy is 4.22

    def test_schedules_set_the_rate_of_every_step(self) -> None:
        for schedule, expected in (
            (None, [1.0] * 5),
            (exponential(0.5), [1.0, 0.5, 0.25, 0.125, 0.0625]),
            (cosine(warmup=0.4, final=0.1), [1 / 3, 2 / 3, 1.0, 0.775, 0.325]),
        ):
            made: list[torch.optim.SGD] = []
            rates: list[float] = []

            def make(p: list[Tensor], made: list[torch.optim.SGD] = made) -> torch.optim.SGD:
                made.append(torch.optim.SGD(p, lr=0.01))
                return made[0]

            def record(_: int, made: list[torch.optim.SGD] = made, rates: list[float] = rates) -> None:
                rates.append(made[0].param_groups[0]["lr"] / 0.01)

            pf.train(
                MaximumLikelihood(small_flow()), X, max_steps=5, optimizer=make, schedule=schedule, callback=record
            )
            assert rates == pytest.approx(expected)

    def test_a_gradient_of_zero_is_no_failure(self) -> None:
        """At the optimum from the start, the path gradient is exactly zero."""
        flow = small_flow()
        result = pf.train(ReverseKL(flow, lambda x: -0.5 * x.square().sum(-1), gradient="path"), max_steps=60)
        assert result.stopped == "all steps done"

    def test_parameters_of_the_target_are_not_trained(self) -> None:
        target = pf.Flow(pf.Chain(), pf.DiagonalNormal(2))
        loss = ReverseKL(small_flow(), target)
        assert {id(p) for p in loss.parameters()} == {id(p) for p in loss.flow.parameters()}
        pf.train(loss, max_steps=5, learning_rate=0.1)
        assert torch.equal(target.base.params.constants, torch.zeros(4))

    def test_act_norm_starts_from_the_first_batch(self) -> None:
        flow = pf.Flow(pf.ActNorm(2), pf.StandardNormal(2))
        pf.train(MaximumLikelihood(flow), X, max_steps=1, batch_size=400, learning_rate=0.0)
        z = flow.to_base(X)
        assert torch.allclose(z.mean(0), torch.zeros(2), atol=1e-5)
        assert torch.allclose(z.std(0, correction=0), torch.ones(2), atol=1e-5)


class TestSeeds:
    def test_the_same_seed_gives_the_same_bits_and_leaves_the_global_state(self) -> None:
        def run(seed: int) -> tuple[dict[str, Tensor], list[float]]:
            flow = small_flow()
            torch.manual_seed(99)
            before = torch.get_rng_state()
            result = pf.train(MaximumLikelihood(flow), X, max_steps=20, batch_size=32, validation=0.2, seed=seed)
            assert torch.equal(torch.get_rng_state(), before)
            return state(flow), result.losses

        (first, losses), (again, losses_again), (other, _) = run(1), run(1), run(2)
        assert same(first, again)
        assert losses == losses_again
        assert not same(first, other)

    def test_draws_of_the_loss_depend_on_the_seed_alone(self) -> None:
        losses = []
        for seed, outside in ((1, 5), (1, 6), (2, 5)):
            flow = small_flow()
            torch.manual_seed(outside)
            losses.append(pf.train(ReverseKL(flow, log_density), max_steps=5, seed=seed).losses)
        assert losses[0] == losses[1] != losses[2]


def likelihood(flow: pf.Flow, **kwargs: Any) -> TrainResult:
    return pf.train(
        MaximumLikelihood(flow), X, batch_size=64, validation=0.25, validate_every=7, ema=0.9, clip=1.0, **kwargs
    )


def reverse_kl(flow: pf.Flow, **kwargs: Any) -> TrainResult:
    return pf.train(ReverseKL(flow, log_density, 16), **kwargs)


def drawn(flow: pf.Flow, **kwargs: Any) -> TrainResult:
    return pf.train(MaximumLikelihood(flow), lambda n: (torch.randn(n, 2),), batch_size=16, **kwargs)


def lbfgs(flow: pf.Flow, **kwargs: Any) -> TrainResult:
    return pf.train(MaximumLikelihood(flow), X, optimizer=lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=2), **kwargs)


@pytest.mark.parametrize("method", [likelihood, reverse_kl, drawn, lbfgs], ids=lambda f: f.__name__)
class TestResume:
    @pytest.mark.parametrize("interruption", [Interruption, KeyboardInterrupt])
    @pytest.mark.parametrize("at", [58])
    def test_ends_with_the_same_bits(
        self, method: Callable[..., TrainResult], interruption: type[BaseException], at: int, tmp_path: Path
    ) -> None:
        whole = small_flow()
        expected = method(whole, max_steps=70)

        def interrupt(step: int) -> None:
            if step == at:
                raise interruption

        options = {"max_steps": 70, "checkpoint": tmp_path / "run.pt", "checkpoint_every": 9}
        flow = small_flow()
        if interruption is KeyboardInterrupt:
            assert method(flow, callback=interrupt, **options).stopped == "interrupted"
        else:
            with pytest.raises(Interruption):
                method(flow, callback=interrupt, **options)

        flow = small_flow(seed=5)  # another start: all comes from the file
        first_steps: list[int] = []
        result = method(flow, callback=first_steps.append, **options)
        assert first_steps[0] == at // 9 * 9 + 1
        again = small_flow(seed=6)
        completed = method(again, **options)
        for found, parameters in ((result, state(flow)), (completed, state(again))):
            assert same(parameters, state(whole))
            assert found.losses == expected.losses
            assert found.validation == expected.validation
            assert (found.best_step, found.stopped) == (expected.best_step, expected.stopped)


class TestCheckpoints:
    def run(self, path: Path, **changes: Any) -> TrainResult:
        options: dict[str, Any] = {"max_steps": 10, "checkpoint": path, "checkpoint_every": 5} | changes
        objective = options.pop("objective", None) or MaximumLikelihood(small_flow())
        return pf.train(objective, options.pop("data", X), **options)

    @pytest.mark.parametrize(
        ("changes", "names"),
        [
            ({"max_steps": 11}, "max_steps: 10 then, 11 now"),
            ({"seed": 1}, "seed: 0 then, 1 now"),
            ({"batch_size": 8}, "batch_size"),
            ({"learning_rate": 0.1}, "learning_rate"),
            ({"schedule": None}, "schedule"),
            ({"schedule": exponential(0.9)}, "schedule"),
            ({"optimizer": lambda p: torch.optim.SGD(p, lr=0.1)}, "optimizer: Adam then, SGD now"),
            ({"validation": 0.1}, "validation"),
            ({"data": X[:300]}, "data"),
            ({"data": X + 1e-3}, "data"),
            ({"objective": MaximumLikelihood(pf.maf(2, layers=2))}, "parameters"),
        ],
    )
    def test_of_another_call(self, changes: dict[str, Any], names: str, tmp_path: Path) -> None:
        path = tmp_path / "run.pt"
        self.run(path)
        with pytest.raises(ValueError, match=f"of another call.*{names}"):
            self.run(path, **changes)

    def test_damaged(self, tmp_path: Path) -> None:
        path = tmp_path / "run.pt"
        self.run(path)
        whole = path.read_bytes()
        for content in (b"", b"nonsense", whole[: len(whole) // 2]):
            path.write_bytes(content)
            with pytest.raises(ValueError, match=r"run\.pt"):
                self.run(path)
        torch.save({"weights": X}, path)
        with pytest.raises(ValueError, match=r"run\.pt is not a checkpoint"):
            self.run(path)

    def test_without_a_folder_fails_before_training(self, tmp_path: Path) -> None:
        steps: list[int] = []
        with pytest.raises(FileNotFoundError, match="nowhere"):
            self.run(tmp_path / "nowhere" / "run.pt", callback=steps.append)
        assert steps == []

    def test_leaves_no_other_file(self, tmp_path: Path) -> None:
        self.run(tmp_path / "run.pt")
        assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]


class TestFailure:
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("step", [1, 55, 119])
    def test_a_loss_that_is_not_finite(self, value: float, step: int) -> None:
        objective = BreaksAt(small_flow(), step, value)
        result = pf.train(objective, X, max_steps=120, learning_rate=0.01)
        kept = (step - 1) // 50 * 50
        assert result.stopped == f"non-finite loss at step {step}; kept the state after step {kept}"
        assert result.best_step == kept
        assert all(math.isfinite(loss) for loss in result.losses[: step - 1])
        assert not math.isfinite(result.losses[step - 1])
        flow = small_flow()
        if kept:
            pf.train(MaximumLikelihood(flow), X, max_steps=120, learning_rate=0.01, callback=_stop_at(kept))
        assert same(state(objective.flow), state(flow))

    def test_an_error_of_floating_point_ends_the_run_like_a_loss_that_is_not_finite(self) -> None:
        class Fails(BreaksAt):
            def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
                if self.calls + 1 == self.step:
                    raise FloatingPointError("step too small")
                return super().forward(x)

        result = pf.train(Fails(small_flow(), 70, math.nan), X, max_steps=120, learning_rate=0.01)
        assert result.stopped == "no loss at step 70 (step too small); kept the state after step 50"
        assert (result.steps, result.best_step) == (69, 50)
        with pytest.raises(FloatingPointError, match="step too small"):
            pf.train(Fails(small_flow(), 1, math.nan), X)

    def test_with_validation_the_best_state_is_kept(self) -> None:
        objective = BreaksAt(small_flow(), 35, math.nan)
        result = pf.train(objective, X, max_steps=120, learning_rate=0.01, validation=X, validate_every=10)
        assert result.best_step == 30
        assert result.stopped == "non-finite loss at step 35; kept the state after step 30"
        assert -objective.flow.log_prob(X).mean().item() == pytest.approx(result.best_validation, rel=1e-6)

    def test_before_the_first_validation(self) -> None:
        objective = BreaksAt(small_flow(), 5, math.nan)
        result = pf.train(objective, X, max_steps=120, validation=X, validate_every=10)
        assert result.best_step == 0
        assert same(state(objective.flow), state(small_flow()))

    def test_interrupted_keeps_the_best_so_far(self) -> None:
        flow = small_flow()
        result = pf.train(
            MaximumLikelihood(flow),
            X,
            max_steps=100,
            learning_rate=0.01,
            validation=X,
            validate_every=10,
            callback=_stop_at(45),
        )
        assert (result.stopped, result.steps, result.best_step) == ("interrupted", 45, 40)
        assert -flow.log_prob(X).mean().item() == pytest.approx(result.best_validation, rel=1e-6)

    def test_interrupted_before_the_first_validation(self) -> None:
        flow = small_flow()
        result = pf.train(
            MaximumLikelihood(flow), X, max_steps=100, validation=X, validate_every=9, callback=_stop_at(3)
        )
        assert (result.steps, result.best_step) == (3, 3)
        assert math.isnan(result.best_validation)
        assert not same(state(flow), state(small_flow()))


def _stop_at(step: int) -> Callable[[int], None]:
    def callback(k: int) -> None:
        if k == step:
            raise KeyboardInterrupt

    return callback


class TestStopping:
    @pytest.mark.parametrize("ema", [None, 0.5])
    def test_patience_restores_the_best_state(self, ema: float | None) -> None:
        torch.manual_seed(3)
        flow = pf.nsf(2, layers=2, hidden_features=(32,))
        x, held = torch.randn(40, 2), torch.randn(500, 2)
        result = pf.train(
            MaximumLikelihood(flow),
            x,
            max_steps=400,
            learning_rate=0.01,
            validation=held,
            validate_every=5,
            patience=4,
            ema=ema,
        )
        assert result.stopped == "no improvement in 4 validations"
        assert result.steps == result.best_step + 20
        assert result.best_validation == min(value for _, value in result.validation)
        assert -flow.log_prob(held).mean().item() == pytest.approx(result.best_validation, rel=1e-6)

    def test_a_first_validation_that_is_not_finite_is_not_the_best(self) -> None:
        class Late(MaximumLikelihood):
            calls = 0

            def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
                self.calls += not self.training
                return super().forward(x) * (math.nan if not self.training and self.calls == 1 else 1.0)

        result = pf.train(Late(small_flow()), X, max_steps=20, learning_rate=0.01, validation=X, validate_every=10)
        assert math.isnan(result.validation[0][1])
        assert result.best_step == 20
        assert result.best_validation == result.validation[1][1]

    def test_out_of_time(self) -> None:
        result = pf.train(MaximumLikelihood(small_flow()), X, max_steps=10**6, max_seconds=0.3)
        assert result.stopped == "out of time after 0.3 s"
        assert 0 < result.steps < 10**6
        assert 0.3 < result.seconds < 10

    def test_validation_rows_are_held_out(self) -> None:
        seen: list[Tensor] = []

        class Watching(MaximumLikelihood):
            def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
                if self.training:
                    seen.append(x)
                else:
                    held.append(x)
                return super().forward(x)

        held: list[Tensor] = []
        pf.train(Watching(small_flow()), X, max_steps=20, batch_size=50, validation=0.25, validate_every=20)
        trained = {tuple(row) for batch in seen for row in batch.tolist()}
        assert len(held[0]) == 100
        assert len(trained) == 300  # every row, in epochs without replacement
        assert trained.isdisjoint({tuple(row) for row in held[0].tolist()})


class TestData:
    def bad(self, data: Any, match: str, **options: Any) -> None:
        with pytest.raises(ValueError, match=match):
            pf.train(MaximumLikelihood(small_flow(context_features=1)), data, max_steps=1, **options)

    def test_errors(self) -> None:
        x, c = X.clone(), torch.zeros(400, 1)
        self.bad((x, c[:-1]), "equal length in data, got 0: 400, 1: 399")
        self.bad({"x": x, "context": c[:-1]}, "x: 400, context: 399")
        self.bad((x[:0], c[:0]), "at least one row in data, got none")
        self.bad((), "a tensor with rows")
        self.bad((x.double(), c), "dtype torch.float32, got torch.float64 in tensor 0")
        x[17, 1] = math.nan
        self.bad((x, c), r"finite data, got \[.*nan\] in row 17 of tensor 0")
        x[17, 1] = math.inf
        self.bad({"context": c, "x": x}, "in row 17 of tensor x")
        self.bad((X, c), "finite validation.* in row 17", validation=(x, c))
        for fraction in (0.0, 1.0, -0.1, 2, 0):
            self.bad((X, c), "fraction between 0 and 1", validation=fraction)
        self.bad((X[:1], c[:1]), "rows left to train on", validation=0.5)
        for option in ("max_steps", "batch_size", "checkpoint_every", "validate_every"):
            with pytest.raises(ValueError, match="at least 1"):
                pf.train(MaximumLikelihood(small_flow()), X, **{option: 0})

    def test_patience_needs_validation(self) -> None:
        with pytest.raises(ValueError, match="patience needs validation"):
            pf.train(ReverseKL(small_flow(), log_density), patience=3)
        with pytest.raises(ValueError, match="validation fraction needs data given as rows"):
            pf.train(MaximumLikelihood(small_flow()), lambda n: torch.randn(n, 2), validation=0.1)

    def test_nothing_to_train(self) -> None:
        with pytest.raises(ValueError, match="none that requires a gradient"):
            pf.train(MaximumLikelihood(small_flow().requires_grad_(False)), X)

    def test_context_by_tuple_and_by_dict(self) -> None:
        c = torch.randn(400, 1, generator=torch.Generator().manual_seed(1))
        x = X + 3 * c
        found = []
        for data in ((x, c), {"context": c, "x": x}, [x, c]):
            flow = small_flow(context_features=1)
            pf.train(MaximumLikelihood(flow), data, max_steps=200, learning_rate=0.03)
            found.append(state(flow))
        assert same(found[0], found[1])
        assert same(found[0], found[2])
        assert -flow.log_prob(x, c).mean() < 5.0  # entropy 4.22; without the context at least 5.3

    def test_weight_two_is_the_row_twice(self) -> None:
        weights = 1.0 + (torch.arange(400) % 2)
        twice = X.repeat_interleave(weights.long(), dim=0)
        found = []
        for data in ({"x": X, "weights": weights / weights.mean()}, {"x": twice}):
            flow = small_flow().double()
            options = {"max_steps": 20, "batch_size": 1000, "learning_rate": 0.01}
            result = pf.train(MaximumLikelihood(flow), {k: v.double() for k, v in data.items()}, **options)
            found.append((flow.log_prob(X.double()).detach(), torch.tensor(result.losses)))
        assert torch.allclose(found[0][0], found[1][0], atol=1e-5)  # the weights are float32 numbers
        assert torch.allclose(found[0][1], found[1][1], atol=1e-6)


class TestProgress:
    def test_bar_on_request(self, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FORCE_COLOR", "1")  # for rich: take the captured stream for a terminal
        pf.train(MaximumLikelihood(small_flow()), X, max_steps=5, progress=True, validation=0.1, validate_every=1)
        out, err = capfd.readouterr()
        assert out == ""
        assert "training" in err

    def test_silent_where_there_is_no_terminal(self, capfd: pytest.CaptureFixture[str]) -> None:
        result = pf.train(MaximumLikelihood(small_flow()), X, max_steps=5)
        assert capfd.readouterr() == ("", "")
        assert str(result).startswith("5 steps in ")
        assert "stopped: all steps done" in str(result)


def test_steps_do_not_wait_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    for name in ("item", "tolist", "__bool__", "__float__", "__int__", "__index__", "cpu", "numpy", "nonzero"):
        original = getattr(Tensor, name)

        def look(self: Tensor, *args: Any, name: str = name, original: Any = original, **kwargs: Any) -> Any:
            looks.append(name)
            return original(self, *args, **kwargs)

        monkeypatch.setattr(Tensor, name, look)
    with without_kernels():  # with them, on the CPU, a look is free
        result = pf.train(MaximumLikelihood(small_flow()), X, max_steps=100, batch_size=400, ema=0.9)
    assert result.steps == 100
    assert 0 < len(looks) < 15  # checks before, every 50 steps and after


def test_the_moving_average_is_not_part_of_a_graph() -> None:
    """One that is would grow with every step."""
    from pushforward.training import loop

    kept: list[Any] = []
    original = loop._Run._loop

    def watch(self: Any, bar: Any) -> str:
        kept.append(self)
        return original(self, bar)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Run, "_loop", watch)
        pf.train(MaximumLikelihood(small_flow()), X, max_steps=3, ema=0.9)
    assert not any(a.requires_grad for a in kept[0].averages)
