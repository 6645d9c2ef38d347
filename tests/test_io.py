"""Files: what comes back is what was saved, and what is damaged or hostile is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributions import transforms

import pushforward as pf
from pushforward import io
from pushforward.io import HEADER


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def perturbed(flow: pf.Flow) -> pf.Flow:
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return flow


def shared() -> pf.Flow:
    layer = pf.Planar(2)
    return pf.Flow(pf.Chain(layer, pf.Permutation([1, 0]), layer, layer.inv), pf.StandardNormal(2))


def composed() -> pf.Flow:
    net = nn.Sequential(
        nn.Linear(1, 8, bias=False), nn.LayerNorm(8), nn.LeakyReLU(0.3), nn.Dropout(0.0), nn.Linear(8, 4)
    )
    coupling = pf.Coupling([False, True, False], pf.Affine(2.0), conditioner=net)
    inner = pf.Chain(pf.LU(3), pf.Chain(coupling, pf.Permutation([2, 0, 1])).inv)
    return pf.Flow(pf.Chain(inner, pf.Standardize([1, 2, 3], [1, 2, 3])), pf.GaussianMixture(3, 2))


def embedded() -> pf.Flow:
    bijection = pf.Chain(pf.Planar(2, context_features=4, hidden_features=(5,)), pf.LU(2))
    return pf.Flow(bijection, pf.StudentT(2, 3.0), embedding=nn.Sequential(nn.Linear(3, 4), nn.Tanh()))


def torch_transforms() -> pf.Flow:
    affine = transforms.AffineTransform(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]), event_dim=1)
    chain = pf.Chain(pf.FromTorch(transforms.ComposeTransform([affine, transforms.SigmoidTransform()])), pf.LU(2))
    return pf.Flow(chain, pf.Uniform([0, 0], [1, 2]))


FLOWS: list[Callable[[], pf.Flow]] = [
    shared,
    composed,
    embedded,
    torch_transforms,
    lambda: pf.Flow(pf.Chain(), pf.StandardNormal(2)),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("build", FLOWS)
def test_round_trip(build: Callable[[], pf.Flow], dtype: torch.dtype, path: Path) -> None:
    torch.manual_seed(0)
    flow = perturbed(build().to(dtype))
    context = torch.randn(5, 3, dtype=dtype) if flow.context_features else None
    x = flow.sample((5,) if context is None else (), context)
    pf.save(flow, path, info={"columns": ["a", "b"], "n": 3})
    before = torch.get_rng_state()
    again = pf.load(path)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(again.log_prob(x, context), flow.log_prob(x, context))
    torch.manual_seed(1)
    expected = flow.sample(4, context)
    torch.manual_seed(1)
    found = again.sample(4, context)
    assert found.dtype == dtype
    assert torch.equal(found, expected)
    assert pf.load_info(path) == {"columns": ["a", "b"], "n": 3}
    assert all(p.requires_grad for p in again.parameters())


def test_shared_layers_stay_shared(path: Path) -> None:
    pf.save(perturbed(shared()), path)
    layers = pf.load(path).bijection.layers
    assert layers[0] is layers[2] is layers[3].bijection


def test_tied_parameters_stay_tied(path: Path) -> None:
    @pf.register
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(2, 2)
            self.two = nn.Linear(2, 2)
            self.two.weight = self.one.weight

        def forward(self, c: Tensor) -> Tensor:
            result: Tensor = self.two(self.one(c).tanh())
            return result

    flow = perturbed(pf.Flow(pf.Planar(2, context_features=2), pf.StandardNormal(2), embedding=Tied()))
    pf.save(flow, path)
    again = pf.load(path)
    assert again.embedding.one.weight is again.embedding.two.weight  # type: ignore[union-attr]
    x, c = torch.randn(5, 2), torch.randn(5, 2)
    assert torch.equal(again.log_prob(x, c), flow.log_prob(x, c))


def test_tensors_that_share_memory(path: Path) -> None:
    flow = pf.Flow(pf.Chain(pf.LU(2), pf.LU(2)), pf.StandardNormal(2))
    for ours, theirs in zip(flow.bijection.layers[1].parameters(), flow.bijection.layers[0].parameters(), strict=True):
        ours.data = theirs.data
    pf.save(flow, path)
    x = torch.randn(5, 2)
    assert torch.equal(pf.load(path).log_prob(x), flow.log_prob(x))


def test_a_loaded_flow_can_be_trained(path: Path) -> None:
    pf.save(embedded().requires_grad_(False), path)  # frozen parameters: documented not to be kept
    flow = pf.load(path)
    flow.log_prob(torch.randn(5, 2), torch.randn(5, 3)).mean().backward()
    assert all(p.grad is not None for p in flow.parameters())


def test_bytes_are_the_same_each_time(path: Path) -> None:
    flow = composed()
    contents = set()
    for _ in range(8):
        pf.save(flow, path, info={"a": 1, "b": 2})
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_files_of_tables_have_another_reader(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says so, whether or not that part of the library has been loaded."""
    pf.fit_to_data(
        torch.randn(50, 2, generator=torch.Generator().manual_seed(0)), quality="fast", max_seconds=1, progress=False
    ).save(path)
    for known, found in ((dict(io._registered), "expected a Flow, got RowModel"), ({}, r"holds a \S+\.RowModel")):
        monkeypatch.setattr("pushforward.io._registered", known)
        with pytest.raises(ValueError, match=rf"model\.safetensors: {found}; pushforward\.DataFit\.load reads"):
            pf.load(path)


class TestUserClasses:
    def test_must_be_registered_on_both_sides(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class Doubling(pf.Bijection):
            def __init__(self, factor: float) -> None:
                super().__init__()
                self.factor = factor

            def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
                return self.factor * z, z.new_full(z.shape[:-1], z.shape[-1]).mul(self.factor).log()

            def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
                return x / self.factor, -x.new_full(x.shape[:-1], x.shape[-1]).mul(self.factor).log()

        flow = pf.Flow(pf.Chain(Doubling(3.0)), pf.StandardNormal(2))
        with pytest.raises(ValueError, match=r"Doubling at flow\.bijection\.0 is not of this library; decorate"):
            pf.save(flow, path)
        assert not path.exists()
        monkeypatch.setattr("pushforward.io._registered", {})
        pf.register(Doubling)
        pf.save(flow, path)
        assert pf.load(path).bijection.layers[0].factor == 3.0
        monkeypatch.setattr("pushforward.io._registered", {})
        with pytest.raises(ValueError, match=r"model\.safetensors: the class .*Doubling is not known"):
            pf.load(path)

    def test_arguments_must_be_kept_as_attributes(self, path: Path) -> None:
        @pf.register
        class Forgetful(nn.Module):
            def __init__(self, size: int) -> None:
                super().__init__()
                self.linear = nn.Linear(size, size)

        @pf.register
        class Wrong(nn.Module):
            def __init__(self, size: int) -> None:
                super().__init__()
                self.size = 2 * size
                self.linear = nn.Linear(size, size)

        def flow(embedding: nn.Module) -> pf.Flow:
            return pf.Flow(pf.Planar(2, context_features=3), pf.StandardNormal(2), embedding=embedding)

        with pytest.raises(ValueError, match=r"Forgetful at flow\.embedding does not keep its argument 'size'"):
            pf.save(flow(Forgetful(3)), path)
        with pytest.raises(ValueError, match=r"'embedding\.linear\.bias' is .*3.*6"):
            pf.save(flow(Wrong(3)), path)
        with pytest.raises(ValueError, match="got builtin_function_or_method at"):
            pf.save(flow(nn.Sequential(nn.Linear(3, 3), nn.Threshold(0.0, torch.relu))), path)  # type: ignore[arg-type]
        assert list(path.parent.iterdir()) == []


class TestDamage:
    @pytest.fixture
    def whole(self, path: Path) -> bytes:
        pf.save(embedded(), path)
        return path.read_bytes()

    def refuse(self, path: Path, match: str = "") -> None:
        with pytest.raises(ValueError, match=f"(?s)model\\.safetensors.*{match}"):
            pf.load(path)

    def rewrite(self, path: Path, change: Callable[[dict[str, Any], dict[str, Tensor]], None]) -> None:
        with safetensors.safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()[HEADER])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        change(header, tensors)
        save_file(tensors, path, {HEADER: json.dumps(header)})

    def test_contents_that_are_no_model(self, whole: bytes, path: Path) -> None:
        noise = bytes(torch.randint(256, (5000,), generator=torch.Generator().manual_seed(0)).tolist())
        for content in (b"", whole[:5], whole[:200], whole[: len(whole) // 2], whole[:-1], noise, b"\0" * 100):
            path.write_bytes(content)
            self.refuse(path, "not a model file, or a truncated one")
            with pytest.raises(ValueError, match="not a model file"):
                pf.load_info(path)

    def test_missing(self, path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
            pf.load(path)

    def test_foreign(self, path: Path) -> None:
        for metadata in (None, {"format": "pt"}):
            save_file({"weight": torch.zeros(2)}, path, metadata)
            self.refuse(path, r"not one written by pushforward\.save")
        for header in ("", "[]", "{}", "3", '{"format": "one"}', '{"format": 1}'):
            save_file({"weight": torch.zeros(2)}, path, {HEADER: header})
            self.refuse(path, "damaged header")

    def test_newer_format(self, whole: bytes, path: Path) -> None:
        self.rewrite(path, lambda header, _: header.update(format=2, version="9.9"))
        self.refuse(path, r"format 2 by pushforward 9\.9, newer.* upgrade")

    def test_tensors(self, whole: bytes, path: Path) -> None:
        name = "state.embedding.0.weight"

        def reshape(_: dict[str, Any], tensors: dict[str, Tensor]) -> None:
            tensors[name] = torch.zeros(4, 7)

        def add(_: dict[str, Any], tensors: dict[str, Tensor]) -> None:
            tensors["state.other"] = torch.zeros(4)

        for change, message in (
            (lambda _, tensors: tensors.pop(name), r"embedding\.0\.weight of shape \(4, 3\), got nothing"),
            (reshape, r"embedding\.0\.weight of shape \(4, 3\), got \(4, 7\)"),
            (add, "other of shape nothing, got"),
        ):
            path.write_bytes(whole)
            self.rewrite(path, change)
            self.refuse(path, message)

    @pytest.mark.parametrize(
        "architecture",
        [
            {"class": "os.system", "number": 0, "args": ["touch hacked"], "kwargs": {}},
            {"class": "builtins.eval", "number": 0, "args": ["open('hacked', 'w')"], "kwargs": {}},
            {"class": "torch.nn.modules.linear.Linear", "number": 0, "args": [1, 1], "kwargs": {}},
            {"class": "pushforward.io.save", "number": 0, "args": [1, "hacked"], "kwargs": {}},
            {"class": "torch.load", "number": 0, "args": ["hacked"], "kwargs": {}},
            {"class": ["os.system"], "number": 0},
            {"class": "pushforward.LU", "number": 0, "args": ["nonsense"], "kwargs": {}},
            {"class": "pushforward.LU", "number": 0, "args": [-1], "kwargs": {}},
            {"class": "pushforward.LU", "number": 0, "args": [2], "kwargs": {"other": 1}},
            {"class": "pushforward.LU", "number": 0, "args": [2], "kwargs": {}},
            {"class": "pushforward.LU"},
            {"class": "pushforward.LU", "number": 0},
            {"tensor": "nowhere"},
            {"shared": 7},
            {},
            None,
            "pushforward.Flow",
        ],
        ids=str,
    )
    def test_hostile_architectures(
        self, architecture: Any, whole: bytes, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(path.parent)
        self.rewrite(path, lambda header, _: header.update(architecture=architecture))
        self.refuse(path)
        assert [p.name for p in path.parent.iterdir()] == [path.name]

    def test_hostile_nesting_and_dtype(self, whole: bytes, path: Path) -> None:
        deep: Any = []
        for _ in range(900):
            deep = [deep]
        self.rewrite(path, lambda header, _: header.update(architecture=deep))
        self.refuse(path)
        path.write_bytes(whole)
        self.rewrite(path, lambda header, _: header.update(dtype="load"))
        self.refuse(path, "unknown dtype")

    def test_a_failed_save_leaves_what_was_there(
        self, whole: bytes, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(ValueError, match="info that JSON can hold"):
            pf.save(shared(), path, info={"bad": object()})

        def full_disk(tensors: Any, filename: Path, metadata: Any) -> None:
            Path(filename).write_bytes(b"half")
            raise OSError("no space left on device")

        monkeypatch.setattr("pushforward.io.save_file", full_disk)
        with pytest.raises(OSError, match="no space"):
            pf.save(shared(), path)
        assert path.read_bytes() == whole
        assert [p.name for p in path.parent.iterdir()] == [path.name]
