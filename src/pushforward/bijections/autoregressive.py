"""Autoregressive layers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pushforward._native import ACTIVATIONS, KernelNetwork, LayerKernel, is_watched
from pushforward.bijections.base import Direction
from pushforward.bijections.kernel_layer import KernelLayer
from pushforward.nn import MaskedMLP, sequential_map
from pushforward.numerics import broadcast_batch
from pushforward.transformers import Transformer


class MaskedAutoregressive(KernelLayer):
    """x_i = tau(z_i; h_i(x_<i, context)), the masked autoregressive map.

    The inverse, from x to z, is one pass of a masked network. The forward direction finds one feature after the other
    and computes each hidden unit once. Its `.inv` is the inverse autoregressive map, with the costs exchanged.

    Args:
        transformer: the scalar map tau.
        features: size of the event.
        context_features: size of the context.
        hidden_features: widths of the masked network.
        order: the features in the order in which they are generated; by default 0, 1, ...
        activation: nonlinearity of the masked network.
        residual: each hidden layer after the first adds to the one before it.

    References:
        Papamakarios et al., Masked Autoregressive Flow for Density Estimation, 2017, arXiv 1705.07057.
        Kingma et al., Improving Variational Inference with Inverse Autoregressive Flow, 2016, arXiv 1606.04934.

    Example:
        >>> from pushforward.transformers import Affine
        >>> layer = MaskedAutoregressive(Affine(), features=3, hidden_features=(16,), order=[2, 0, 1])
        >>> z, log_det = layer.inverse(torch.ones(5, 3))
        >>> z.shape, log_det.shape
        (torch.Size([5, 3]), torch.Size([5]))
    """

    generation: Tensor
    restore: Tensor

    def __init__(
        self,
        transformer: Transformer,
        features: int,
        *,
        context_features: int = 0,
        hidden_features: Sequence[int] = (64, 64),
        order: Sequence[int] | None = None,
        activation: type[nn.Module] = nn.SiLU,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self._set_sizes(features, context_features, hidden_features)
        self.transformer = transformer
        self.cheap = "neither" if transformer.cheap == "forward" else "inverse"
        self.order = tuple(range(features)) if order is None else tuple(int(i) for i in order)
        self.activation = activation
        self.residual = residual
        if sorted(self.order) != list(range(features)):
            raise ValueError(
                f"MaskedAutoregressive: expected order to be a permutation of 0, ..., {features - 1}, got {self.order}"
            )
        self.conditioner = MaskedMLP(
            features,
            transformer.num_params,
            self.hidden_features,
            context_features=context_features,
            activation=activation,
            residual=residual,
        )
        self.conditioner.start_at_(transformer.identity_params().repeat(features))
        self.networks: dict[tuple[object, ...], KernelNetwork] = {}
        self.is_sorted = self.order == tuple(range(features))
        self.register_buffer("generation", torch.tensor(self.order), persistent=False)
        self.register_buffer("restore", torch.tensor(self.order).argsort(), persistent=False)

    def _forward(self, z: Tensor, context: Tensor | None, *own: Tensor) -> tuple[Tensor, Tensor]:
        z, context = broadcast_batch(z, context)
        parameters = self.conditioner.masked_parameters(own or None)
        x_sorted, log_slope = sequential_map(self.conditioner, self.transformer, self._sorted(z), context, parameters)
        return self._restored(x_sorted), log_slope.sum(-1)

    def _inverse(self, x: Tensor, context: Tensor | None, *own: Tensor) -> tuple[Tensor, Tensor]:
        x, context = broadcast_batch(x, context)
        x_sorted = self._sorted(x)
        h = self.conditioner(x_sorted, context, self.conditioner.masked_parameters(own or None))
        z_sorted, log_slope = self.transformer.inverse(x_sorted, h)
        return self._restored(z_sorted), log_slope.sum(-1)

    def layer_kernel(self, direction: Direction) -> LayerKernel | None:
        conditioner = self.conditioner
        if type(conditioner) is not MaskedMLP or type(conditioner.act) not in ACTIVATIONS:
            return None
        kernel, network = self.transformer.kernel(direction == "inverse"), self._network_for_kernels()
        if kernel is None or network is None or is_watched(conditioner, conditioner.act, self.transformer):
            return None
        own = conditioner.weights_and_biases()
        if direction == "forward":
            return LayerKernel("sequential", kernel, network, own, self._forward)
        return LayerKernel("parallel", kernel, network, own, self._inverse)

    def _sorted(self, value: Tensor) -> Tensor:
        """The features in the order of their generation."""
        return value if self.is_sorted else value.index_select(-1, self.generation)

    def _restored(self, value: Tensor) -> Tensor:
        return value if self.is_sorted else value.index_select(-1, self.restore)

    def _network_for_kernels(self) -> KernelNetwork | None:
        """What the kernels are told of the network as it is now; `None` for one that is not of this layer's sizes."""
        own = self.conditioner
        sizes = own.features, own.context_features, own.out_features, own.in_sizes
        if sizes != (self.features, self.context_features, self.transformer.num_params, None):
            return None
        activation = ACTIVATIONS[type(own.act)]
        key = activation, own.residual, own.hidden_features, *sizes
        if key not in self.networks:
            self.networks[key] = KernelNetwork(
                self.order,
                (),
                own.context_features,
                own.hidden_features,
                activation,
                self.transformer.num_params,
                own.residual,
                own.known,
            )
        return self.networks[key]
