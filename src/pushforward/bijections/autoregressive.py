"""Autoregressive layers."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pushforward._native import ACTIVATIONS, KernelNetwork, LayerKernel, is_watched, kernels_for
from pushforward.bijections.base import Bijection
from pushforward.nn import MaskedMLP, sequential_map
from pushforward.numerics import broadcast_batch, is_traced
from pushforward.transformers import Transformer


class MaskedAutoregressive(Bijection):
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

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, context = broadcast_batch(z, context)
        return self._by_kernel(self._sequential, z, context) or self._sequential(z, context)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, context = broadcast_batch(x, context)
        return self._by_kernel(self._parallel, x, context) or self._parallel(x, context)

    def _sequential(self, z: Tensor, context: Tensor | None, *own: Tensor) -> tuple[Tensor, Tensor]:
        """From z to x; by torch's operations, as `_parallel`, and from other weights and biases if they are given."""
        parameters = self.conditioner.masked_parameters(own or None)
        x_sorted, log_slope = sequential_map(self.conditioner, self.transformer, self._sorted(z), context, parameters)
        return self._restored(x_sorted), log_slope.sum(-1)

    def _parallel(self, x: Tensor, context: Tensor | None, *own: Tensor) -> tuple[Tensor, Tensor]:
        x_sorted = self._sorted(x)
        h = self.conditioner(x_sorted, context, self.conditioner.masked_parameters(own or None))
        z_sorted, log_slope = self.transformer.inverse(x_sorted, h)
        return self._restored(z_sorted), log_slope.sum(-1)

    def _by_kernel(
        self, formula: Callable[..., tuple[Tensor, Tensor]], value: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor] | None:
        """What the formula gives, by a compiled kernel, or `None` where there is none for it."""
        if is_traced() or not value.numel() or not self.has_kernel:
            return None
        if is_watched(self.conditioner, self.conditioner.act, self.transformer):
            return None
        sequential = formula == self._sequential
        kernel = self.transformer.kernel(not sequential)
        network = self._network_for_kernels()
        own = self.conditioner.weights_and_biases()
        library = kernels_for(value, context, *own)
        if library is None or kernel is None or network is None:
            return None
        structure = "sequential" if sequential else "parallel"
        layer = LayerKernel(library, structure, kernel, network, formula)
        return layer(value, context, own)

    @property
    def has_kernel(self) -> bool:
        """Whether there is a compiled kernel for a layer of this kind."""
        own = self.conditioner
        is_known = type(own) is MaskedMLP and type(own.act) in ACTIVATIONS
        return is_known and self.transformer.kernel(False) is not None

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
