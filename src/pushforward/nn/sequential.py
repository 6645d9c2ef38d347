"""The sequential direction of a masked autoregressive map, in place, and its exact gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pushforward.nn.masked import MaskedMLP
from pushforward.numerics import is_traced, pull_back_with_graph

ScalarMap = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def sequential_map(
    conditioner: MaskedMLP,
    scalar_map: ScalarMap,
    z: Tensor,
    context: Tensor | None,
    parameters: Sequence[Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """x_i = tau(z_i; h_i(x_<i, context)), one feature after the other, each hidden unit once.

    The gradient is the transposed pass: from the last feature down, the cotangent of each hidden unit is computed once,
    and those of the weights are one product per layer.

    Args:
        conditioner: makes the parameters h, `(*batch, features, out_features)`.
        scalar_map: from a value and its parameters to tau and its log-slope, elementwise and without state.
        z: shape `(*batch, features)`.
        context: shape `(*batch, context_features)`.
        parameters: in place of `conditioner.masked_parameters()`.

    Returns:
        x and the log-slopes, `(*batch, features)` each.
    """
    parameters = conditioner.masked_parameters() if parameters is None else parameters
    if is_traced() or any(True for _ in conditioner.act.parameters()):
        return _stepwise(conditioner, scalar_map, z, context, parameters)
    rows = z.reshape(-1, z.shape[-1])
    context_rows = None if context is None else context.reshape(-1, context.shape[-1])
    x, log_slopes = _Sequential.apply(conditioner, scalar_map, rows, context_rows, *parameters)  # type: ignore[no-untyped-call]
    return x.view(z.shape), log_slopes.view(z.shape)


def _stepwise(
    conditioner: MaskedMLP, scalar_map: ScalarMap, z: Tensor, context: Tensor | None, parameters: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """The map by operations that torch compiles, transforms and differentiates to any order."""
    values: list[Tensor] = []
    log_slopes: list[Tensor] = []

    def emit(i: int, h: Tensor) -> Tensor:
        x, log_slope = scalar_map(z[..., i], h)
        values.append(x)
        log_slopes.append(log_slope)
        return x

    conditioner.sequentially(emit, z, context, parameters)
    return torch.stack(values, dim=-1), torch.stack(log_slopes, dim=-1)


class _Sequential(torch.autograd.Function):
    """The map of rows `(n, features)`, from masked weights and biases.

    What is kept is transposed, so that the units known so far are contiguous: `seen[l]`, what layer l sees, `(units,
    n)`; `before[l]`, hidden layer l before its nonlinearity; and h, `(features, out_features, n)`.
    """

    @staticmethod
    def forward(
        ctx: Any, conditioner: MaskedMLP, scalar_map: ScalarMap, z: Tensor, context: Tensor | None, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        n, features = z.shape
        outputs = conditioner.out_features
        assert isinstance(outputs, int)
        offset = conditioner.context_features
        widths = [offset + features, *conditioner.hidden_features]
        seen = [z.new_empty(width, n) for width in widths]
        if context is not None:
            seen[0][:offset] = context.mT
        # Before anything is seen, each layer's answer is its bias.
        *before, h_rows = [bias.unsqueeze(-1).repeat(1, n) for bias in parameters[1::2]]
        h = h_rows.view(features, outputs, n)
        z_columns = z.mT.contiguous()
        log_slopes = torch.empty_like(z_columns)

        # All is cut once into the parts of each step: a slice costs as much as a small product.
        news = [*conditioner.news, [outputs] * features]
        known = [range(offset, offset + features), *conditioner.known]
        answers = [part.split(sizes) for part, sizes in zip([*before, h_rows], news, strict=True)]
        weights = [weight.split(sizes) for weight, sizes in zip(parameters[::2], news, strict=True)]
        shown = [part.split(sizes) for part, sizes in zip(seen[1:], conditioner.news, strict=True)]
        act, top = conditioner.act.forward, len(before)
        steps = zip(z_columns, h.mT, seen[0][offset:], log_slopes, strict=True)
        for i, (z_i, h_i, x_i, log_slope_i) in enumerate(steps):
            for layer in range(top):
                if news[layer][i]:
                    k, a = known[layer][i], answers[layer][i]
                    a.addmm_(weights[layer][i][:, :k], seen[layer][:k])
                    if conditioner.residual and layer:
                        a += answers[layer - 1][i]
                    shown[layer][i].copy_(act(a))
            k = known[top][i]
            answers[top][i].addmm_(weights[top][i][:, :k], seen[top][:k])
            x, log_slope = scalar_map(z_i, h_i)
            x_i.copy_(x)
            log_slope_i.copy_(log_slope)
        ctx.conditioner, ctx.scalar_map = conditioner, scalar_map
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(z, context, *parameters, *seen, *before, h)
        return seen[0][offset:].mT.contiguous(), log_slopes.mT.contiguous()

    @staticmethod
    def backward(ctx: Any, grad_x: Tensor | None, grad_log_slopes: Tensor | None) -> tuple[Tensor | None, ...]:
        depth = len(ctx.conditioner.layers)
        z, context, *saved = ctx.saved_tensors
        parameters, saved = saved[: 2 * depth], saved[2 * depth :]
        seen, before, h = saved[:depth], saved[depth:-1], saved[-1]
        if torch.is_grad_enabled():  # a graph of the gradient is asked for
            grads = pull_back_with_graph(
                lambda z, context, *own: _stepwise(ctx.conditioner, ctx.scalar_map, z, context, own),
                (z, context, *parameters),
                (grad_x, grad_log_slopes),
            )
        else:
            grads = _transposed(ctx, grad_x, grad_log_slopes, z, parameters[::2], seen, before, h)
        return None, None, *grads


def _transposed(
    ctx: Any,
    grad_x: Tensor | None,
    grad_log_slopes: Tensor | None,
    z: Tensor,
    weights: Sequence[Tensor],
    seen: Sequence[Tensor],
    before: Sequence[Tensor],
    h: Tensor,
) -> list[Tensor | None]:
    """The gradients by z, the context, and each weight and bias."""
    conditioner = ctx.conditioner
    offset, top = conditioner.context_features, len(before) - 1
    slope_z, slope_h, pull_z, pull_h = _scalar_derivatives(ctx.scalar_map, z.mT.contiguous(), h, grad_log_slopes)
    v = torch.zeros_like(slope_z) if grad_x is None else grad_x.mT.clone(memory_format=torch.contiguous_format)
    d = [torch.empty_like(a) for a in before]
    pulls = pull_h.flatten(0, 1)

    news = conditioner.news
    parts = [part.split(sizes) for part, sizes in zip(d, news, strict=True)]
    slopes = [_slopes(conditioner.act, a).split(sizes) for a, sizes in zip(before, news, strict=True)]
    columns = [weight.mT.split(sizes) for weight, sizes in zip(weights[1:], news, strict=True)]
    inputs = weights[0][:, offset:].mT
    steps = enumerate(zip(v, pull_h, slope_h, inputs, strict=True))
    for i, (v_i, pull_i, slope_i, input_i) in reversed(list(steps)):
        later = conditioner.known[0][i]
        v_i.addmv_(d[0][later:].mT, input_i[later:])
        pull_i.addcmul_(slope_i, v_i)
        for layer in range(top, -1, -1):
            if not news[layer][i]:
                continue
            if layer == top:
                first, above = conditioner.rows[i].start, pulls
            else:
                first, above = (conditioner.known[layer + 1][i - 1] if i else 0), d[layer + 1]
            part = torch.mm(columns[layer][i][:, first:], above[first:], out=parts[layer][i])
            part *= slopes[layer][i]
            if conditioner.residual and layer < top:
                part += parts[layer + 1][i]
    grad_z = torch.addcmul(pull_z, slope_z, v).mT
    grad_context = (weights[0][:, :offset].mT @ d[0]).mT if ctx.needs_input_grad[3] else None
    grads: list[Tensor | None] = [grad_z, grad_context]
    for layer, cotangent in enumerate([*d, pulls]):
        weight, bias = ctx.needs_input_grad[4 + 2 * layer : 6 + 2 * layer]
        grads += [cotangent @ seen[layer].mT if weight else None, cotangent.sum(-1) if bias else None]
    return grads


def _scalar_derivatives(
    scalar_map: ScalarMap, z: Tensor, h: Tensor, grad_log_slopes: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Slopes of x by z and h, and what the log-slopes' cotangents pull z and h by, for all features at once."""
    inputs = z.detach().requires_grad_(), h.detach().requires_grad_()
    with torch.enable_grad():
        x, log_slopes = scalar_map(inputs[0], inputs[1].mT)
    slope_z, slope_h = torch.autograd.grad(x, inputs, torch.ones_like(x), retain_graph=True)
    if grad_log_slopes is None or not log_slopes.requires_grad:
        pulls = [torch.zeros_like(part) for part in inputs]
    else:
        cotangents = grad_log_slopes.mT
        pulls = list(torch.autograd.grad(log_slopes, inputs, cotangents, materialize_grads=True))
    return slope_z, slope_h, pulls[0], pulls[1].contiguous()


def _slopes(act: Callable[[Tensor], Tensor], a: Tensor) -> Tensor:
    a = a.detach().requires_grad_()
    with torch.enable_grad():
        value = act(a)
    (slope,) = torch.autograd.grad(value, a, torch.ones_like(value))
    return slope
