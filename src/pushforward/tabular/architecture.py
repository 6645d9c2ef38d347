"""What a model of rows consists of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pushforward.bases import Base
from pushforward.bijections import Bijection, Chain, Coupling, Elementwise, MaskedAutoregressive
from pushforward.flow import Flow
from pushforward.mixture import FlowMixture
from pushforward.tabular.row_model import RowModel, given_states
from pushforward.transformers import InverseTransformer, Transformer


@dataclass(frozen=True)
class Parts:
    """The parts of a flow of continuous coordinates, of the first one if it is a mixture of several.

    Attributes:
        base: where it starts.
        layers: from the base on; chains of chains are taken apart.
        flows: how many flows are mixed; 1 if it is none.
    """

    base: Base
    layers: tuple[Bijection, ...]
    flows: int

    @classmethod
    def of(cls, flow: Flow) -> Parts:
        """The parts of a flow."""
        outer = _flat(flow.bijection)
        if not isinstance(flow.base, FlowMixture):
            return cls(flow.base, outer, 1)
        first = flow.base.flows[0]
        assert isinstance(first, Flow)
        inner = cls.of(first)
        return cls(inner.base, (*inner.layers, *outer), len(flow.base.flows))

    @property
    def names(self) -> list[str]:
        """Of the layers, each with its transformer."""
        return [_name(layer) for layer in self.layers]


def describe(model: RowModel) -> str:
    """The parts of a model in words, a line each."""
    lines = []
    if model.discrete is not None:
        widths = ", ".join(map(str, model.discrete.hidden_features))
        lines.append(
            f"discrete coordinates: {len(model.levels)}, of {', '.join(map(str, model.levels))} states, each given the "
            f"ones before it by a masked network of widths {widths}; {_size(model.discrete)}"
        )
    if model.continuous is not None:
        parts = Parts.of(model.continuous)
        given = f", given {model.continuous.context_features} numbers" if model.continuous.context_features else ""
        mixed = f"a mixture of {parts.flows} flows, each: " if parts.flows > 1 else ""
        lines.append(f"continuous coordinates: {model.features}{given}; {mixed}{_size(model.continuous)}")
        lines.append(f"  base: {type(parts.base).__name__}")
        lines += [f"  {k}: {name}" for k, name in enumerate(parts.names, 1)]
    return "\n".join(lines)


@torch.no_grad()
def path_of(model: RowModel, n: int, context: Tensor | None = None) -> tuple[list[str], list[Tensor]]:
    """Draws of the base of the continuous coordinates after 0, 1, ..., K layers, and the names of these steps.

    Args:
        model: with continuous coordinates.
        n: number of draws.
        context: of the model, `(n, context_features)`, a row for each draw.
    """
    flow = model.continuous
    assert flow is not None
    given = None
    if flow.context_features:
        c, _ = model.sample(n, context)
        given = given_states(c, model.levels, context)
        given = given if flow.embedding is None or given is None else flow.embedding(given)
    return steps_of(flow, n, given)


@torch.no_grad()
def steps_of(flow: Flow, n: int, context: Tensor | None = None) -> tuple[list[str], list[Tensor]]:
    """As `path_of`, of a flow by itself, given the context behind its embedding."""
    parts = Parts.of(flow)
    points = [parts.base.sample((n,)) if not parts.base.context_features else parts.base.sample((), context)]
    for layer in parts.layers:
        points.append(layer(points[-1], context if layer.context_features else None)[0])
    titles = [f"{k}: {type(layer).__name__}" for k, layer in enumerate(parts.layers, 1)]
    return ["base", *titles], points


def _flat(bijection: Bijection) -> tuple[Bijection, ...]:
    if not isinstance(bijection, Chain):
        return (bijection,)
    return tuple(part for layer in bijection.layers for part in _flat(layer))  # type: ignore[arg-type]


def _name(layer: Bijection) -> str:
    name = type(layer).__name__
    if isinstance(layer, Elementwise | Coupling | MaskedAutoregressive):
        return f"{name} {_transformer_name(layer.transformer)}"
    return name


def _transformer_name(transformer: Transformer) -> str:
    if isinstance(transformer, InverseTransformer):
        return f"{_transformer_name(transformer.transformer)}, inverse"
    return type(transformer).__name__


def _size(module: nn.Module) -> str:
    return f"{sum(p.numel() for p in module.parameters()):,} parameters"
