"""Integrals of positive networks."""

import torch
from torch import Tensor

from pushforward.numerics import gauss_legendre
from pushforward.transformers.base import LinearTails
from pushforward.transformers.bins import positive

KNOTS = 3.0


class UnconstrainedMonotone(LinearTails):
    r"""$x = b + \int_0^z f(t; h)\,dt$ with f a positive network of one hidden layer, on [-B, B]; beyond, its tangents.

    $f(t) = \epsilon + \mathrm{softplus}(\sum_j v_j \tanh(w_j t + b_j) + v_0)$, up to a shift that makes f = 1 at
    v = 0. h holds the w_j, the b_j, the v_j, v_0 and b: the network is made by the conditioner. The slope is exactly f,
    by autodiff too. The integral is by Gauss and Legendre: with 32 nodes, right to 1e-11 while |w_j| B is at most 4,
    and to 1e-8 up to 8; steeper networks need more nodes.

    Args:
        hidden: number of hidden units.
        nodes: number of nodes of the quadrature.
        bound: B.
        min_slope: smallest slope, epsilon; below 1.

    Reference:
        Wehenkel and Louppe, Unconstrained Monotonic Neural Networks, 2019, arXiv 1908.05164.

    Example:
        >>> transformer = UnconstrainedMonotone(hidden=4)
        >>> h = torch.randn(5, transformer.num_params, generator=torch.Generator().manual_seed(0))
        >>> z = torch.linspace(-7, 7, 5)
        >>> x, log_slope = transformer(z, h)
        >>> torch.allclose(z, transformer.inverse(x, h)[0], atol=1e-4)
        True
    """

    def __init__(self, hidden: int = 8, nodes: int = 32, bound: float = 5.0, *, min_slope: float = 1e-3) -> None:
        super().__init__()
        if hidden < 1 or nodes < 2:
            raise ValueError(
                f"UnconstrainedMonotone: expected hidden >= 1 and nodes >= 2, got hidden={hidden}, nodes={nodes}"
            )
        if not (bound > 0 and 0 < min_slope < 1):
            raise ValueError(
                "UnconstrainedMonotone: expected bound > 0 and 0 < min_slope < 1, "
                f"got bound={bound}, min_slope={min_slope}"
            )
        self.hidden = hidden
        self.nodes = nodes
        self.bound = bound
        self.min_slope = min_slope
        self.num_params = 3 * hidden + 2
        self._rules = gauss_legendre(nodes), gauss_legendre(2)

    def inner(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        z0 = z.detach()
        (t, w), (t_step, w_step) = (_on(z, rule) for rule in self._rules)
        # The step from z0 to z is zero: it carries the derivatives in z, up to the fourth, that quadrature would blur.
        step = (z - z0).unsqueeze(-1)
        start = z0.unsqueeze(-1)
        f = self._integrand(torch.cat([start * t, start + step * t_step, z.unsqueeze(-1)], dim=-1), h)
        integral = z0 * (f[..., : self.nodes] * w).sum(-1)
        integral = integral + (z - z0) * (f[..., self.nodes : -1] * w_step).sum(-1)
        return h[..., -1] + integral, f[..., -1]

    def identity_params(self) -> Tensor:
        # Hidden units with steps at different places, not heard at first.
        ones = torch.ones(self.hidden)
        knots = torch.linspace(-KNOTS, KNOTS, self.hidden) if self.hidden > 1 else torch.zeros(1)
        return torch.cat([ones, knots, 0 * ones, torch.zeros(2)])

    def _integrand(self, t: Tensor, h: Tensor) -> Tensor:
        """f at `t`, `(*, n)`."""
        w, b, v = h[..., : 3 * self.hidden].unflatten(-1, (3, 1, self.hidden)).unbind(-3)
        units = torch.tanh(w * t.unsqueeze(-1) + b)
        return positive((v * units).sum(-1) + h[..., -2, None], self.min_slope)


def _on(z: Tensor, rule: tuple[tuple[float, ...], tuple[float, ...]]) -> tuple[Tensor, Tensor]:
    nodes, weights = (torch.tensor(values, dtype=z.dtype, device=z.device) for values in rule)
    return nodes, weights
