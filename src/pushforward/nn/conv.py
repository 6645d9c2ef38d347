"""The convolutional conditioner."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvNet(nn.Module):
    """Residual convolutional network, `(*, in_channels, H, W)` to `(*, out_channels, H, W)`.

    A convolution, then blocks h + conv(silu(conv(silu(h)))), then a convolution; zeros beyond the border.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        hidden_channels: channels between.
        blocks: number of residual blocks.
        kernel_size: of the first convolution of each block and of the outer ones, odd.

    Example:
        >>> ConvNet(3, 5, hidden_channels=8)(torch.zeros(2, 7, 3, 4, 4)).shape
        torch.Size([2, 7, 5, 4, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden_channels: int = 64,
        *,
        blocks: int = 2,
        kernel_size: int = 3,
    ) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"ConvNet: expected an odd kernel_size, got {kernel_size}")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.hidden_channels = hidden_channels
        self.blocks = blocks
        self.kernel_size = kernel_size

        def wide(n: int, m: int) -> nn.Conv2d:
            return nn.Conv2d(n, m, kernel_size, padding=kernel_size // 2)

        self.input = wide(in_channels, hidden_channels)
        self.first = nn.ModuleList(wide(hidden_channels, hidden_channels) for _ in range(blocks))
        self.second = nn.ModuleList(nn.Conv2d(hidden_channels, hidden_channels, 1) for _ in range(blocks))
        self.output = wide(hidden_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[:-3]
        h = self.input(x.reshape(batch.numel(), *x.shape[-3:]))
        for first, second in zip(self.first, self.second, strict=True):
            h = h + second(F.silu(first(F.silu(h))))
        out: Tensor = self.output(F.silu(h))
        return out.reshape(batch + out.shape[1:])

    @torch.no_grad()
    def start_at_(self, output: Tensor) -> None:
        """Make the network answer `output`, shape `(out_channels,)`, at every place until it is trained."""
        assert self.output.bias is not None
        self.output.weight.zero_()
        self.output.bias.copy_(output)
