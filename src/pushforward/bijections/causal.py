"""Autoregressive layers with a causal transformer."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pushforward.bijections.base import Bijection
from pushforward.nn import CausalTransformer
from pushforward.numerics import broadcast_batch, check_sizes
from pushforward.transformers import Transformer


class TransformerAutoregressive(Bijection):
    """x_i = tau(z_i; h_i(x_<i, context)) for tokens i, elementwise within a token, with a causal transformer h.

    The inverse, from x to z, is one pass. The forward direction finds one token after the other, and keeps the keys
    and values of the earlier ones. Starts at the identity.

    Args:
        transformer: the scalar map tau.
        event_shape: `(tokens, channels)` for a sequence; a number n, or `(n,)`, for a vector.
        channels: for a vector, how many features in a row make one token, by default 1; a divisor of n.
        context_features: size of the context.
        hidden_features: widths of the feed-forward layers, one per block.
        width: size of the embeddings.
        heads: number of attention heads, a divisor of `width`.
        order: the tokens in the order in which they are generated; by default 0, 1, ...
        activation: nonlinearity of the feed-forward layers.

    Reference:
        Zhai et al., Normalizing Flows are Capable Generative Models, 2024, arXiv 2412.06329.

    Example:
        >>> from pushforward.transformers import Affine
        >>> layer = TransformerAutoregressive(Affine(), (4, 3), hidden_features=(16,), width=8, heads=2)
        >>> z, log_det = layer.inverse(torch.ones(5, 4, 3))
        >>> z.shape, log_det.shape
        (torch.Size([5, 4, 3]), torch.Size([5]))
    """

    cheap = "inverse"
    event_shape: tuple[int, ...]
    generation: Tensor
    restore: Tensor

    def __init__(
        self,
        transformer: Transformer,
        event_shape: int | Sequence[int],
        *,
        channels: int | None = None,
        context_features: int = 0,
        hidden_features: Sequence[int] = (64, 64),
        width: int = 64,
        heads: int = 4,
        order: Sequence[int] | None = None,
        activation: type[nn.Module] = nn.SiLU,
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.event_shape = (event_shape,) if isinstance(event_shape, int) else tuple(event_shape)
        self.event_dim = len(self.event_shape)
        if self.event_dim not in (1, 2) or min(self.event_shape) < 1:
            raise ValueError(
                f"TransformerAutoregressive: expected an event shape (features,) or (tokens, channels), "
                f"got {self.event_shape}"
            )
        size = self.event_shape[-1]
        check_sizes("TransformerAutoregressive", size, context_features, hidden_features)
        self.channels = channels
        self.context_features = context_features
        self.hidden_features = tuple(hidden_features)
        self.width = width
        self.heads = heads
        self.activation = activation
        if self.event_dim == 2:
            self.per_token = size
            if channels not in (None, size):
                raise ValueError(
                    f"TransformerAutoregressive: expected channels to be left out, or {size} as in the event shape "
                    f"{self.event_shape}, got {channels}"
                )
        else:
            self.per_token = 1 if channels is None else channels
            if self.per_token < 1 or size % self.per_token:
                raise ValueError(
                    f"TransformerAutoregressive: expected channels to divide the {size} features, got {channels}"
                )
        tokens = self.event_shape[0] if self.event_dim == 2 else size // self.per_token
        self.order = tuple(range(tokens)) if order is None else tuple(int(i) for i in order)
        if sorted(self.order) != list(range(tokens)):
            raise ValueError(
                f"TransformerAutoregressive: expected order to be a permutation of the tokens 0, ..., {tokens - 1}, "
                f"got {self.order}"
            )
        self.conditioner = CausalTransformer(
            tokens,
            self.per_token,
            self.per_token * transformer.num_params,
            self.hidden_features,
            width=width,
            heads=heads,
            context_features=context_features,
            activation=activation,
        )
        self.conditioner.start_at_(transformer.identity_params().repeat(self.per_token))
        self.register_buffer("generation", torch.tensor(self.order), persistent=False)
        self.register_buffer("restore", torch.tensor(self.order).argsort(), persistent=False)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, context = broadcast_batch(z, context, self.event_dim)
        z_sorted = self._sorted_tokens(z)
        tokens: list[Tensor] = []
        log_slopes: list[Tensor] = []

        def emit(i: int, h: Tensor) -> Tensor:
            x: Tensor
            x, log_slope = self.transformer(z_sorted[..., i, :], self._split(h))
            tokens.append(x)
            log_slopes.append(log_slope)
            return x

        self.conditioner.sequentially(emit, z_sorted[..., 0], context)
        x = self._restored(torch.stack(tokens, dim=-2), z)
        return x, torch.stack(log_slopes, dim=-2).sum((-2, -1))

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, context = broadcast_batch(x, context, self.event_dim)
        x_sorted = self._sorted_tokens(x)
        h = self._split(self.conditioner(x_sorted, context))
        z_sorted, log_slope = self.transformer.inverse(x_sorted, h)
        return self._restored(z_sorted, x), log_slope.sum((-2, -1))

    def _sorted_tokens(self, value: Tensor) -> Tensor:
        """`(*batch, *event_shape)` as `(*batch, tokens, channels)`, in the order of generation."""
        tokens = value.unflatten(-1, (-1, self.per_token)) if self.event_dim == 1 else value
        return tokens.index_select(-2, self.generation)

    def _restored(self, tokens: Tensor, like: Tensor) -> Tensor:
        return tokens.index_select(-2, self.restore).reshape(like.shape)

    def _split(self, h: Tensor) -> Tensor:
        params: Tensor = h.unflatten(-1, (self.per_token, self.transformer.num_params))
        return params
