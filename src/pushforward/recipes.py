"""The named architectures, each a function that returns a `Flow`."""

from collections.abc import Callable, Sequence

from torch import nn

from pushforward.bases import DiagonalNormal, StandardNormal
from pushforward.bijections import (
    LU,
    Bijection,
    BlockAutoregressive,
    Chain,
    Coupling,
    Elementwise,
    Householder,
    MaskedAutoregressive,
    Planar,
    Radial,
    Sylvester,
)
from pushforward.bijections.sylvester import Kind
from pushforward.flow import Flow
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


def radial(
    features: int,
    context_features: int = 0,
    *,
    layers: int = 16,
    hidden_features: Sequence[int] = (64, 64),
) -> Flow:
    """Radial layers.

    Args:
        features: size of x.
        context_features: size of the context.
        layers: number of radial layers.
        hidden_features: widths of the networks that make the parameters from the context.

    Reference:
        Rezende and Mohamed, Variational Inference with Normalizing Flows, 2015, arXiv 1505.05770.

    Example:
        >>> radial(features=2).log_prob(torch.ones(5, 2)).shape
        torch.Size([5])
    """
    _check(features, context_features, layers)
    chain = [
        Radial(features, context_features=context_features, hidden_features=hidden_features) for _ in range(layers)
    ]
    return Flow(Chain(*chain), StandardNormal(features))


def sylvester(
    features: int,
    context_features: int = 0,
    *,
    layers: int = 4,
    hidden_features: Sequence[int] = (64, 64),
    m: int | None = None,
    kind: Kind = "orthogonal",
) -> Flow:
    """Sylvester layers; those of kind "triangular" count the features from the first and from the last in turn.

    Draws, with their density, are cheap; the density of another point takes m scalar roots per layer.

    Args:
        features: size of x.
        context_features: size of the context.
        layers: number of Sylvester layers.
        hidden_features: widths of the networks that make the parameters from the context.
        m: columns of each layer; by default as many as features.
        kind: how the columns are made: "orthogonal", "householder" or "triangular".

    Reference:
        van den Berg et al., Sylvester Normalizing Flows for Variational Inference, 2018, arXiv 1803.05649.

    Example:
        >>> sylvester(features=3, m=2).log_prob(torch.ones(5, 3)).shape
        torch.Size([5])
    """
    _check(features, context_features, layers)
    chain = [
        Sylvester(
            features,
            m,
            kind=kind,
            reverse=kind == "triangular" and k % 2 == 1,
            context_features=context_features,
            hidden_features=hidden_features,
        )
        for k in range(layers)
    ]
    return Flow(Chain(*chain), StandardNormal(features))


def householder(
    features: int,
    context_features: int = 0,
    *,
    layers: int = 4,
    hidden_features: Sequence[int] = (64, 64),
    reflections: int = 2,
) -> Flow:
    """Products of Householder reflections on a normal with a learnable mean and variance of each feature.

    As in the paper, the layers preserve volume: they turn the normal's axes, and the density for one context is a
    normal of any covariance, and nothing else.

    Args:
        features: size of x.
        context_features: size of the context.
        layers: number of layers.
        hidden_features: widths of the networks that make the parameters from the context.
        reflections: reflections of each layer; an even number starts at the identity.

    Reference:
        Tomczak and Welling, Improving Variational Auto-Encoders using Householder Flow, 2016, arXiv 1611.09630.

    Example:
        >>> householder(features=3).log_prob(torch.ones(5, 3)).shape
        torch.Size([5])
    """
    _check(features, context_features, layers)
    chain = [
        Householder(features, reflections, context_features=context_features, hidden_features=hidden_features)
        for _ in range(layers)
    ]
    base = DiagonalNormal(features, context_features=context_features, hidden_features=hidden_features)
    return Flow(Chain(*chain), base)


def bnaf(
    features: int,
    context_features: int = 0,
    *,
    layers: int = 2,
    hidden_features: Sequence[int] = (64, 64),
    hidden: Sequence[int] = (8, 8),
) -> Flow:
    """Block neural autoregressive layers from data to base, the order of the features reversed from one to the next.

    The density is cheap; a draw takes one scalar root per feature and layer.

    Args:
        features: size of x.
        context_features: size of the context.
        layers: number of block autoregressive layers.
        hidden_features: widths of the networks that make the parameters from the context.
        hidden: units per feature of each hidden layer.

    Reference:
        De Cao et al., Block Neural Autoregressive Flow, 2019, arXiv 1904.04676.

    Example:
        >>> bnaf(features=3).log_prob(torch.ones(5, 3)).shape
        torch.Size([5])
    """
    _check(features, context_features, layers)
    orders = [range(features), range(features - 1, -1, -1)]
    chain = [
        BlockAutoregressive(
            features,
            hidden,
            context_features=context_features,
            hidden_features=hidden_features,
            order=orders[k % 2],
        ).inv
        for k in range(layers)
    ]
    return Flow(Chain(*chain), StandardNormal(features))


RECIPES: dict[str, Callable[..., Flow]] = {
    recipe.__name__: recipe for recipe in (nice, real_nvp, maf, iaf, nsf, planar, radial, sylvester, householder, bnaf)
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
