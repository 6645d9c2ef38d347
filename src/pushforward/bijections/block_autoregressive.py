"""Block neural autoregressive layers."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from pushforward.bijections.base import Bijection
from pushforward.nn import Parameters
from pushforward.numerics import broadcast_batch, solve_increasing, unaliased

LOG_GAIN = 5.0
Offset = Callable[[int, Tensor], Tensor]


class BlockAutoregressive(Bijection):
    r"""x_i = f_i(z_1, ..., z_i), increasing in z_i: one network whose weights are block-lower-triangular.

    Each feature has its block of hidden units. With W the diagonal blocks of a layer, which are positive, k the sums of
    their rows and V the blocks below, its units are a' = (W a + (g - 1) tanh(W a + V a + b)) / k, with g from e^-5 to
    e^5, and x = e^s W a / k + V a + b after the last. The tanh alone would be bounded; with the linear part every f_i
    has slope e^{s_i} far out, and the map is onto. The log-determinant multiplies the positive blocks in log space.

    `forward` is one pass of the network. The inverse finds one feature after the other, each by one scalar root within
    a known bracket, and computes each hidden unit's part of the others once. Flows for data use `.inv`. A context
    enters through b, g and s. Starts at the identity, with g = 1, s = 0 and V = 0 after the last hidden layer.

    Args:
        features: size of the event.
        hidden: units per feature of each hidden layer, at least one layer.
        context_features: size of the context.
        hidden_features: widths of the network that makes b, g and s from the context.
        order: the features in the order in which they are computed; by default 0, 1, ...

    Raises:
        ValueError: if a hidden layer is missing or empty, or order is no permutation of the features.

    Reference:
        De Cao et al., Block Neural Autoregressive Flow, 2019, arXiv 1904.04676.

    Example:
        >>> layer = BlockAutoregressive(3, hidden=(4, 4))
        >>> x, log_det = layer(torch.ones(5, 3))
        >>> x.shape, log_det.shape
        (torch.Size([5, 3]), torch.Size([5]))
    """

    cheap = "forward"
    sorting: Tensor
    restore: Tensor

    def __init__(
        self,
        features: int,
        hidden: Sequence[int] = (32, 32),
        *,
        context_features: int = 0,
        hidden_features: Sequence[int] = (64, 64),
        order: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self._set_sizes(features, context_features, hidden_features)
        self.hidden = tuple(hidden)
        self.order = tuple(range(features)) if order is None else tuple(int(i) for i in order)
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(
                f"BlockAutoregressive: expected hidden layers of at least one unit per feature, got {self.hidden}"
            )
        if sorted(self.order) != list(range(features)):
            raise ValueError(
                f"BlockAutoregressive: expected order to be a permutation of 0, ..., {features - 1}, got {self.order}"
            )
        d, units = features, sum(self.hidden)
        blocks, below = [], []
        for k, (n, m) in enumerate(pairwise([1, *self.hidden, 1])):
            last = k == len(self.hidden)
            blocks.append(0.5 * torch.randn(d, m, n) - torch.tensor(float(n)).log())
            below.append(torch.zeros(d, m, d, n) if last else torch.randn(d, m, d, n) / (d * n) ** 0.5)
            mask = torch.ones(d, d).tril(-1)[:, None, :, None].expand(d, m, d, n).reshape(d * m, d * n)
            self.register_buffer(f"mask_{k}", mask, persistent=False)
        # Logarithms of the diagonal blocks, and what is below them: constants.
        self.weights = Parameters([*blocks, *below])
        # b and the raw g of the hidden units, b and s of the output.
        start = [2 * torch.randn(d, units), torch.zeros(d, units), torch.zeros(d), torch.zeros(d)]
        self.params = Parameters(start, context_features, hidden_features)
        self.register_buffer("sorting", torch.tensor(self.order), persistent=False)
        self.register_buffer("restore", torch.tensor(self.order).argsort(), persistent=False)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, context = broadcast_batch(z, context)
        net = _Network(self, context)

        def offset(layer: int, a: Tensor) -> Tensor:
            below = F.linear(a.flatten(-2), net.below[layer]).unflatten(-1, (self.features, -1))
            preactivation: Tensor = below + net.bias[layer]
            return preactivation

        x, log_slope, _ = net.evaluate(z.index_select(-1, self.sorting), slice(None), offset)
        return x.index_select(-1, self.restore), log_slope.sum(-1)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, context = broadcast_batch(x, context)
        net = _Network(self, context)
        x = x.index_select(-1, self.sorting)
        # The units of the features that are known, layer by layer.
        known = [x.new_empty((*x.shape[:-1], 0)) for _ in net.below]
        found: list[Tensor] = []
        log_slopes: list[Tensor] = []
        for i in range(self.features):
            one = slice(i, i + 1)
            offsets = []
            for a, below, bias in zip(known, net.below, net.bias, strict=True):
                m = bias.shape[-1]
                part = F.linear(a, below[i * m : (i + 1) * m, : a.shape[-1]]).unsqueeze(-2)
                offsets.append(part + bias[..., one, :])
            z, log_slope, states = self._solve(net, x[..., one], one, offsets)
            known = [torch.cat([a, state.squeeze(-2)], dim=-1) for a, state in zip(known, states, strict=True)]
            found.append(z)
            log_slopes.append(log_slope)
        z = torch.cat(found, dim=-1).index_select(-1, self.restore)
        return z, -torch.cat(log_slopes, dim=-1).sum(-1)

    def _solve(
        self, net: "_Network", x: Tensor, one: slice, offsets: list[Tensor]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The z of one feature, `(*batch, 1)`, its log slope there, and its units."""

        def function(z: Tensor) -> tuple[Tensor, Tensor]:
            value, log_slope, _ = net.evaluate(z, one, lambda layer, a: offsets[layer])
            return value, log_slope.exp()

        centre = (x - offsets[-1].squeeze(-1)) * (-net.log_scale[..., one]).exp()
        centre, reach = torch.broadcast_tensors(centre, net.reach()[..., one])
        z = solve_increasing(function, x, centre - reach, centre + reach, start=centre)
        return z, *net.evaluate(z, one, lambda layer, a: offsets[layer])[1:]


class _Network:
    """The weights of a `BlockAutoregressive`, given a context, and what they compute.

    Attributes:
        shares: W / k, the positive blocks with rows that sum to 1, `(features, m, n)` per layer.
        sums: k, `(features, m)` per layer.
        below: V, `(features * m, features * n)` per layer.
        bias: b, `(*batch, features, m)` per layer.
        gain: g, `(*batch, features, m)` per hidden layer.
        log_scale: s, `(*batch, features)`.
    """

    def __init__(self, layer: BlockAutoregressive, context: Tensor | None) -> None:
        count = len(layer.hidden) + 1
        weights = layer.weights()
        self.shares = [block.softmax(-1) for block in weights[:count]]
        self.sums = [block.exp().sum(-1) for block in weights[:count]]
        self.below = [
            block.reshape(mask.shape) * mask
            for block, mask in zip(weights[count:], (layer.get_buffer(f"mask_{k}") for k in range(count)), strict=True)
        ]
        bias, raw_gain, last, self.log_scale = layer.params(context)
        self.bias = [*bias.split(layer.hidden, dim=-1), last.unsqueeze(-1)]
        # Fast, since a gap between modes takes gains that are far from 1.
        self.gain = unaliased((LOG_GAIN * torch.tanh(raw_gain)).exp().split(layer.hidden, dim=-1))

    def evaluate(self, z: Tensor, which: slice, offset: Offset) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Values and log slopes of some features, `(*batch, n)` each, and the inputs of each layer, `(*batch, n, m)`.

        Args:
            z: shape `(*batch, n)`.
            which: the n features.
            offset: given a layer and its input, what the features before and the bias add, `(*batch, n, m)`.
        """
        a = z.unsqueeze(-1)
        log_slope = torch.zeros_like(a)
        states = [a]
        for layer, gain in enumerate(self.gain):
            share, total, g = self.shares[layer][which], self.sums[layer][which], gain[..., which, :]
            mean = _product(share, a)
            t = torch.tanh(total * mean + offset(layer, a))
            squared = t.square()
            a = mean + (g - 1) / total * t
            log_slope = _log_product(share, log_slope) + (squared + g * (1 - squared)).log()
            states.append(a)
        share, log_scale = self.shares[-1][which], self.log_scale[..., which]
        value = log_scale.exp() * _product(share, a).squeeze(-1) + offset(len(self.gain), a).squeeze(-1)
        return value, log_scale + _log_product(share, log_slope).squeeze(-1), states

    def reach(self) -> Tensor:
        """How far a feature's root can be from where its linear part puts it, `(*batch, features)`: |tanh| < 1."""
        reach = torch.zeros_like(self.gain[0][..., :1])
        for share, total, gain in zip(self.shares, self.sums, self.gain, strict=False):
            reach = _product(share, reach) + (gain - 1).abs() / total
        return _product(self.shares[-1], reach).squeeze(-1)


def _product(blocks: Tensor, a: Tensor) -> Tensor:
    """`(n, m, k)` times `(*batch, n, k)`, feature by feature."""
    return torch.einsum("nmk,...nk->...nm", blocks, a)


def _log_product(blocks: Tensor, log_a: Tensor) -> Tensor:
    """The logarithm of blocks times exp(log_a)."""
    top = log_a.detach().amax(-1, keepdim=True)
    return _product(blocks, (log_a - top).exp()).log() + top
