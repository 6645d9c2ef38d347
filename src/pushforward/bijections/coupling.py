"""Coupling layers."""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from pushforward._native import ACTIVATIONS, KernelNetwork, LayerKernel, is_watched
from pushforward.bijections.base import Direction
from pushforward.bijections.kernel_layer import KernelLayer
from pushforward.nn import MLP
from pushforward.numerics import check_sizes, concatenate
from pushforward.transformers import Transformer


class Coupling(KernelLayer):
    """x_A = z_A and x_B = tau(z_B; h(z_A, context)): one part passes and conditions the other.

    Args:
        mask: one truth value per feature; true passes unchanged (A), false is transformed (B).
        transformer: the scalar map tau.
        conditioner: any module that maps `(*batch, len(A) + context_features)` to
            `(*batch, len(B) * transformer.num_params)`, feature by feature; by default an `MLP` that starts at
            the identity.
        context_features: size of the context.
        hidden_features: widths of the default conditioner.
        activation: nonlinearity of the default conditioner.

    Raises:
        ValueError: if the mask transforms nothing, or passes nothing and there is no context.

    References:
        Dinh et al., NICE, 2014, arXiv 1410.8516; Density estimation using Real NVP, 2016, arXiv 1605.08803.

    Example:
        >>> from pushforward.transformers import Affine
        >>> layer = Coupling([True, False, True], Affine(), hidden_features=(16,))
        >>> x, log_det = layer(torch.ones(5, 3))
        >>> x.shape, log_det.shape
        (torch.Size([5, 3]), torch.Size([5]))
    """

    passed: Tensor
    moved: Tensor
    restore: Tensor

    def __init__(
        self,
        mask: Sequence[bool] | Tensor,
        transformer: Transformer,
        *,
        conditioner: nn.Module | None = None,
        context_features: int = 0,
        hidden_features: Sequence[int] = (64, 64),
        activation: type[nn.Module] = nn.SiLU,
    ) -> None:
        super().__init__()
        if isinstance(mask, Tensor) and mask.dim() != 1:
            raise ValueError(f"Coupling: expected one truth value per feature, got a mask of shape {tuple(mask.shape)}")
        self.mask = tuple(bool(m) for m in mask)
        check_sizes("Coupling", len(self.mask), context_features, hidden_features)
        self.transformer = transformer
        self.cheap = transformer.cheap
        self.context_features = context_features
        self.hidden_features = tuple(hidden_features)
        self.activation = activation
        self.event_shape = (len(self.mask),)
        passed = [i for i, m in enumerate(self.mask) if m]
        moved = [i for i, m in enumerate(self.mask) if not m]
        if not moved:
            raise ValueError(f"Coupling: expected a mask with at least one false entry to transform, got {self.mask}")
        if not passed and not context_features:
            raise ValueError(
                f"Coupling: the mask {self.mask} passes no feature and there is no context, so that nothing conditions "
                "the map; use Elementwise"
            )
        if conditioner is None:
            conditioner = MLP(
                len(passed) + context_features,
                len(moved) * transformer.num_params,
                self.hidden_features,
                activation=activation,
            )
            conditioner.start_at_(transformer.identity_params().repeat(len(moved)))
        self.conditioner = conditioner
        self.network: KernelNetwork | None = None
        # Parts that are slices are views; those of any other mask are gathered and put back by index.
        self.slices = _slices(self.mask)
        self.num_params = len(moved) * transformer.num_params
        self.params_shape = (len(moved), transformer.num_params)
        self.register_buffer("passed", torch.tensor(passed, dtype=torch.long), persistent=False)
        self.register_buffer("moved", torch.tensor(moved, dtype=torch.long), persistent=False)
        self.register_buffer("restore", torch.tensor(passed + moved).argsort(), persistent=False)

    def _forward(self, z: Tensor, context: Tensor | None, *own: Tensor) -> tuple[Tensor, Tensor]:
        """By torch's operations, as `_inverse`, and from other weights and biases if they are given."""
        z_passed, z_moved = self._split(z)
        x_moved, log_slope = self.transformer(z_moved, self._params(z_passed, context, *own))
        return self._join(z_passed, x_moved), log_slope.sum(-1)

    def _inverse(self, x: Tensor, context: Tensor | None, *own: Tensor) -> tuple[Tensor, Tensor]:
        x_passed, x_moved = self._split(x)
        z_moved, log_slope = self.transformer.inverse(x_moved, self._params(x_passed, context, *own))
        return self._join(x_passed, z_moved), log_slope.sum(-1)

    def layer_kernel(self, direction: Direction) -> LayerKernel | None:
        conditioner, transformer = self.conditioner, self.transformer
        kernel = transformer.kernel(direction == "inverse")
        if kernel is None or type(conditioner) is not MLP or is_watched(transformer):
            return None
        own = conditioner.weights_and_biases()
        kind = ACTIVATIONS.get(conditioner.activation)
        if not own or kind is None or transformer.num_params != self.params_shape[1]:
            return None
        network = self._network_for_kernels(kind, [weight.shape for weight in own[::2]])
        if network is None:
            return None
        return LayerKernel("coupling", kernel, network, own, self._forward if direction == "forward" else self._inverse)

    def _network_for_kernels(self, activation: int, weight_shapes: list[torch.Size]) -> KernelNetwork | None:
        """What the kernels are told of such a conditioner; `None` for one that is not of this layer's sizes."""
        found = self.network
        if found is None or found.activation != activation or found.weight_shapes != weight_shapes:
            self.network = found = KernelNetwork(
                [i for i, passes in enumerate(self.mask) if not passes],
                [i for i, passes in enumerate(self.mask) if passes],
                self.context_features,
                [shape[0] for shape in weight_shapes[:-1]],
                activation,
                self.params_shape[1],
            )
        return found if found.weight_shapes == weight_shapes else None

    def _params(self, passed: Tensor, context: Tensor | None, *own: Tensor) -> Tensor:
        seen = concatenate(passed, context)
        if own:
            names = [name for name, _ in self.conditioner.named_parameters()]
            h: Tensor = functional_call(self.conditioner, dict(zip(names, own, strict=True)), (seen,))
        else:
            h = self.conditioner(seen)
        if h.shape[-1] != self.num_params:
            moved, each = self.params_shape
            raise ValueError(
                f"Coupling: expected the conditioner to return (*, {self.num_params}), {moved} transformed features "
                f"times {each} parameters each, got {tuple(h.shape)}"
            )
        return h.view(*h.shape[:-1], *self.params_shape)

    def _split(self, value: Tensor) -> tuple[Tensor, Tensor]:
        if self.slices is None:
            return value.index_select(-1, self.passed), value.index_select(-1, self.moved)
        passed, moved = self.slices
        return value[..., passed], value[..., moved]

    def _join(self, passed: Tensor, moved: Tensor) -> Tensor:
        if passed.shape[:-1] != moved.shape[:-1]:
            passed = passed.expand(*moved.shape[:-1], passed.shape[-1])
        if self.slices is None:
            return torch.cat([passed, moved], dim=-1).index_select(-1, self.restore)
        first, second = (passed, moved) if self.mask[0] else (moved, passed)
        if self.slices[0].step is None:
            return torch.cat([first, second], dim=-1)
        if len(self.mask) % 2 == 0:
            return torch.stack([first, second], dim=-1).flatten(-2)
        return torch.stack([first, F.pad(second, (0, 1))], dim=-1).flatten(-2)[..., :-1]


def _slices(mask: tuple[bool, ...]) -> tuple[slice, slice] | None:
    """What passes and what moves, if that is a part before and a part after, or every other feature."""
    n = len(mask)
    first = sum(1 for _ in itertools.takewhile(lambda m: m == mask[0], mask))
    if first == mask.count(mask[0]):
        parts = slice(0, first), slice(first, n)
    elif all(m == mask[i % 2] for i, m in enumerate(mask)):
        parts = slice(0, n, 2), slice(1, n, 2)
    else:
        return None
    return parts if mask[0] else parts[::-1]
