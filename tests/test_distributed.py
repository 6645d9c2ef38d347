"""Two processes against one with the doubled batch, and against a process that fails, stops, dies or hangs."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import pushforward as pf
from pushforward.objectives import MaximumLikelihood, ReverseKL
from pushforward.training import distributed

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and servers of processes are those of Unix")

X = 3 + 2 * torch.randn(500, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
LIMIT = 60.0  # seconds, in which any of these runs ends
Work = Callable[[int, Path], Any]


def environment(rank: int, port: int) -> dict[str, str]:
    variables = {"RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return {name: str(value) for name, value in variables.items()}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def child(work: Work, rank: int, port: int, folder: Path) -> None:
    os.environ.update(environment(rank, port))
    torch.set_num_threads(1)
    torch.save(work(rank, folder), folder / f"{rank}.pt")


def together(work: Work, folder: Path, *, wait_for_second: bool = True) -> list[Any]:
    """What the work gives in each of two processes; None in one that did not come to its end."""
    context = multiprocessing.get_context("forkserver")
    # All that takes time to import, once for all tests; the optimisers import the compiler.
    context.set_forkserver_preload(["pytest", "torch._dynamo", "pushforward._api"])
    port = free_port()
    processes = [context.Process(target=child, args=(work, rank, port, folder)) for rank in range(2)]
    for process in processes:
        process.start()
    for process, limit in zip(processes, (LIMIT, LIMIT if wait_for_second else 0.0), strict=True):
        process.join(limit)
        process.kill()
        process.join()
    paths = [folder / f"{rank}.pt" for rank in range(2)]
    return [torch.load(path, weights_only=False) if path.exists() else None for path in paths]


def model(seed: int = 0) -> pf.Flow:
    torch.manual_seed(seed)
    inner = pf.maf(2, layers=1, hidden_features=(8,))
    return pf.Flow(pf.Chain(*inner.bijection.layers, pf.ActNorm(2)), inner.base).double()


def likelihood(flow: pf.Flow, batch_size: int, data: Any = X, **options: Any) -> pf.TrainResult:
    settings: dict[str, Any] = {"max_steps": 100, "learning_rate": 0.01, "validation": 0.2, "validate_every": 10}
    return pf.train(MaximumLikelihood(flow), data, batch_size=batch_size, **settings | options)


def averaged(flow: pf.Flow, batch_size: int, folder: Path) -> pf.TrainResult:
    return likelihood(flow, batch_size, ema=0.9, clip=1.0)


def stopped_early(flow: pf.Flow, batch_size: int, folder: Path) -> pf.TrainResult:
    return likelihood(flow, batch_size, learning_rate=0.03, validate_every=2, patience=2)


def lbfgs(flow: pf.Flow, batch_size: int, folder: Path) -> pf.TrainResult:
    def make(parameters: list[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.LBFGS(parameters, max_iter=3, line_search_fn="strong_wolfe")

    return likelihood(flow, batch_size, optimizer=make, max_steps=5, clip=None)


def streamed(flow: pf.Flow, batch_size: int, folder: Path) -> pf.TrainResult:
    rows = pf.FileRows(folder / "rows.npy", dtype=torch.float64, buffer_rows=150)
    return likelihood(flow, batch_size, rows, max_steps=30)


def all_rows(flow: pf.Flow, batch_size: int, folder: Path) -> pf.TrainResult:
    return likelihood(flow, 100 * batch_size, max_steps=10, optimizer=lambda p: torch.optim.SGD(p, lr=0.1))


METHODS = [averaged, stopped_early, lbfgs, streamed, all_rows]


def run_methods(rank: int, folder: Path) -> Any:
    results = []
    for method in METHODS:
        flow = model(seed=rank)  # the weights of the first process count
        results.append((method(flow, 16, folder), flow.state_dict()))
    return results


def test_two_processes_are_one_with_the_doubled_batch(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", X.numpy())
    first, second = together(run_methods, tmp_path)
    for method, (result, state), (other, other_state) in zip(METHODS, first, second, strict=True):
        flow = model()
        expected = method(flow, 32, tmp_path)
        assert all(torch.equal(state[name], other_state[name]) for name in state), method
        assert (result.losses, result.validation) == (other.losses, other.validation)
        assert (result.stopped, result.best_step) == (expected.stopped, expected.best_step), method
        # Adam makes steps of 1e-11 of the rounding of a gradient that is zero.
        assert np.allclose(result.losses, expected.losses, rtol=0, atol=1e-8), method
        assert np.allclose(result.validation, expected.validation, rtol=0, atol=1e-8), method
        for name, value in flow.state_dict().items():
            assert torch.allclose(state[name], value, rtol=0, atol=1e-8), (method, name)


class Fails(MaximumLikelihood):
    """A solver that gives up, in one process."""

    def __init__(self, flow: pf.Flow, rank: int) -> None:
        super().__init__(flow)
        self.rank = rank
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        self.calls += 1
        if self.rank == 1 and self.calls == 7:
            raise FloatingPointError("step too small")
        return super().forward(x)


class Unused(MaximumLikelihood):
    """With a parameter that gets no gradient."""

    def __init__(self, flow: pf.Flow) -> None:
        super().__init__(flow)
        self.unused = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))


def run_in_turn(rank: int, folder: Path) -> Any:
    """What ends or troubles one process alone."""

    def stop(step: int) -> bool:
        return rank == 1 and step == 5

    def interrupt(step: int) -> None:
        if rank == 1 and step == 6:
            os.kill(os.getpid(), signal.SIGINT)

    def terminate(step: int) -> None:
        if step == 8 - rank:
            os.kill(os.getpid(), signal.SIGTERM)

    found: dict[str, Any] = {
        "callback": likelihood(model(), 16, callback=stop),
        "interrupted": likelihood(model(), 16, callback=interrupt),
        "terminated": likelihood(model(), 16, callback=terminate),
        "out of time": likelihood(model(), 16, max_steps=10**6, max_seconds=0.1),
        "failed": pf.train(Fails(model(), rank), X, max_steps=60),
        "unused": pf.train(Unused(model()), X, max_steps=3),
    }
    try:
        likelihood(model(), 16, max_steps=10 + rank)
    except ValueError as error:
        found["other call"] = str(error)
    objective = ReverseKL(model(), lambda x: -0.5 * x.square().sum(-1), 8)
    found["noise"] = (pf.train(objective, max_steps=4, seed=3), objective.log_weights, objective.flow.state_dict())
    drawn: list[Tensor] = []

    def draw(n: int) -> Tensor:
        drawn.append(torch.randn(n, 2, dtype=torch.float64))
        return drawn[-1]

    found["drawn"] = (pf.train(MaximumLikelihood(model()), draw, max_steps=2, batch_size=4), torch.stack(drawn))
    found["alone"] = pf.train(MaximumLikelihood(model()), X[rank::2], max_steps=3 + rank, distributed=False)
    return found


def test_what_happens_in_one_process_happens_in_both(tmp_path: Path) -> None:
    first, second = together(run_in_turn, tmp_path)
    assert first["callback"].steps == second["callback"].steps == 5
    assert first["callback"].stopped == second["callback"].stopped == "stopped by the callback"
    for name, steps in (("interrupted", 6), ("terminated", 7)):
        assert first[name].steps == second[name].steps == steps
        assert first[name].stopped == second[name].stopped == "interrupted"
    assert first["out of time"].steps == second["out of time"].steps < 10**6
    for result in (first["failed"], second["failed"]):
        assert result.stopped == "non-finite loss at step 7; kept the state after step 0"
    assert first["unused"].losses == second["unused"].losses
    assert first["other call"] == second["other call"]
    assert "same call in all processes (max_steps: 10 in the first process, 11 in another" in first["other call"]

    # Each draws for itself; what they learn is the same.
    assert first["noise"][0].losses == second["noise"][0].losses
    assert not torch.isclose(first["noise"][1], second["noise"][1]).any()
    assert distance(first["noise"][2], second["noise"][2]) == 0
    assert not torch.isclose(first["drawn"][1], second["drawn"][1]).any()
    assert first["drawn"][0].losses == second["drawn"][0].losses
    assert (first["alone"].steps, second["alone"].steps) == (3, 4)


def distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    return max((a[name] - b[name]).abs().max().item() for name in a)


def checkpointed(flow: pf.Flow, batch_size: int, folder: Path, **options: Any) -> pf.TrainResult:
    """Draws within the loss: the random state of each process is part of the checkpoint."""
    objective = Noisy(flow)
    options = {"max_steps": 40, "checkpoint": folder / "run.pt", "checkpoint_every": 10} | options
    return pf.train(objective, X, batch_size=batch_size, validation=0.2, validate_every=10, ema=0.9, **options)


class Noisy(MaximumLikelihood):
    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x + 0.1 * torch.randn_like(x))


def run_uninterrupted(rank: int, folder: Path) -> Any:
    flow = model(rank)
    return checkpointed(flow, 16, folder), flow.state_dict()


def run_until_one_dies(rank: int, folder: Path) -> Any:
    return _last_words(rank, folder, 27, lambda: os.kill(os.getpid(), signal.SIGKILL))


def run_until_one_hangs(rank: int, folder: Path) -> Any:
    distributed.TIMEOUT = distributed.timedelta(seconds=1)
    return _last_words(rank, folder, 3, lambda: time.sleep(10))


def _last_words(rank: int, folder: Path, last: int, happening: Callable[[], None]) -> tuple[str, float]:
    """The error in the first process when something happens in the second, and the seconds from then on."""
    times = []

    def wait(step: int) -> None:
        times.append(time.monotonic())
        if rank == 1 and step == last:
            happening()

    try:
        checkpointed(model(rank), 16, folder, callback=wait)
    except ConnectionError as error:
        return str(error), time.monotonic() - times[-1]
    raise AssertionError("the run went on")


class TestLostProcess:
    def test_dead(self, tmp_path: Path) -> None:
        """The other one ends with an error; both go on from the checkpoint to the same bits."""
        whole, again = tmp_path / "whole", tmp_path / "again"
        whole.mkdir()
        again.mkdir()
        expected = together(run_uninterrupted, whole)
        (words, seconds), nothing = together(run_until_one_dies, again)
        assert nothing is None
        assert seconds < 5
        assert words == (
            "train: in step 28 process 0 of 2 got no answer from another one, which is dead or stands still; "
            f"the same call goes on from {again / 'run.pt'}"
        )
        found = together(run_uninterrupted, again)
        for (result, state), (expected_result, expected_state) in zip(found, expected, strict=True):
            assert (result.losses, result.validation) == (expected_result.losses, expected_result.validation)
            assert distance(state, expected_state) == 0
        assert sorted(path.name for path in again.iterdir()) == ["0.pt", "1.pt", "run.pt"]
        with pytest.raises(ValueError, match="processes: 2 then, 1 now"):
            checkpointed(model(), 16, again)

    def test_standing_still(self, tmp_path: Path) -> None:
        (words, seconds), _ = together(run_until_one_hangs, tmp_path, wait_for_second=False)
        assert words == (
            "train: in step 4 process 0 of 2 got no answer from another one, which is dead or stands still; "
            "there is no checkpoint to go on from"
        )
        assert seconds < 5  # it does not wait until the other one wakes up


def spline(flow: pf.Flow, batch_size: int, folder: Path) -> pf.TrainResult:
    x = torch.randn(4000, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).cumsum(-1)
    return likelihood(flow, 8 * batch_size, x, validate_every=25)


def run_spline(rank: int, folder: Path) -> Any:
    torch.manual_seed(rank)
    flow = pf.nsf(6).double()
    return spline(flow, 16, folder), flow.state_dict()


@pytest.mark.slow
def test_a_spline_flow_after_100_steps(tmp_path: Path) -> None:
    (result, state), _ = together(run_spline, tmp_path)
    torch.manual_seed(0)
    flow = pf.nsf(6).double()
    expected = spline(flow, 32, tmp_path)
    assert result.steps == 100
    assert np.allclose(result.losses, expected.losses, rtol=0, atol=1e-7)
    assert distance(state, flow.state_dict()) < 1e-7


def command_line(folder: Path, *options: str) -> list[str]:
    files = str(folder / "table.npy"), "-o", str(folder / "model")
    return ["-m", "pushforward", "fit", *files, "--flow", "nsf", *options]


def start_pair(folder: Path, *options: str) -> list[subprocess.Popen[str]]:
    port = free_port()
    return [
        subprocess.Popen(
            [sys.executable, *command_line(folder, *options)],
            env=os.environ | environment(rank, port) | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


@pytest.mark.slow
def test_the_command_line_goes_on_after_a_dead_process(tmp_path: Path) -> None:
    """By torchrun without a break, and by hand with one process killed: the same model, to the bit."""
    rows = np.random.default_rng(0).normal(size=(4000, 3)) @ [[1.0, 2.0, 0.0], [0.0, 1.0, -1.0], [0.0, 0.0, 1.0]]
    np.save(tmp_path / "table.npy", rows)
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", f"--master-port={free_port()}"]
    steps = ("--max-steps", "400")
    done = subprocess.run([*run, *command_line(tmp_path, *steps)], check=True, capture_output=True, text=True)
    assert done.stdout.count("wrote") == 1  # by one of the two
    whole = pf.DataFit.load(tmp_path / "model").model.state_dict()
    (tmp_path / "model").unlink()

    options = (*steps, "--checkpoint", str(tmp_path / "run.pt"))
    first, second = start_pair(tmp_path, *options)
    deadline = time.monotonic() + LIMIT
    while not (tmp_path / "run.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    second.kill()
    killed = time.monotonic()
    _, error = first.communicate(timeout=LIMIT)
    assert time.monotonic() - killed < 10
    assert first.returncode == 2
    assert error.startswith("pushforward: train: in step") and error.count("\n") == 1
    assert error.endswith(f"the same call goes on from {tmp_path / 'run.pt'}\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.pt", "table.npy"]
    second.communicate()

    outputs = [process.communicate(timeout=2 * LIMIT) for process in start_pair(tmp_path, *options)]
    assert outputs[0][0].count("wrote") == 1 and outputs[1] == ("", "")
    again = pf.DataFit.load(tmp_path / "model").model.state_dict()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pf.training.is_writer()
    for rank, expected in ((0, True), (1, False)):
        for name, value in environment(rank, 1).items():
            monkeypatch.setenv(name, value)
        assert pf.training.is_writer() is expected
    monkeypatch.delenv("MASTER_ADDR")  # the rank of something else
    assert pf.training.is_writer()
