"""One file that holds a flow: weights, architecture, dtype and version, without pickle."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributions import transforms

import pushforward
from pushforward.files import write_atomically
from pushforward.flow import Flow

FORMAT = 1
HEADER = "pushforward"
C = TypeVar("C", bound=type)
TABLE_READER = "pushforward.DataFit.load reads what was fitted to a table"
_DTYPES = ("", "float64", "float32", "bfloat16", "float16")
_registered: dict[str, type] = {}


def register(cls: C) -> C:
    """Let `save` and `load` handle a class of your own; a decorator.

    The class must keep every constructor argument as an attribute of the same name.

    Example:
        >>> @register
        ... class Shift(pf.bijections.Elementwise):
        ...     pass
    """
    _registered[f"{cls.__module__}.{cls.__qualname__}"] = cls
    return cls


def save(flow: nn.Module, path: str | Path, *, info: Mapping[str, Any] | None = None) -> None:
    """Write a flow to one safetensors file, whole or not at all.

    Args:
        flow: any flow composed of classes of this library, of torch.nn, of torch's transforms, and of registered
            classes; or another module of such classes, which `io.load_module` reads.
        path: the file to write.
        info: facts to keep beside it, such as the names of columns; anything that JSON can hold.

    Raises:
        ValueError: if a part of the flow cannot be rebuilt from its constructor's arguments (which part).
        OSError: if the file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pf.save(pf.nsf(features=2), f"{folder}/model.safetensors", info={"columns": ["a", "b"]})
        ...     pf.load_info(f"{folder}/model.safetensors")
        {'columns': ['a', 'b']}
    """
    encoder = _Encoder()
    architecture = encoder.encode(flow, "flow")
    state = _own_tensors(flow)
    metadata = {
        "format": FORMAT,
        "version": pushforward.__version__,
        "dtype": _dtype(flow),
        "architecture": architecture,
        "info": dict(info or {}),
    }
    try:
        header = json.dumps(metadata)
    except TypeError as error:
        raise ValueError(f"save: expected info that JSON can hold: {error}") from error
    _check_rebuilds(flow, architecture, encoder.tensors)
    tensors = {f"state.{name}": value for name, value in state.items()} | encoder.tensors
    with write_atomically(path) as temporary:
        # Clones, since safetensors refuses tensors that share memory; one key, since it shuffles several.
        clones = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
        try:
            save_file(clones, temporary, {HEADER: header})
        except safetensors.SafetensorError as error:
            raise OSError(f"{path}: cannot be written: {error}") from error


def load(path: str | Path, *, device: str | torch.device = "cpu") -> Flow:
    """Read a flow that `save` wrote; nothing in the file is executed.

    Which parameters are frozen (`requires_grad_(False)`) is not kept: all are as in a new flow.

    Args:
        path: the file to read.
        device: where to put the flow.

    Raises:
        ValueError: if the file is truncated, not of this library, of a newer format, or names an unknown class.
        FileNotFoundError: if there is no such file.

    Example:
        >>> import tempfile
        >>> flow = pf.nsf(features=2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pf.save(flow, f"{folder}/model.safetensors")
        ...     again = pf.load(f"{folder}/model.safetensors")
        >>> x = torch.randn(5, 2)
        >>> bool((flow.log_prob(x) == again.log_prob(x)).all())
        True
    """
    flow = load_module(path, device=device)
    if not isinstance(flow, Flow):
        raise ValueError(f"{path}: expected a Flow, got {type(flow).__name__}; {TABLE_READER}")
    return flow


def load_module(path: str | Path, *, device: str | torch.device = "cpu") -> nn.Module:
    """Read a module of any class that `save` wrote; as `load`, which reads flows.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(pf.MLP(2, 3), f"{folder}/model.safetensors")
        ...     load_module(f"{folder}/model.safetensors")(torch.zeros(2)).shape
        torch.Size([3])
    """
    metadata, tensors = _read(Path(path))
    module = _build(metadata["architecture"], tensors, str(path))
    if not isinstance(module, nn.Module):
        raise ValueError(f"{path}: expected a module, got {type(module).__name__}")
    state = {name.removeprefix("state."): t for name, t in tensors.items() if name.startswith("state.")}
    if metadata["dtype"]:
        module.to(getattr(torch, metadata["dtype"]))
    _restore(module, state, str(path))
    return module.to(device)


def load_info(path: str | Path) -> dict[str, Any]:
    """The facts that were kept beside a flow.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pf.save(pf.nsf(features=2), f"{folder}/model.safetensors", info={"unit": "cm"})
        ...     pf.load_info(f"{folder}/model.safetensors")
        {'unit': 'cm'}
    """
    info: dict[str, Any] = _read(Path(path))[0]["info"]
    return info


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(HEADER)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except Exception as error:
        raise ValueError(f"{path}: not a model file, or a truncated one ({error})") from error
    if header is None:
        raise ValueError(f"{path}: a safetensors file, but not one written by pushforward.save")
    try:
        metadata = json.loads(header)
        newer = metadata["format"] > FORMAT
        complete = {"version", "dtype", "architecture", "info"} <= metadata.keys() and metadata["dtype"] in _DTYPES
    except Exception as error:
        raise ValueError(f"{path}: damaged header ({error!r})") from error
    if newer:
        raise ValueError(
            f"{path}: written in format {metadata['format']} by pushforward {metadata.get('version')}, newer than this "
            f"library's format {FORMAT}; upgrade pushforward"
        )
    if not complete:
        raise ValueError(f"{path}: damaged header, incomplete or of an unknown dtype")
    return metadata, tensors


def _dtype(module: nn.Module) -> str:
    """The name of the one floating dtype of a module, also where nothing of it is in the state; or nothing."""
    dtypes = {t.dtype for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()}
    return str(dtypes.pop()).removeprefix("torch.") if len(dtypes) == 1 else ""


def _own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The state without names that lead to a tensor that another name leads to."""
    seen: set[int] = set()
    state = {}
    for name, value in module.state_dict(keep_vars=True).items():
        if id(value) not in seen:
            seen.add(id(value))
            state[name] = value
    return state


def _restore(flow: nn.Module, state: dict[str, Tensor], where: str) -> None:
    expected = _own_tensors(flow)
    for name in sorted(expected.keys() | state.keys()):
        found = {k: tuple(d[name].shape) if name in d else "nothing" for k, d in {"e": expected, "s": state}.items()}
        if found["e"] != found["s"]:
            raise ValueError(f"{where}: expected {name} of shape {found['e']}, got {found['s']}")
    for name, tensor in expected.items():
        tensor.data = state[name]  # in place, so that what is shared stays shared


def _build(architecture: Any, tensors: dict[str, Tensor], where: str) -> Any:
    """What the architecture describes, with parameters as in a new one; leaves the global random state alone."""
    try:
        with torch.random.fork_rng(devices=[]):
            return _Decoder(tensors, where).decode(architecture)
    except (LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{where}: damaged architecture ({error!r})") from error


def _check_rebuilds(flow: nn.Module, architecture: Any, tensors: dict[str, Tensor]) -> None:
    """Raise unless the architecture alone yields modules of the same kinds, in the same places, of the same shapes."""
    again = _build(architecture, tensors, "save")
    kinds = {name: type(m) for name, m in flow.named_modules()}
    kinds_again = {name: type(m) for name, m in again.named_modules()}
    shapes = {name: t.shape for name, t in _own_tensors(flow).items()}
    shapes_again = {name: t.shape for name, t in _own_tensors(again).items()}
    for ours, theirs in ((kinds, kinds_again), (shapes, shapes_again)):
        for name in sorted(ours.keys() | theirs.keys()):
            if ours.get(name) != theirs.get(name):
                raise ValueError(
                    f"save: '{name}' is {ours.get(name)} in the flow, but {theirs.get(name)} after "
                    "rebuilding it from its constructor's arguments; keep the arguments as attributes of the same names"
                )


class _Encoder:
    """Objects to JSON: a class by its name and its constructor's arguments, read from attributes of the same names."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.numbers: dict[int, int] = {}

    def encode(self, value: Any, path: str) -> Any:
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, Tensor):
            self.tensors[f"argument.{path}"] = value
            return {"tensor": f"argument.{path}"}
        if isinstance(value, list | tuple | nn.ModuleList):
            return [self.encode(v, f"{path}.{i}") for i, v in enumerate(value)]
        if isinstance(value, type):
            return {"class": _name(value, path)}
        if isinstance(value, nn.Module | transforms.Transform):
            if id(value) in self.numbers:
                return {"shared": self.numbers[id(value)]}
            encoded = {"class": _name(type(value), path), "number": len(self.numbers)}
            self.numbers[id(value)] = len(self.numbers)
            args, kwargs = _arguments(value, path)
            encoded["args"] = [self.encode(v, f"{path}.{i}") for i, v in enumerate(args)]
            encoded["kwargs"] = {k: self.encode(v, f"{path}.{k}") for k, v in kwargs.items()}
            return encoded
        raise ValueError(f"save: expected numbers, strings, tensors and modules, got {type(value).__name__} at {path}")


class _Decoder:
    """The inverse of `_Encoder`; constructs classes from the known ones only."""

    def __init__(self, tensors: dict[str, Tensor], where: str) -> None:
        self.tensors = tensors
        self.where = where
        self.objects: dict[int, Any] = {}

    def decode(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.decode(v) for v in value]
        if not isinstance(value, dict):
            return value
        if "tensor" in value:
            return self.tensors[value["tensor"]]
        if "shared" in value:
            return self.objects[value["shared"]]
        cls = _class(value["class"], self.where)
        if "number" not in value:
            return cls
        args = self.decode(value["args"])
        kwargs = {k: self.decode(v) for k, v in value["kwargs"].items()}
        try:
            instance = cls(*args, **kwargs)
        except Exception as error:
            raise ValueError(f"{self.where}: could not build {value['class']}: {error}") from error
        self.objects[value["number"]] = instance
        return instance


def _arguments(value: Any, path: str) -> tuple[list[Any], dict[str, Any]]:
    """The constructor's arguments of an object, read back from its attributes."""
    if isinstance(value, nn.Sequential | nn.ModuleList):
        children = list(value)
        return (children, {}) if isinstance(value, nn.Sequential) else ([children], {})
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    if type(value).__init__ is nn.Module.__init__:  # takes no arguments of its own
        return args, kwargs
    for name, parameter in inspect.signature(type(value)).parameters.items():
        if name in ("device", "dtype", "cache_size"):
            continue
        attribute = next((a for a in (name, f"_{name}") if hasattr(value, a)), None)
        if attribute is None:
            raise ValueError(
                f"save: {type(value).__name__} at {path} does not keep its argument '{name}' as an attribute"
            )
        held = getattr(value, attribute)
        if name == "bias" and isinstance(value, nn.Module) and not isinstance(held, bool):
            held = held is not None  # torch.nn turns the flag into the tensor
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            args += list(held)
        else:
            kwargs[name] = held
    return args, kwargs


@cache
def _library() -> dict[str, Callable[..., Any]]:
    """The classes that a file may name: this library's, torch.nn's and torch's transforms."""
    from pushforward import bases, bijections, nn, transformers
    from pushforward.mixture import FlowMixture

    classes: dict[str, Callable[..., Any]] = {"pushforward.Flow": Flow, "pushforward.FlowMixture": FlowMixture}
    for package in (bases, bijections, nn, transformers):
        for name in package.__all__:
            classes[f"pushforward.{name}"] = getattr(package, name)
    for name in torch.nn.__dict__:
        cls = getattr(torch.nn, name)
        if isinstance(cls, type) and issubclass(cls, torch.nn.Module):
            classes[f"torch.nn.{name}"] = cls
    for name in transforms.__all__:
        if isinstance(getattr(transforms, name), type):
            classes[f"torch.distributions.{name}"] = getattr(transforms, name)
    return classes


def _name(cls: type, path: str) -> str:
    for name, known in (_library() | _registered).items():
        if known is cls:
            return name
    raise ValueError(
        f"save: the class {cls.__module__}.{cls.__qualname__} at {path} is not of this library; "
        "decorate it with pushforward.register"
    )


def _class(name: str, where: str) -> Callable[..., Any]:
    known = _library() | _registered
    if name not in known:
        if name.startswith("pushforward.tabular."):
            raise ValueError(f"{where}: holds a {name}; {TABLE_READER}")
        raise ValueError(
            f"{where}: the class {name} is not known; if it is yours, import its module, and let that register it with "
            "pushforward.register"
        )
    return known[name]
