"""Parameters in one piece of memory, for optimisers."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from types import TracebackType

import torch
from torch import Tensor, nn

ALIGNMENT = 64  # bytes: every part starts where a vector may


class FlatParameters:
    """Parameters as parts of one, and their gradients as parts of its gradient.

    An optimiser that treats each number by itself, as Adam does, then goes through one tensor instead of many. To one
    that looks at shapes, or at which parameter is which, give the parameters. As a context manager it gives them memory
    of their own again at the end.

    Args:
        parameters: those that require a gradient become parts. They stay the tensors that they are, but for their
            memory; frozen ones are left alone.

    Attributes:
        parts: the parameters that are trained.
        wholes: for each dtype and device one parameter of shape `(n,)`, in whose memory they are, with a few zeros
            between; to be given to the optimiser.
        places: of each part, by `id`, the memory of its gradient.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> flow = pf.maf(features=2)
        >>> flat = pf.training.FlatParameters(flow.parameters())
        >>> gradient = pf.training.gradient_function(pf.MaximumLikelihood(flow), flat)
        >>> optimizer = torch.optim.Adam(flat.wholes, fused=True)
        >>> for _ in range(3):
        ...     loss = gradient(torch.ones(5, 2))
        ...     optimizer.step()
        >>> round(loss.item(), 2)
        2.75
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self.parts = [parameter for parameter in parameters if parameter.requires_grad]
        self.wholes: list[nn.Parameter] = []
        self.places: dict[int, Tensor] = {}
        self._gradients: list[Tensor] = []
        for _, group in groupby(sorted(self.parts, key=_kind), key=_kind):
            self._join(list(group))
        self._addresses = [part.data_ptr() for part in self.parts]

    @torch.no_grad()
    def _join(self, parts: list[Tensor]) -> None:
        sizes = [part.numel() for part in parts]
        step = ALIGNMENT // parts[0].element_size()
        padded = [-(-size // step) * step for size in sizes]
        whole = nn.Parameter(parts[0].new_zeros(sum(padded)))
        gradient = torch.zeros_like(whole)
        for part, size, own, place in zip(parts, sizes, whole.split(padded), gradient.split(padded), strict=True):
            memory = own[:size].view(part.shape)
            memory.copy_(part)
            part.data = memory
            self.places[id(part)] = place[:size].view(part.shape)
        self.wholes.append(whole)
        self._gradients.append(gradient)

    def check(self) -> None:
        """Raise a `RuntimeError` if a parameter is no longer what the optimiser of `wholes` changes."""
        if [part.data_ptr() for part in self.parts] != self._addresses:
            raise RuntimeError(
                "FlatParameters: expected parameters that keep their memory, but one was moved, as by `to`; make "
                "the flat parameters and their optimiser after that"
            )

    def gather(self) -> None:
        """Let the gradient of each part be a part of the gradient of the whole; zero where it has none.

        Raises:
            RuntimeError: if a part was frozen, which an optimiser of the whole would not see.
        """
        elsewhere = [part for part in self.parts if part.grad is not self.places[id(part)]]
        if elsewhere:
            if not all(part.requires_grad for part in elsewhere):
                raise RuntimeError(
                    "FlatParameters: expected parameters that require a gradient all along, but one was frozen; freeze "
                    "it before, or let the optimiser have the parameters themselves (`optimizer` of `train`)"
                )
            places = [self.places[id(part)] for part in elsewhere]
            pairs = zip(elsewhere, places, strict=True)
            torch._foreach_copy_(places, [torch.zeros_like(at) if p.grad is None else p.grad for p, at in pairs])
            for part, place in zip(elsewhere, places, strict=True):
                part.grad = place
        for whole, gradient in zip(self.wholes, self._gradients, strict=True):
            whole.grad = gradient
        # What is done to the whole is not counted for its parts, and graphs and caches from before a step must see it.
        torch.autograd.graph.increment_version(self.parts)

    def __enter__(self) -> FlatParameters:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for part in self.parts:
            part.data, part.grad = part.data.clone(), None


def _kind(part: Tensor) -> tuple[str, str]:
    return str(part.dtype), str(part.device)
