"""The loss of a batch and its gradient."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value

from pushforward._native import parameters_apart
from pushforward.objectives import Objective
from pushforward.training.flat import FlatParameters


def gradient_function(objective: Objective, flat: FlatParameters | None = None) -> Callable[..., Tensor]:
    """A function of a batch that sets the gradients of the parameters and returns the loss.

    For a flow on which `compile` was called, and an objective that is one function of its batch, loss and gradient are
    one compiled graph. For other flows, of what kernels compute the gradients go to the parameters without autograd's
    bookkeeping; hooks of parameters are called as ever.

    Args:
        objective: the loss; the function takes what its `forward` does.
        flat: its parameters in one piece, if the optimiser is to have them so: gradients are then parts of one, and the
            next call writes over them.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> flow = pf.maf(features=2)
        >>> gradient = pf.training.gradient_function(pf.MaximumLikelihood(flow))
        >>> optimizer = torch.optim.Adam(flow.parameters(), fused=True)
        >>> for _ in range(3):
        ...     loss = gradient(torch.ones(5, 2))
        ...     optimizer.step()
        >>> round(loss.item(), 2)
        2.75
    """
    options = objective.compiled_with
    if options is None:
        return eager_gradient_function(objective, flat)

    parameters = {name: p for name, p in objective.named_parameters() if p.requires_grad}

    def loss(given: dict[str, Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        value: Tensor = functional_call(objective, given, args, kwargs)
        return value

    compiled = torch.compile(grad_and_value(loss), **options)

    def gradient(*args: Any, **kwargs: Any) -> Tensor:
        grads, value = compiled({name: p.detach() for name, p in parameters.items()}, args, kwargs)
        for name, p in parameters.items():
            p.grad = grads[name]
        result: Tensor = value
        return result

    return gradient if flat is None else _gathered(gradient, flat)


def eager_gradient_function(loss: nn.Module, flat: FlatParameters | None = None) -> Callable[..., Tensor]:
    """The same by `backward`, for any loss, and of the parameters that it has now."""
    parameters = list(loss.parameters())  # a module's own `zero_grad` looks for them each time
    places = {} if flat is None else flat.places
    is_pure = isinstance(loss, Objective) and loss.is_pure

    def gradient(*args: Any, **kwargs: Any) -> Tensor:
        for p in parameters:
            p.grad = None
        with parameters_apart(places) if is_pure else nullcontext():
            value: Tensor = loss(*args, **kwargs)
        value.backward()
        return value.detach()

    return gradient if flat is None else _gathered(gradient, flat)


def _gathered(gradient: Callable[..., Tensor], flat: FlatParameters) -> Callable[..., Tensor]:
    def gathered(*args: Any, **kwargs: Any) -> Tensor:
        flat.check()
        value = gradient(*args, **kwargs)
        flat.gather()
        return value

    return gathered
