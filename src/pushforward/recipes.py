"""The named architectures, each a function that returns a `Flow`."""

from collections.abc import Callable, Sequence
from typing import Literal

from torch import nn

from pushforward.bases import StandardNormal
from pushforward.bijections import (
    LU,
    ActNorm,
    Bijection,
    Chain,
    ConvexPotential,
    Coupling,
    Elementwise,
    MaskedAutoregressive,
    Planar,
    Residual,
    TransformerAutoregressive,
)
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


def residual_flow(
    features: int,
    context_features: int = 0,
    *,
    layers: int = 8,
    hidden_features: Sequence[int] = (64, 64),
    lipschitz: float = 0.97,
    log_det: Literal["auto", "exact", "estimate"] = "auto",
) -> Flow:
    """Invertible residual blocks, each with a normalisation of its data; the blocks' closed form gives the density.

    The density is cheap; a draw solves for each block by some Newton steps.

    Args:
        features: size of x.
        context_features: size of the context.
        layers: number of blocks.
        hidden_features: widths of the blocks' networks.
        lipschitz: bound of the Lipschitz constants of the networks, below 1.
        log_det: "exact"; "estimate", in training mode an unbiased estimate; "auto", the estimate if features and
            hidden layers are all above 64.

    References:
        Behrmann et al., Invertible Residual Networks, 2018, arXiv 1811.00995.
        Chen et al., Residual Flows for Invertible Generative Modeling, 2019, arXiv 1906.02735.

    Example:
        >>> residual_flow(features=2).log_prob(torch.zeros(5, 2)).shape
        torch.Size([5])
    """
    _check(features, context_features, layers)
    blocks = [
        Residual(
            features,
            context_features=context_features,
            hidden_features=hidden_features,
            lipschitz=lipschitz,
            log_det=log_det,
        )
        for _ in range(layers)
    ]
    return Flow(_normalized(blocks, features, context_features, hidden_features), StandardNormal(features))


def convex_potential(
    features: int,
    context_features: int = 0,
    *,
    layers: int = 4,
    hidden_features: Sequence[int] = (64, 64),
    min_curvature: float = 1e-2,
) -> Flow:
    """Gradients of strongly convex networks, each with a normalisation of its data.

    The density is cheap; a draw minimises a convex function for each layer.

    Args:
        features: size of x.
        context_features: size of the context.
        layers: number of potentials.
        hidden_features: widths of the potentials' networks.
        min_curvature: lower bound of the second derivatives of each potential.

    Reference:
        Huang et al., Convex Potential Flows, 2020, arXiv 2012.05942.

    Example:
        >>> convex_potential(features=2).log_prob(torch.zeros(5, 2)).shape
        torch.Size([5])
    """
    _check(features, context_features, layers)
    potentials = [
        ConvexPotential(
            features,
            context_features=context_features,
            hidden_features=hidden_features,
            min_curvature=min_curvature,
        )
        for _ in range(layers)
    ]
    return Flow(_normalized(potentials, features, context_features, hidden_features), StandardNormal(features))


def tarflow(
    features: int | tuple[int, int],
    context_features: int = 0,
    *,
    layers: int = 4,
    hidden_features: Sequence[int] = (128, 128),
    activation: type[nn.Module] = nn.SiLU,
    channels: int | None = None,
    width: int = 64,
    heads: int = 4,
    log_scale_bound: float = 5.0,
) -> Flow:
    """Affine autoregressive layers with causal transformers, the order of the tokens reversed from one to the next.

    The density is cheap; a draw computes one token after the other.

    Args:
        features: size of x, or `(tokens, channels)` for a sequence.
        context_features: size of the context.
        layers: number of autoregressive layers.
        hidden_features: widths of the feed-forward layers of each transformer, one per block.
        activation: nonlinearity of the feed-forward layers.
        channels: for a vector, how many features make one token, by default 1.
        width: size of the embeddings.
        heads: number of attention heads, a divisor of `width`.
        log_scale_bound: bound of the log-scale of each layer.

    Reference:
        Zhai et al., Normalizing Flows are Capable Generative Models, 2024, arXiv 2412.06329.

    Example:
        >>> tarflow(features=3).log_prob(torch.zeros(5, 3)).shape
        torch.Size([5])
        >>> tarflow((4, 2)).sample(5).shape
        torch.Size([5, 4, 2])
    """
    _check(features if isinstance(features, int) else min(features), context_features, layers)
    tokens = features // (channels or 1) if isinstance(features, int) else features[0]
    orders = [range(tokens), range(tokens - 1, -1, -1)]
    chain = [
        TransformerAutoregressive(
            Affine(log_scale_bound),
            features,
            channels=channels,
            context_features=context_features,
            hidden_features=hidden_features,
            width=width,
            heads=heads,
            order=orders[k % 2],
            activation=activation,
        )
        for k in range(layers)
    ]
    return Flow(Chain(*chain), StandardNormal(features))


RECIPES: dict[str, Callable[..., Flow]] = {
    recipe.__name__: recipe
    for recipe in (nice, real_nvp, maf, iaf, nsf, planar, residual_flow, convex_potential, tarflow)
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


def _normalized(
    layers: Sequence[Bijection], features: int, context_features: int, hidden_features: Sequence[int]
) -> Chain:
    """Layers read backwards, from data to base, the data of each normalised."""
    chain: list[Bijection] = []
    for layer in layers:
        norm = ActNorm(features, context_features=context_features, hidden_features=hidden_features)
        chain += [layer.inv, norm]
    return Chain(*chain)


def _check(features: int, context_features: int, layers: int) -> None:
    if features < 1 or context_features < 0 or layers < 1:
        raise ValueError(
            f"expected features >= 1, context_features >= 0 and layers >= 1, "
            f"got features={features}, context_features={context_features}, layers={layers}"
        )
