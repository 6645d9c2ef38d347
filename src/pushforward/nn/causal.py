"""Causal transformers: the output of token i sees only the tokens before i."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pushforward.nn.mlp import MLP

Cache = tuple[Tensor, Tensor]


class CausalTransformer(nn.Module):
    """Causal transformer: `out_features` numbers per token i, functions of the tokens < i and the context.

    Tokens and context are embedded and added to a learned embedding of the position; then blocks of attention and a
    feed-forward layer follow, each after a normalisation of its input (pre-norm).

    Args:
        tokens: number of tokens.
        in_features: numbers per token in the input.
        out_features: numbers per token in the output.
        hidden_features: widths of the feed-forward layers, one per block, at least one; also the hidden widths of the
            context's embedding.
        width: size of the embeddings.
        heads: number of attention heads, a divisor of `width`.
        context_features: size of the context, which every output may see.
        activation: class of the nonlinearity of the feed-forward layers.

    Reference:
        Zhai et al., Normalizing Flows are Capable Generative Models, 2024, arXiv 2412.06329.

    Example:
        >>> CausalTransformer(5, 2, 4, (16,), width=8, heads=2)(torch.zeros(7, 5, 2)).shape
        torch.Size([7, 5, 4])
    """

    def __init__(
        self,
        tokens: int,
        in_features: int,
        out_features: int,
        hidden_features: Sequence[int] = (64, 64),
        *,
        width: int = 64,
        heads: int = 4,
        context_features: int = 0,
        activation: type[nn.Module] = nn.SiLU,
    ) -> None:
        super().__init__()
        if not hidden_features:
            raise ValueError("CausalTransformer: expected at least one block, got hidden_features=()")
        if heads < 1 or width % heads:
            raise ValueError(f"CausalTransformer: expected heads to divide width = {width}, got heads={heads}")
        self.tokens = tokens
        self.in_features = in_features
        self.out_features = out_features
        self.hidden_features = tuple(hidden_features)
        self.width = width
        self.heads = heads
        self.context_features = context_features
        self.activation = activation
        self.position = nn.Parameter(0.1 * torch.randn(tokens, width))
        self.token = nn.Linear(in_features, width, bias=False)
        self.context: MLP | None = None
        if context_features:
            self.context = MLP(context_features, width, self.hidden_features, activation=activation)
        self.blocks = nn.ModuleList([_Block(width, heads, n, activation) for n in self.hidden_features])
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, out_features)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The parameters, `(*batch, tokens, out_features)`, of `x`, `(*batch, tokens, in_features)`, and `context`."""
        a = F.pad(self.token(x[..., :-1, :]), (0, 0, 1, 0)) + self.position
        if self.context is not None:
            a = a + self.context(context).unsqueeze(-2)
        for block in self.blocks:
            a, _ = block(a)
        out: Tensor = self.output(self.norm(a))
        return out

    def sequentially(self, emit: Callable[[int, Tensor], Tensor], like: Tensor, context: Tensor | None = None) -> None:
        """Evaluate one token after the other, with the keys and values of the earlier ones kept.

        Args:
            emit: called for i = 0, 1, ... with i and the parameters of token i, `(*batch, out_features)`; answers with
                the value of token i, `(*batch, in_features)`.
            like: any tensor of shape `(*batch, n)`, for batch shape, dtype and device.
            context: `(*batch, context_features)`.
        """
        start = self.position.expand(*like.shape[:-1], -1, -1)
        if self.context is not None:
            start = start + self.context(context).unsqueeze(-2)
        caches: list[Cache | None] = [None] * len(self.blocks)
        value: Tensor | None = None
        for i in range(self.tokens):
            a = start[..., i : i + 1, :]
            if value is not None:
                a = a + self.token(value).unsqueeze(-2)
            for k, block in enumerate(self.blocks):
                a, caches[k] = block(a, caches[k])
            value = emit(i, self.output(self.norm(a)).squeeze(-2))

    @torch.no_grad()
    def start_at_(self, output: Tensor) -> None:
        """Make the network answer `output`, shape `(out_features,)`, for every token until it is trained."""
        self.output.weight.zero_()
        self.output.bias.copy_(output)


class _Block(nn.Module):
    """Attention to the present and earlier tokens, then a feed-forward layer, each added to the stream."""

    def __init__(self, width: int, heads: int, hidden: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.join = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(nn.LayerNorm(width), MLP(width, width, (hidden,), activation=activation))

    def forward(self, a: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """The stream, `(*batch, n, width)`, and all keys and values, given those of the tokens before."""
        packed = self.query_key_value(self.norm(a)).unflatten(-1, (3, self.heads, -1))
        query, key, value = packed.movedim(-2, -4).unbind(-2)  # each (*batch, heads, n, width / heads)
        if cache is not None:
            key = torch.cat([cache[0], key], dim=-2)
            value = torch.cat([cache[1], value], dim=-2)
        # By hand, since torch's fused attention has no second derivatives.
        score = query @ key.mT / math.sqrt(query.shape[-1])
        n, m = score.shape[-2:]
        later = torch.ones(n, m, dtype=torch.bool, device=a.device).triu(m - n + 1)
        attended = score.masked_fill(later, -math.inf).softmax(-1) @ value
        a = a + self.join(attended.transpose(-3, -2).flatten(-2))
        return a + self.feed_forward(a), (key, value)
