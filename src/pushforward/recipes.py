"""The named architectures, each a function that returns a `Flow`."""

from collections.abc import Callable, Sequence
from typing import Literal

from torch import nn

from pushforward.bases import StandardNormal
from pushforward.bijections import LU, Bijection, Chain, Continuous, Coupling, Elementwise, MaskedAutoregressive, Planar
from pushforward.flow import Flow
from pushforward.nn import Velocity
from pushforward.transformers import Additive, Affine, RationalQuadratic, Transformer


def nice(
    features: int,
    context_features: int = 0,
    *,
    layers: int = 6,
    hidden_features: Sequence[int] = (64, 64),
    activation: type[nn.Module] = nn.SiLU,
) -> Flow:
    """Additive couplings of alternating halves, then a scale and a shift of each feature.

    Args:
        features: size of x.
        context_features: size of the context.
        layers: number of couplings.
        hidden_features: widths of the conditioners.
        activation: nonlinearity of the conditioners.

    Reference:
        Dinh et al., NICE: Non-linear Independent Components Estimation, 2014, arXiv 1410.8516.

    Example:
        >>> nice(features=3).sample(5).shape
        torch.Size([5, 3])
    """
    _check(features, context_features, layers)
    couplings = _couplings(Additive, features, context_features, layers, hidden_features, activation)
    scale = Elementwise(Affine(), features, context_features=context_features, hidden_features=hidden_features)
    return Flow(Chain(*couplings, scale), StandardNormal(features))


def real_nvp(
    features: int,
    context_features: int = 0,
    *,
    layers: int = 6,
    hidden_features: Sequence[int] = (64, 64),
    activation: type[nn.Module] = nn.SiLU,
    log_scale_bound: float = 5.0,
) -> Flow:
    """Affine couplings of alternating halves.

    Args:
        features: size of x.
        context_features: size of the context.
        layers: number of couplings.
        hidden_features: widths of the conditioners.
        activation: nonlinearity of the conditioners.
        log_scale_bound: bound of the log-scale of each layer.

    Reference:
        Dinh et al., Density estimation using Real NVP, 2016, arXiv 1605.08803.

    Example:
        >>> real_nvp(features=2, context_features=1).log_prob(torch.zeros(5, 2), torch.zeros(5, 1)).shape
        torch.Size([5])
    """
    _check(features, context_features, layers)
    couplings = _couplings(
        lambda: Affine(log_scale_bound), features, context_features, layers, hidden_features, activation
    )
    return Flow(Chain(*couplings), StandardNormal(features))


def maf(
    features: int,
    context_features: int = 0,
    *,
    layers: int = 5,
    hidden_features: Sequence[int] = (64, 64),
    activation: type[nn.Module] = nn.SiLU,
    log_scale_bound: float = 5.0,
) -> Flow:
    """Masked autoregressive affine layers, the order of the features reversed from one to the next.

    The density is cheap; a draw computes one feature after the other.

    Args:
        features: size of x.
        context_features: size of the context.
        layers: number of autoregressive layers.
        hidden_features: widths of the masked networks.
        activation: nonlinearity of the masked networks.
        log_scale_bound: bound of the log-scale of each layer.

    Reference:
        Papamakarios et al., Masked Autoregressive Flow for Density Estimation, 2017, arXiv 1705.07057.

    Example:
        >>> maf(features=3).log_prob(torch.zeros(5, 3)).shape
        torch.Size([5])
    """
    _check(features, context_features, layers)
    chain = _autoregressive(
        lambda: Affine(log_scale_bound), features, context_features, layers, hidden_features, activation
    )
    return Flow(Chain(*chain), StandardNormal(features))


def iaf(
    features: int,
    context_features: int = 0,
    *,
    layers: int = 5,
    hidden_features: Sequence[int] = (64, 64),
    activation: type[nn.Module] = nn.SiLU,
    log_scale_bound: float = 5.0,
) -> Flow:
    """Inverse autoregressive affine layers, the order of the features reversed from one to the next.

    Draws, with their density, are cheap; the density of another point computes one feature after the other.

    Args:
        features: size of x.
        context_features: size of the context.
        layers: number of autoregressive layers.
        hidden_features: widths of the masked networks.
        activation: nonlinearity of the masked networks.
        log_scale_bound: bound of the log-scale of each layer.

    Reference:
        Kingma et al., Improving Variational Inference with Inverse Autoregressive Flow, 2016, arXiv 1606.04934.

    Example:
        >>> x, log_prob = iaf(features=3).rsample_and_log_prob(5)
        >>> x.shape, log_prob.shape
        (torch.Size([5, 3]), torch.Size([5]))
    """
    _check(features, context_features, layers)
    chain = _autoregressive(
        lambda: Affine(log_scale_bound), features, context_features, layers, hidden_features, activation
    )
    return Flow(Chain(*(layer.inv for layer in chain)), StandardNormal(features))


def nsf(
    features: int,
    context_features: int = 0,
    *,
    layers: int = 5,
    hidden_features: Sequence[int] = (64, 64),
    activation: type[nn.Module] = nn.SiLU,
    bins: int = 8,
    bound: float = 5.0,
    coupling: bool = True,
) -> Flow:
    """Rational-quadratic splines with a learnable linear map after each: couplings, or autoregressive layers.

    Args:
        features: size of x.
        context_features: size of the context.
        layers: number of spline layers.
        hidden_features: widths of the conditioners.
        activation: nonlinearity of the conditioners.
        bins: bins of each spline.
        bound: the splines act on [-bound, bound].
        coupling: couplings, cheap both ways, or else autoregressive layers, whose density is cheap and whose draws
            compute one feature after the other.

    Reference:
        Durkan et al., Neural Spline Flows, 2019, arXiv 1906.04032.

    Example:
        >>> nsf(features=2, coupling=False).sample((5, 7)).shape
        torch.Size([5, 7, 2])
    """
    _check(features, context_features, layers)
    build = _couplings if coupling else _autoregressive
    splines = build(
        lambda: RationalQuadratic(bins, bound), features, context_features, layers, hidden_features, activation
    )
    chain = [
        layer
        for spline in splines
        for layer in (spline, LU(features, context_features=context_features, hidden_features=hidden_features))
    ]
    return Flow(Chain(*chain), StandardNormal(features))


def planar(
    features: int,
    context_features: int = 0,
    *,
    layers: int = 16,
    hidden_features: Sequence[int] = (64, 64),
) -> Flow:
    """Planar layers.

    Args:
        features: size of x.
        context_features: size of the context.
        layers: number of planar layers.
        hidden_features: widths of the networks that make the parameters from the context.

    Reference:
        Rezende and Mohamed, Variational Inference with Normalizing Flows, 2015, arXiv 1505.05770.

    Example:
        >>> planar(features=2).log_prob(torch.ones(5, 2)).shape
        torch.Size([5])
    """
    _check(features, context_features, layers)
    chain = [
        Planar(features, context_features=context_features, hidden_features=hidden_features) for _ in range(layers)
    ]
    return Flow(Chain(*chain), StandardNormal(features))


def cnf(
    features: int,
    context_features: int = 0,
    *,
    layers: int = 1,
    hidden_features: Sequence[int] = (64, 64),
    activation: type[nn.Module] = nn.SiLU,
    solver: Literal["midpoint", "rk4", "rk8", "dopri5"] = "dopri5",
    steps: int = 16,
    rtol: float = 1e-6,
    atol: float = 1e-6,
    trace: Literal["auto", "exact", "hutchinson"] = "auto",
    adjoint: bool = False,
) -> Flow:
    """Continuous layers: by maximum likelihood, or, if there is one, by `FlowMatching`.

    Args:
        features: size of x.
        context_features: size of the context.
        layers: number of continuous layers.
        hidden_features: widths of the velocity networks.
        activation: nonlinearity of the velocity networks.
        solver: "dopri5", adaptive, or a fixed-step scheme: "midpoint", "rk4", "rk8".
        steps: steps of a fixed-step scheme.
        rtol, atol: tolerances of "dopri5".
        trace: "exact", "hutchinson" or "auto", as in `Continuous`.
        adjoint: gradients in constant memory.

    References:
        Chen et al., Neural Ordinary Differential Equations, 2018, arXiv 1806.07366.
        Lipman et al., Flow Matching for Generative Modeling, 2022, arXiv 2210.02747.

    Example:
        >>> cnf(features=2).log_prob(torch.ones(5, 2)).shape
        torch.Size([5])
    """
    _check(features, context_features, layers)
    chain = [
        Continuous(
            features,
            context_features=context_features,
            hidden_features=hidden_features,
            velocity=Velocity(features, context_features, hidden_features, activation=activation),
            solver=solver,
            steps=steps,
            rtol=rtol,
            atol=atol,
            trace=trace,
            adjoint=adjoint,
        )
        for _ in range(layers)
    ]
    return Flow(Chain(*chain), StandardNormal(features))


def ffjord(
    features: int,
    context_features: int = 0,
    *,
    layers: int = 1,
    hidden_features: Sequence[int] = (64, 64),
    activation: type[nn.Module] = nn.SiLU,
    solver: Literal["midpoint", "rk4", "rk8", "dopri5"] = "dopri5",
    steps: int = 16,
    rtol: float = 1e-6,
    atol: float = 1e-6,
    adjoint: bool = False,
) -> Flow:
    """`cnf` with Hutchinson's estimate of the trace in training mode: `log_prob` is then unbiased, but noisy.

    In evaluation mode (`flow.eval()`) it is exact, up to 32 features. The arguments are those of `cnf`.

    Reference:
        Grathwohl et al., FFJORD: Free-form Continuous Dynamics for Scalable Reversible Generative Models, 2018,
        arXiv 1810.01367.

    Example:
        >>> ffjord(features=2, context_features=1).sample(5, torch.zeros(1)).shape
        torch.Size([5, 2])
    """
    return cnf(
        features,
        context_features,
        layers=layers,
        hidden_features=hidden_features,
        activation=activation,
        solver=solver,
        steps=steps,
        rtol=rtol,
        atol=atol,
        trace="hutchinson",
        adjoint=adjoint,
    )


RECIPES: dict[str, Callable[..., Flow]] = {
    recipe.__name__: recipe for recipe in (nice, real_nvp, maf, iaf, nsf, planar, cnf, ffjord)
}


def _couplings(
    transformer: Callable[[], Transformer],
    features: int,
    context_features: int,
    layers: int,
    hidden_features: Sequence[int],
    activation: type[nn.Module],
) -> list[Bijection]:
    """Couplings that pass the first half and the second half in turn; a single feature has nothing to condition it."""
    if features == 1:
        return [
            Elementwise(transformer(), 1, context_features=context_features, hidden_features=hidden_features)
            for _ in range(layers)
        ]
    return [
        Coupling(
            [(i < features // 2) == (k % 2 == 0) for i in range(features)],
            transformer(),
            context_features=context_features,
            hidden_features=hidden_features,
            activation=activation,
        )
        for k in range(layers)
    ]


def _autoregressive(
    transformer: Callable[[], Transformer],
    features: int,
    context_features: int,
    layers: int,
    hidden_features: Sequence[int],
    activation: type[nn.Module],
) -> list[Bijection]:
    """Autoregressive layers in alternating order."""
    orders = [range(features), range(features - 1, -1, -1)]
    return [
        MaskedAutoregressive(
            transformer(),
            features,
            context_features=context_features,
            hidden_features=hidden_features,
            order=orders[k % 2],
            activation=activation,
        )
        for k in range(layers)
    ]


def _check(features: int, context_features: int, layers: int) -> None:
    if features < 1 or context_features < 0 or layers < 1:
        raise ValueError(
            f"expected features >= 1, context_features >= 0 and layers >= 1, "
            f"got features={features}, context_features={context_features}, layers={layers}"
        )
