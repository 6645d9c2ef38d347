"""Maps of the circle onto itself."""

import math

import torch
from torch import Tensor

from pushforward.transformers.base import NumericalTransformer, Transformer

START = 0.1
MAX_RADIUS = 0.99


class Moebius(NumericalTransformer):
    r"""A convex combination of Moebius maps of the circle [-B, B], the identity outside.

    With angles $\theta = \pi z / B$ and $|w_k| < 0.99$ in the complex plane,
    $$\theta' = \theta + 2 \sum_k \rho_k (a_k(\theta) - a_k(-\pi)), \quad a_k(\theta) = \arg(1 - w_k e^{-i\theta}).$$
    The point -B = B stays where it is; a `CircularShift` moves it. Put it beside a `Uniform` base on [-B, B]. h holds
    the unnormalised log-weights, the real parts and the imaginary parts of the unnormalised $w_k$; `identity_params`
    spreads them on a small circle, so that the components can part: nearly the identity.

    Args:
        components: number of Moebius maps.
        bound: B.

    Reference:
        Rezende et al., Normalizing Flows on Tori and Spheres, 2020, arXiv 2002.02428.

    Example:
        >>> transformer = Moebius(components=2)
        >>> h = torch.randn(5, transformer.num_params, generator=torch.Generator().manual_seed(0))
        >>> z = torch.linspace(-3, 3, 5)
        >>> x, log_slope = transformer(z, h)
        >>> torch.allclose(z, transformer.inverse(x, h)[0], atol=1e-5)
        True
    """

    def __init__(self, components: int = 4, bound: float = math.pi) -> None:
        super().__init__()
        if components < 1:
            raise ValueError(f"Moebius: expected components >= 1, got {components}")
        if not bound > 0:
            raise ValueError(f"Moebius: expected bound > 0, got {bound}")
        self.components = components
        self.bound = bound
        self.num_params = 3 * components

    def forward(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        log_weights, u, v = h.unflatten(-1, (3, self.components)).unbind(-2)
        shrink = MAX_RADIUS * (1 + u.square() + v.square()).rsqrt()
        u, v = shrink * u, shrink * v
        weights = log_weights.softmax(-1)
        inside = z.abs() <= self.bound
        theta = (math.pi / self.bound) * torch.where(inside, z, 0).unsqueeze(-1)
        sine, cosine = theta.sin(), theta.cos()
        # 1 - w e^(-i theta); of positive real part, so that its argument is an arctangent.
        real, imaginary = 1 - u * cosine - v * sine, u * sine - v * cosine
        turn = (imaginary / real).atan() - (v / (1 + u)).atan()
        x = z + (2 * self.bound / math.pi) * (weights * turn).sum(-1)
        poisson = (1 - u.square() - v.square()) / (real.square() + imaginary.square())
        log_slope = (weights * poisson).sum(-1).log()
        return torch.where(inside, x.clamp(-self.bound, self.bound), z), torch.where(inside, log_slope, 0)

    def bracket(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        inside = x.abs() <= self.bound
        return torch.where(inside, -self.bound, x), torch.where(inside, self.bound, x)

    def identity_params(self) -> Tensor:
        K = self.components
        angles = 2 * math.pi * torch.arange(K) / K
        radius = START if K > 1 else 0.0
        return torch.cat([torch.zeros(K), radius * angles.cos(), radius * angles.sin()])


class CircularShift(Transformer):
    """x = z + h on the circle [-B, B], so modulo 2B; the identity outside.

    Increasing but for one jump, where the circle is cut open. Put it beside the maps of the circle that keep the point
    -B = B where it is.

    Args:
        bound: B.

    Reference:
        Rezende et al., Normalizing Flows on Tori and Spheres, 2020, arXiv 2002.02428.

    Example:
        >>> CircularShift(bound=2.0)(torch.tensor([0.0, 1.5]), torch.tensor([1.0]))[0]
        tensor([ 1.0000, -1.5000])
    """

    num_params = 1

    def __init__(self, bound: float = math.pi) -> None:
        super().__init__()
        if not bound > 0:
            raise ValueError(f"CircularShift: expected bound > 0, got {bound}")
        self.bound = bound

    def forward(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return self._shift(z, h[..., 0])

    def inverse(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return self._shift(x, -h[..., 0])

    def _shift(self, value: Tensor, by: Tensor) -> tuple[Tensor, Tensor]:
        B = self.bound
        shifted = torch.remainder(value + by + B, 2 * B) - B
        shifted = torch.where(value.abs() <= B, shifted, value)
        return shifted, torch.zeros_like(shifted)
