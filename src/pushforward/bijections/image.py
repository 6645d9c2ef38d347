"""Layers for images, events of shape (channels, height, width)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pushforward.bijections.base import Bijection
from pushforward.bijections.compose import _agreed, _cheap
from pushforward.bijections.linear import LU
from pushforward.bijections.parts import insert_dims
from pushforward.nn import ConvNet
from pushforward.numerics import broadcast_batch, check_count
from pushforward.transformers import Transformer

Shape = tuple[int, ...]


class Squeeze(Bijection):
    """Blocks of 2 x 2 pixels become 4 channels: (C, H, W) to (4C, H/2, W/2). Its `.inv` makes pixels of channels.

    Args:
        channels: C.
        height: H, even.
        width: W, even.

    Raises:
        ValueError: if H or W is odd.

    Reference:
        Dinh et al., Density estimation using Real NVP, 2016, arXiv 1605.08803.

    Example:
        >>> Squeeze(1, 2, 2)(torch.arange(4.0).reshape(1, 2, 2))[0].flatten()
        tensor([0., 1., 2., 3.])
    """

    event_dim = 3

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        if min(channels, height, width) < 1 or height % 2 or width % 2:
            raise ValueError(
                f"Squeeze: expected channels >= 1 and even height and width, got ({channels}, {height}, {width})"
            )
        self.channels = channels
        self.height = height
        self.width = width
        self.event_shape = (channels, height, width)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        c, h, w = z.shape[-3:]
        blocks = z.reshape(*z.shape[:-3], c, h // 2, 2, w // 2, 2)
        x = blocks.movedim((-3, -1), (-4, -3)).reshape(self.forward_shape(z.shape))
        return x, z.new_zeros(z.shape[:-3])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        c, h, w = x.shape[-3:]
        blocks = x.reshape(*x.shape[:-3], c // 4, 2, 2, h, w)
        z = blocks.movedim((-4, -3), (-3, -1)).reshape(self.inverse_shape(x.shape))
        return z, x.new_zeros(x.shape[:-3])

    def forward_shape(self, shape: Shape) -> Shape:
        c, h, w = shape[-3:]
        return (*shape[:-3], 4 * c, h // 2, w // 2)

    def inverse_shape(self, shape: Shape) -> Shape:
        c, h, w = shape[-3:]
        return (*shape[:-3], c // 4, 2 * h, 2 * w)


class Pixelwise(Bijection):
    """x[:, i, j] = f(z[:, i, j]): the same map of the channels at every pixel, with `ActNorm` one scale per channel.

    Args:
        bijection: f, of events of shape (channels,).
        height: number of rows.
        width: number of columns.

    Example:
        >>> from pushforward.bijections import ActNorm
        >>> Pixelwise(ActNorm(3), 4, 4)(torch.zeros(5, 3, 4, 4))[1].shape
        torch.Size([5])
    """

    event_dim = 3

    def __init__(self, bijection: Bijection, height: int, width: int) -> None:
        super().__init__()
        if bijection.event_shape is None or len(bijection.event_shape) != 1 or bijection.data_dim != 1:
            raise ValueError(
                f"Pixelwise: expected a bijection of events of shape (channels,), got {type(bijection).__name__} of "
                f"{bijection.event_shape}"
            )
        if min(height, width) < 1:
            raise ValueError(f"Pixelwise: expected height and width >= 1, got {height} and {width}")
        self.bijection = bijection
        self.height = height
        self.width = width
        self.event_shape = (*bijection.event_shape, height, width)
        self.context_features = bijection.context_features
        self.cheap = bijection.cheap

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, log_det = self.bijection(z.movedim(-3, -1), insert_dims(context, 2))
        return x.movedim(-1, -3), log_det.sum((-2, -1))

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_det = self.bijection.inverse(x.movedim(-3, -1), insert_dims(context, 2))
        return z.movedim(-1, -3), log_det.sum((-2, -1))

    def forward_shape(self, shape: Shape) -> Shape:
        return (*shape[:-3], *self.bijection.forward_shape((shape[-3],)), *shape[-2:])

    def inverse_shape(self, shape: Shape) -> Shape:
        return (*shape[:-3], *self.bijection.inverse_shape((shape[-3],)), *shape[-2:])

    def initialize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.bijection.initialize(x.movedim(-3, -1), insert_dims(context, 2)).movedim(-1, -3)


class InvertibleConv(Pixelwise):
    """Invertible 1 x 1 convolution, x[:, i, j] = L U z[:, i, j] + b: an `LU` of the channels at every pixel.

    Starts at the identity.

    Args:
        channels: number of channels.
        height: number of rows.
        width: number of columns.
        context_features: size of the context.
        hidden_features: widths of the network that makes L, U and b from the context.

    Reference:
        Kingma and Dhariwal, Glow: Generative Flow with Invertible 1x1 Convolutions, 2018, arXiv 1807.03039.

    Example:
        >>> InvertibleConv(3, 4, 4)(torch.zeros(5, 3, 4, 4))[0].shape
        torch.Size([5, 3, 4, 4])
    """

    def __init__(
        self,
        channels: int,
        height: int,
        width: int,
        *,
        context_features: int = 0,
        hidden_features: Sequence[int] = (64, 64),
    ) -> None:
        super().__init__(
            LU(channels, context_features=context_features, hidden_features=hidden_features), height, width
        )
        self.channels = channels
        self.hidden_features = tuple(hidden_features)


class ImageCoupling(Bijection):
    """x_A = z_A and x_B = tau(z_B; h(z_A, context)) for two parts A and B of the pixels and channels.

    The conditioner sees the channels that have a pixel in A, with zeros in place of B, and the context as further
    channels of one value each.

    Args:
        mask: truth values, shape (channels, height, width); true passes unchanged (A), false is transformed (B).
            `checkerboard_mask` and `channel_mask` make the usual ones.
        transformer: the scalar map tau.
        conditioner: any module that maps `(n, channels with a pixel in A + context_features, height, width)` to
            `(n, channels with a pixel in B * transformer.num_params, height, width)`, channel by channel; by default a
            `ConvNet` that starts at the identity.
        context_features: size of the context.
        hidden_channels: channels of the default conditioner.

    Raises:
        ValueError: if the mask has no three dimensions, transforms nothing or passes nothing.

    References:
        Dinh et al., Density estimation using Real NVP, 2016, arXiv 1605.08803; Kingma and Dhariwal, Glow, 2018,
        arXiv 1807.03039.

    Example:
        >>> from pushforward.transformers import Affine
        >>> layer = ImageCoupling(checkerboard_mask(2, 4, 4), Affine(), hidden_channels=8)
        >>> layer(torch.zeros(5, 2, 4, 4))[1].shape
        torch.Size([5])
    """

    event_dim = 3
    mask: Tensor
    passing: Tensor
    kept: Tensor
    moved: Tensor
    moved_params: Tensor
    restore: Tensor

    def __init__(
        self,
        mask: Tensor,
        transformer: Transformer,
        *,
        conditioner: nn.Module | None = None,
        context_features: int = 0,
        hidden_channels: int = 64,
    ) -> None:
        super().__init__()
        mask = torch.as_tensor(mask).detach().bool().clone()
        if mask.dim() != 3:
            raise ValueError(
                f"ImageCoupling: expected a mask of shape (channels, height, width), got {tuple(mask.shape)}"
            )
        if bool(mask.all()) or not bool(mask.any()):
            raise ValueError("ImageCoupling: expected a mask with true and false entries, got only one kind")
        check_count("ImageCoupling", "context_features", context_features, 0)
        check_count("ImageCoupling", "hidden_channels", hidden_channels)
        self.transformer = transformer
        self.context_features = context_features
        self.hidden_channels = hidden_channels
        self.event_shape = tuple(mask.shape)
        passing, moving = mask.any((1, 2)), (~mask).any((1, 2))
        p = transformer.num_params
        self.in_channels = int(passing.sum()) + context_features
        self.out_channels = int(moving.sum()) * p
        if conditioner is None:
            conditioner = ConvNet(self.in_channels, self.out_channels, hidden_channels)
            conditioner.start_at_(transformer.identity_params().repeat(int(moving.sum())))
        self.conditioner = conditioner
        flat = mask.flatten()
        order = torch.cat([flat.nonzero()[:, 0], (~flat).nonzero()[:, 0]])
        self.register_buffer("mask", mask, persistent=False)
        self.register_buffer("passing", passing.nonzero()[:, 0], persistent=False)
        self.register_buffer("kept", order[: int(flat.sum())], persistent=False)
        self.register_buffer("moved", order[int(flat.sum()) :], persistent=False)
        self.register_buffer("moved_params", (~mask)[moving].flatten().nonzero()[:, 0], persistent=False)
        self.register_buffer("restore", order.argsort(), persistent=False)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        h = self._params(z, context)
        flat = z.flatten(-3)
        x_moved, log_slope = self.transformer(flat.index_select(-1, self.moved), h)
        return self._join(flat, x_moved), log_slope.sum(-1)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        h = self._params(x, context)
        flat = x.flatten(-3)
        z_moved, log_slope = self.transformer.inverse(flat.index_select(-1, self.moved), h)
        return self._join(flat, z_moved), log_slope.sum(-1)

    def _params(self, value: Tensor, context: Tensor | None) -> Tensor:
        """h of the transformed places, `(*batch, len(B), num_params)`."""
        seen = (value * self.mask.to(value.dtype)).index_select(-3, self.passing)
        seen, context = broadcast_batch(seen, context, 3)
        if context is not None:
            planes = context[..., None, None].expand(*context.shape, *value.shape[-2:])
            seen = torch.cat([seen, planes], dim=-3)
        batch = seen.shape[:-3]
        h: Tensor = self.conditioner(seen.reshape(batch.numel(), *seen.shape[-3:]))
        expected = (self.out_channels, *value.shape[-2:])
        if h.shape[-3:] != expected:
            raise ValueError(
                f"ImageCoupling: expected the conditioner to return (n, {', '.join(map(str, expected))}), "
                f"got {tuple(h.shape)}"
            )
        h = h.reshape(batch + expected).unflatten(-3, (-1, self.transformer.num_params)).movedim(-3, -1).flatten(-4, -2)
        return h.index_select(-2, self.moved_params)

    def _join(self, flat: Tensor, moved: Tensor) -> Tensor:
        kept = flat.index_select(-1, self.kept)
        joined = torch.cat([kept.expand(*moved.shape[:-1], kept.shape[-1]), moved], dim=-1)
        event: Tensor = joined.index_select(-1, self.restore).unflatten(-1, self.event_shape or ())
        return event


class MultiScale(Bijection):
    """A vector z, parts of which enter level by level: x_1 = f_1(z_1), x_k = f_k(x_{k-1}, z_k), x = x_K.

    Read from the data, part of the channels leaves to the base after each level. Level k takes what level k - 1 gave
    and, as further channels (its first dimension), as many numbers of z as its event shape has room for.

    Args:
        levels: f_1, ..., f_K, from the base to the data: the coarsest first. Each has a stated event shape.

    Raises:
        ValueError: if a level takes no more channels than the one before it gives, or another height and width.

    Reference:
        Dinh et al., Density estimation using Real NVP, 2016, arXiv 1605.08803.

    Example:
        >>> coarse, fine = Squeeze(4, 2, 2).inv, Squeeze(2, 4, 4).inv
        >>> layer = MultiScale(Squeeze(1, 2, 2).inv, Squeeze(1, 4, 4).inv)
        >>> layer.event_shape, layer.data_shape
        ((16,), (1, 4, 4))
    """

    def __init__(self, *levels: Bijection) -> None:
        super().__init__()
        if not levels:
            raise ValueError("MultiScale: expected at least one level, got none")
        self.levels = nn.ModuleList(levels)
        self.context_features = _agreed("context_features", [f.context_features for f in levels], 0, "MultiScale")
        self.cheap = _cheap([level.cheap for level in levels])
        self.entering: list[Shape] = []
        before: Shape | None = None
        for k, level in enumerate(levels):
            shape = level.event_shape
            if shape is None or len(shape) != level.event_dim:
                raise ValueError(f"MultiScale: expected levels that state their event shape, got {shape} of level {k}")
            room = shape if before is None else (shape[0] - before[0], *shape[1:])
            if room[0] < 1 or (before is not None and before[1:] != shape[1:]):
                raise ValueError(
                    f"MultiScale: expected level {k} to take what level {k - 1} gives, {before}, and further channels, "
                    f"got events of shape {shape}"
                )
            self.entering.append(room)
            before = level.data_shape
        self.sizes = [torch.Size(shape).numel() for shape in self.entering]
        self.event_shape = (sum(self.sizes),)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x: Tensor | None = None
        total: Tensor | None = None
        for level, piece, shape in zip(self._levels(), z.split(self.sizes, -1), self.entering, strict=True):
            entering = piece.unflatten(-1, shape)
            if x is not None:
                batch = x.shape[: x.dim() - len(shape)]
                entering = torch.cat([x, entering.expand(*batch, *shape)], dim=-len(shape))
            x, log_det = level(entering, context if level.context_features else None)
            total = log_det if total is None else total + log_det
        assert x is not None and total is not None
        return x, total

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        leaving: list[Tensor] = []
        total: Tensor | None = None
        for level, shape in zip(reversed(self._levels()), reversed(self.entering), strict=True):
            z, log_det = level.inverse(x, context if level.context_features else None)
            total = log_det if total is None else total + log_det
            x, piece = self._part(z, shape)
            leaving.append(piece)
        assert total is not None
        batch = total.shape
        return torch.cat([piece.expand(*batch, piece.shape[-1]) for piece in reversed(leaving)], dim=-1), total

    @property
    def data_dim(self) -> int:
        return self._levels()[-1].data_dim

    def forward_shape(self, shape: Shape) -> Shape:
        return (*shape[:-1], *(self._levels()[-1].data_shape or ()))

    def inverse_shape(self, shape: Shape) -> Shape:
        return (*shape[: len(shape) - self.data_dim], sum(self.sizes))

    def initialize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        leaving: list[Tensor] = []
        for level, shape in zip(reversed(self._levels()), reversed(self.entering), strict=True):
            x, piece = self._part(level.initialize(x, context if level.context_features else None), shape)
            leaving.append(piece)
        return torch.cat(leaving[::-1], dim=-1)

    @staticmethod
    def _part(z: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
        """What goes on to the coarser level, and the part of the given shape, flattened, that leaves."""
        dim = -len(shape)
        kept = z.shape[dim] - shape[0]
        return z.narrow(dim, 0, kept), z.narrow(dim, kept, shape[0]).flatten(dim)

    def _levels(self) -> list[Bijection]:
        return list(self.levels)  # type: ignore[arg-type]


def checkerboard_mask(channels: int, height: int, width: int, *, flip: bool = False) -> Tensor:
    """True where row + column is even, or odd if `flip`; shape (channels, height, width).

    Example:
        >>> checkerboard_mask(1, 2, 2).int()
        tensor([[[1, 0],
                 [0, 1]]], dtype=torch.int32)
    """
    rows, columns = torch.arange(height).unsqueeze(-1), torch.arange(width)
    return ((rows + columns) % 2 == int(flip)).expand(channels, height, width).clone()


def channel_mask(channels: int, height: int, width: int, *, flip: bool = False) -> Tensor:
    """True in the first half of the channels, or in the others if `flip`; shape (channels, height, width).

    Example:
        >>> channel_mask(4, 1, 1).flatten().int()
        tensor([1, 1, 0, 0], dtype=torch.int32)
    """
    first = (torch.arange(channels) < channels // 2) != flip
    return first[:, None, None].expand(channels, height, width).clone()
