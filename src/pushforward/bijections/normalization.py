"""Shifts and scales that are read off the data."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pushforward.bijections.base import Bijection
from pushforward.nn import Parameters
from pushforward.numerics import floating, multiply, solve_triangular


class Standardize(Bijection):
    """x = loc + scale z, fixed: with the mean and standard deviation of a table, z is standardised.

    Args:
        loc: shape `(features,)`, in the units of x.
        scale: in the units of x; positive, shape `(features,)`, or lower triangular with a positive diagonal, shape
            `(features, features)`: with the Cholesky factor of a covariance, z is uncorrelated too.

    Example:
        >>> Standardize([1.0, 2.0], [2.0, 2.0]).inverse(torch.tensor([3.0, 2.0]))[0]
        tensor([1., 0.])
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, loc: Tensor | Sequence[float], scale: Tensor | Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("loc", floating(loc))
        self.register_buffer("scale", floating(scale))
        n = len(self.loc) if self.loc.dim() == 1 else -1
        if tuple(self.scale.shape) not in ((n,), (n, n)):
            raise ValueError(
                "Standardize: expected loc (features,) and scale (features,) or (features, features), "
                f"got {tuple(self.loc.shape)} and {tuple(self.scale.shape)}"
            )
        if not bool((self._diagonal() > 0).all() & self.scale.isfinite().all() & self.loc.isfinite().all()):
            raise ValueError(f"Standardize: expected finite loc and finite scale > 0, got {self.loc} and {self.scale}")
        if self.scale.dim() == 2 and bool(self.scale.triu(1).any()):
            raise ValueError("Standardize: expected a lower triangular scale, got numbers above the diagonal")
        self.event_shape = (n,)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        scaled = self.scale * z if self.scale.dim() == 1 else multiply(self.scale, z)
        return self.loc + scaled, self._diagonal().log().sum().expand(z.shape[:-1])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        centred = x - self.loc
        z = centred / self.scale if self.scale.dim() == 1 else solve_triangular(self.scale, centred, upper=False)
        return z, -self._diagonal().log().sum().expand(x.shape[:-1])

    def _diagonal(self) -> Tensor:
        return self.scale if self.scale.dim() == 1 else self.scale.diagonal()


class ActNorm(Bijection):
    """x = b + exp(s) z, learnable, started by `initialize` so that z has mean 0 and standard deviation 1.

    `pushforward.train` calls `initialize` on its first batch. Until then the map is the identity; once it is started or
    trained, `initialize` leaves it as it is.

    Args:
        features: size of the event.
        context_features: size of the context.
        hidden_features: widths of the network that makes b and s from the context.

    Reference:
        Kingma and Dhariwal, Glow, 2018, arXiv 1807.03039.

    Example:
        >>> layer = ActNorm(2)
        >>> x = torch.tensor([[0.0, 4.0], [2.0, 8.0]])
        >>> layer.initialize(x)
        tensor([[-1., -1.],
                [ 1.,  1.]])
    """

    def __init__(self, features: int, *, context_features: int = 0, hidden_features: Sequence[int] = (64, 64)) -> None:
        super().__init__()
        self._set_sizes(features, context_features, hidden_features)
        self.params = Parameters([torch.zeros(features), torch.zeros(features)], context_features, hidden_features)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        b, s = self.params(context)
        x = b + s.exp() * z
        return x, s.sum(-1).expand(x.shape[:-1])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        b, s = self.params(context)
        z = (x - b) * (-s).exp()
        return z, -s.sum(-1).expand(z.shape[:-1])

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        if not bool(self.params.constants.any()):
            rows = x.reshape(-1, self.features)
            scale = rows.std(0, correction=0)
            self.params.set_(rows.mean(0), torch.where(scale > 0, scale, 1).log())
        return self.inverse(x, context)[0]


class BatchNorm(Bijection):
    r"""z = beta + gamma (x - m) / sqrt(v + eps), m and v the mean and variance of the data; forward is its inverse.

    In train mode, `inverse` takes m and v from its batch, all dimensions but the last, and moves the running ones
    towards them; its log-determinant is that of the affine map with this m and v. In eval mode, and in `forward`
    always, m and v are the running ones, and the layer is a fixed bijection: call `eval()` before you score points.
    `initialize`, which `pushforward.train` calls on its first batch, sets the running ones to that batch's.

    Args:
        features: size of the event.
        momentum: weight of a new batch in the running mean and (unbiased) variance, as in `torch.nn.BatchNorm1d`.
        eps: added to the variance.
        context_features: size of the context.
        hidden_features: widths of the network that makes beta and gamma from the context.

    Raises:
        ValueError: for a momentum outside (0, 1] or eps <= 0; in train mode, for an x of fewer than two rows.

    References:
        Dinh et al., Density estimation using Real NVP, 2016, arXiv 1605.08803, section 3.7.
        Papamakarios et al., Masked Autoregressive Flow for Density Estimation, 2017, arXiv 1705.07057.

    Example:
        >>> layer = BatchNorm(2)
        >>> z, _ = layer.inverse(torch.tensor([[0.0, 4.0], [2.0, 8.0]]))
        >>> z
        tensor([[-1.0000, -1.0000],
                [ 1.0000,  1.0000]], grad_fn=<AddBackward0>)
        >>> layer.running_mean
        tensor([0.1000, 0.6000])
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        features: int,
        *,
        momentum: float = 0.1,
        eps: float = 1e-5,
        context_features: int = 0,
        hidden_features: Sequence[int] = (64, 64),
    ) -> None:
        super().__init__()
        self._set_sizes(features, context_features, hidden_features)
        if not (0 < momentum <= 1 and eps > 0):
            raise ValueError(f"BatchNorm: expected 0 < momentum <= 1 and eps > 0, got momentum={momentum}, eps={eps}")
        self.momentum = momentum
        self.eps = eps
        self.params = Parameters([torch.zeros(features), torch.zeros(features)], context_features, hidden_features)
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        beta, log_scale = self._affine(self.running_var, context)
        x = self.running_mean + (z - beta) * (-log_scale).exp()
        return x, -log_scale.sum(-1).expand(x.shape[:-1])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mean, var = self._statistics(x, self.momentum) if self.training else (self.running_mean, self.running_var)
        beta, log_scale = self._affine(var, context)
        z = beta + (x - mean) * log_scale.exp()
        return z, log_scale.sum(-1).expand(z.shape[:-1])

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        mean, var = self._statistics(x, 1.0)
        beta, log_scale = self._affine(var, context)
        return beta + (x - mean) * log_scale.exp()

    def _affine(self, var: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """beta, and the logarithm of gamma / sqrt(v + eps)."""
        beta, log_gamma = self.params(context)
        return beta, log_gamma - 0.5 * (var + self.eps).log()

    def _statistics(self, x: Tensor, weight: float) -> tuple[Tensor, Tensor]:
        """Mean and variance of a batch, towards which the running ones move by a share `weight` of the way."""
        rows = x.reshape(-1, self.features)
        n = len(rows)
        if n < 2:
            raise ValueError(f"BatchNorm: expected at least 2 rows in train mode, got {n}; call eval() to score points")
        mean, var = rows.mean(0), rows.var(0, correction=0)
        with torch.no_grad():
            self.running_mean.lerp_(mean.detach(), weight)
            self.running_var.lerp_(var.detach() * (n / (n - 1)), weight)
        return mean, var
