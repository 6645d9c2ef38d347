"""Flows in continuous time."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

from torch import Tensor, nn

from pushforward.bijections.base import Bijection
from pushforward.nn import Velocity
from pushforward.numerics import broadcast_batch, exact_trace, hutchinson_trace, probe, solve_ode
from pushforward.numerics.ode import Method, check_method
from pushforward.numerics.trace import Noise

EXACT_UP_TO = 32


class Continuous(Bijection):
    r"""x = z(1) of $dz/dt = v(t, z)$, z(0) = z, with $\log|\det \partial x/\partial z| = \int_0^1 \mathrm{tr}\,
    \partial v/\partial z\, dt$; the inverse integrates from 1 back to 0.

    Both directions and both log-determinants are as exact as the solver: with "dopri5" the error of each step is within
    `atol + rtol * |value|`, the log-determinant's too; a fixed-step solver has the error of its order. Starts at the
    identity.

    Args:
        features: size of the event.
        context_features: size of the context.
        hidden_features: widths of the hidden layers of the default velocity.
        velocity: v, a module called as `velocity(t, z, context)` with t of shape `(*batch,)`, z of shape
            `(*batch, features)` and the context or `None`, smooth, each row by itself; by default `Velocity`.
        solver: "dopri5", adaptive, or a fixed-step scheme: "midpoint", "rk4", "rk8".
        steps: steps of a fixed-step scheme.
        rtol, atol: tolerances of "dopri5".
        trace: "exact", features times the cost of one product; "hutchinson", an unbiased estimate in training mode,
            and in evaluation mode with more than 32 features; "auto", the estimate in both modes with more than 32
            features, else exact. Without estimates the map is deterministic.
        noise: of the estimate, "rademacher" or "gaussian", drawn once per call.
        adjoint: gradients by the adjoint equation, in constant memory; of first order, and not under `torch.func`.

    Raises:
        ValueError: for an unknown solver, trace or noise.
        RuntimeError: from the solver, if the state is not finite, or the steps grow too many (what to do).

    References:
        Chen et al., Neural Ordinary Differential Equations, 2018, arXiv 1806.07366.
        Grathwohl et al., FFJORD: Free-form Continuous Dynamics for Scalable Reversible Generative Models, 2018,
        arXiv 1810.01367.

    Example:
        >>> class Decay(torch.nn.Module):
        ...     def forward(self, t, z, context=None):
        ...         return -z
        >>> layer = Continuous(2, velocity=Decay())
        >>> layer(torch.ones(2))
        (tensor([0.3679, 0.3679]), tensor(-2.))
    """

    cheap = "neither"

    def __init__(
        self,
        features: int,
        *,
        context_features: int = 0,
        hidden_features: Sequence[int] = (64, 64),
        velocity: nn.Module | None = None,
        solver: Method = "dopri5",
        steps: int = 16,
        rtol: float = 1e-6,
        atol: float = 1e-6,
        trace: Literal["auto", "exact", "hutchinson"] = "auto",
        noise: Noise = "rademacher",
        adjoint: bool = False,
    ) -> None:
        super().__init__()
        self._set_sizes(features, context_features, hidden_features)
        check_method(solver, steps, rtol, atol, "Continuous")
        if trace not in ("auto", "exact", "hutchinson"):
            raise ValueError(f"Continuous: expected trace 'auto', 'exact' or 'hutchinson', got {trace!r}")
        if noise not in ("rademacher", "gaussian"):
            raise ValueError(f"Continuous: expected noise 'rademacher' or 'gaussian', got {noise!r}")
        self.velocity = Velocity(features, context_features, hidden_features) if velocity is None else velocity
        self.solver = solver
        self.steps = steps
        self.rtol = rtol
        self.atol = atol
        self.trace = trace
        self.noise = noise
        self.adjoint = adjoint

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._integrate(z, context, 0.0, 1.0)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._integrate(x, context, 1.0, 0.0)

    def _integrate(self, value: Tensor, context: Tensor | None, start: float, end: float) -> tuple[Tensor, Tensor]:
        value, context = broadcast_batch(value, context)
        noise = probe(value, self.noise) if self._estimates() else None
        has_context = context is not None

        def dynamics(t: float, z: Tensor, _: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
            c = inputs[0] if has_context else None
            times = z.new_full((), t).expand(z.shape[:-1])
            return self._velocity_and_trace(times, z, c, inputs[-1] if noise is not None else None)

        z, log_det = solve_ode(
            dynamics,
            (value, value.new_zeros(value.shape[:-1])),
            start,
            end,
            integrals=1,
            inputs=[v for v in (context, noise) if v is not None],
            parameters=list(self.velocity.parameters()) if self.adjoint else (),
            method=self.solver,
            steps=self.steps,
            rtol=self.rtol,
            atol=self.atol,
            adjoint=self.adjoint,
        )
        return z, log_det

    def _velocity_and_trace(
        self, t: Tensor, z: Tensor, context: Tensor | None, noise: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if isinstance(self.velocity, Velocity):
            return self.velocity.value_and_trace(t, z, context, noise)
        function = partial(self._checked_velocity, t, context)
        return exact_trace(function, z) if noise is None else hutchinson_trace(function, z, noise)

    def _checked_velocity(self, t: Tensor, context: Tensor | None, z: Tensor) -> Tensor:
        velocity: Tensor = self.velocity(t, z, context)
        if velocity.shape != z.shape:
            raise ValueError(
                f"Continuous: expected velocity(t, z, context) to return shape {tuple(z.shape)}, "
                f"got {tuple(velocity.shape)}"
            )
        return velocity

    def _estimates(self) -> bool:
        many = self.features > EXACT_UP_TO
        return (self.trace == "auto" and many) or (self.trace == "hutchinson" and (many or self.training))
