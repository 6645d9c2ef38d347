"""flowjax, each operation one jitted function; a training step is one too, optax's Adam included.

Its splines have free slopes at the ends, and its couplings always transform the larger half, so that they have 4 to 9 %
more parameters. Planar layers stand in the direction of sampling.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import flowjax.bijections as bij
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import paramax
from flowjax.distributions import Normal, Transformed
from flowjax.flows import coupling_flow, masked_autoregressive_flow, planar_flow

from benchmarks.speed.cases import BINS, BOUND, Case, Unavailable, data

Array = np.ndarray[Any, Any]


class JaxModel:
    """The four operations; parameters and the state of the optimiser stay on the device."""

    estimates = False
    remark = ""
    unequal: tuple[str, ...] = ()
    compile = None

    def __init__(self, case: Case, flow: Transformed, *, scores: bool) -> None:
        self.case = case
        self._scores = scores
        is_leaf = lambda leaf: isinstance(leaf, paramax.NonTrainable)  # noqa: E731
        self._values, static = eqx.partition(flow, eqx.is_inexact_array, is_leaf=is_leaf)
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(self._values))
        self._x = jnp.asarray(data(case))
        self._key = jr.key(0)
        adam = optax.adam(1e-3)
        self._state = adam.init(self._values)

        def distribution(values: Any) -> Transformed:
            return paramax.unwrap(eqx.combine(values, static))

        def negative_log_likelihood(values: Any, x: Any) -> Any:
            return -distribution(values).log_prob(x).mean()

        def divergence(values: Any, key: Any) -> Any:
            x, log_q = distribution(values).sample_and_log_prob(key, (case.batch,))
            return (log_q + 0.5 * jnp.square(x - 1).sum(-1)).mean()

        def step(loss: Callable[..., Any], values: Any, state: Any, argument: Any) -> Any:
            value, gradients = jax.value_and_grad(loss)(values, argument)
            updates, state = adam.update(gradients, state, values)
            return optax.apply_updates(values, updates), state, value

        def reverse_kl(values: Any, state: Any, key: Any) -> Any:
            key, now = jr.split(key)
            return key, step(divergence, values, state, now)

        def sample(values: Any, key: Any) -> Any:
            key, now = jr.split(key)
            return key, distribution(values).sample(now, (case.batch,))

        self._train_step = jax.jit(
            lambda values, state, x: step(negative_log_likelihood, values, state, x), donate_argnums=(0, 1)
        )
        self._reverse_kl_step = jax.jit(reverse_kl, donate_argnums=(0, 1))
        self._sample = jax.jit(sample)
        self._score = jax.jit(lambda values, x: distribution(values).log_prob(x))
        self._draw = jax.jit(
            lambda values, key, n: distribution(values).sample_and_log_prob(key, (n,)), static_argnums=2
        )

    def exact(self, on: bool) -> None:
        """Nothing is estimated."""

    def operation(self, name: str) -> Callable[[], object]:
        return {
            "train": self._train,
            "log_prob": lambda: self._score(self._values, self._x).block_until_ready(),
            "sample": self._sample_now,
            "reverse_kl": self._reverse_kl,
        }[name]

    def _train(self) -> None:
        self._values, self._state, loss = self._train_step(self._values, self._state, self._x)
        jax.block_until_ready((self._values, loss))

    def _sample_now(self) -> None:
        self._key, x = self._sample(self._values, self._key)
        x.block_until_ready()

    def _reverse_kl(self) -> None:
        self._key, (self._values, self._state, loss) = self._reverse_kl_step(self._values, self._state, self._key)
        jax.block_until_ready((self._values, loss))

    def log_prob(self, x: Array) -> Array | None:
        return np.asarray(self._score(self._values, jnp.asarray(x))) if self._scores else None

    score_draws = log_prob

    def sample(self, n: int) -> Array:
        return self.draw(n)[0]

    def draw(self, n: int) -> tuple[Array, Array]:
        self._key, now = jr.split(self._key)
        x, log_q = self._draw(self._values, now, n)
        return np.asarray(x), np.asarray(log_q)


def build(case: Case) -> JaxModel:
    d, key = case.features, jr.key(1)
    base = Normal(jnp.zeros(d))
    if case.family == "continuous":
        raise Unavailable("has no continuous flow")
    if case.family == "planar":
        return JaxModel(case, planar_flow(key, base_dist=base, flow_layers=case.layers, invert=False), scores=False)
    is_spline = case.family.startswith("spline")
    make = coupling_flow if case.family.endswith("coupling") else masked_autoregressive_flow
    flow = make(
        key,
        base_dist=base,
        transformer=bij.RationalQuadraticSpline(knots=BINS - 1, interval=BOUND) if is_spline else None,
        flow_layers=case.layers,
        nn_width=case.hidden[0],
        nn_depth=len(case.hidden),
        nn_activation=jax.nn.relu,
    )
    return JaxModel(case, flow, scores=True)
