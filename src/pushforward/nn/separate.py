"""Conditioners made of one network per parameter."""

import torch
from torch import Tensor, nn


class Separate(nn.Module):
    """Network k makes parameter k of every feature: with `Affine`, one network the log-scales and one the shifts.

    Args:
        networks: modules that map `(*, n)` to `(*, features)`, one for each parameter of the transformer.

    Reference:
        Dinh et al., Density estimation using Real NVP, 2016, arXiv 1605.08803.

    Example:
        >>> Separate(torch.nn.Linear(3, 2), torch.nn.Linear(3, 2))(torch.zeros(7, 3)).shape
        torch.Size([7, 4])
    """

    def __init__(self, *networks: nn.Module) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([network(x) for network in self.networks], dim=-1).flatten(-2)
