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


def gradient_function(objective: Objective) -> Callable[..., Tensor]:
    """A function of a batch that sets the gradients of the parameters and returns the loss.

    For a flow on which `compile` was called, and an objective that is one function of its batch, loss and gradient are
    one compiled graph. For other flows, of what kernels compute the gradients go to the parameters without autograd's
    bookkeeping; hooks of parameters are called as ever.

    Args:
        objective: the loss; the function takes what its `forward` does.

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
        return eager_gradient_function(objective)

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

    return gradient


def eager_gradient_function(loss: nn.Module) -> Callable[..., Tensor]:
    """The same by `backward`, for any loss, and of the parameters that it has now."""
    parameters = list(loss.parameters())  # a module's own `zero_grad` looks for them each time
    graph = parameters_apart if isinstance(loss, Objective) and loss.is_pure else nullcontext

    def gradient(*args: Any, **kwargs: Any) -> Tensor:
        for p in parameters:
            p.grad = None
        with graph():
            value: Tensor = loss(*args, **kwargs)
        value.backward()
        return value.detach()

    return gradient
