"""The named architectures, each a function that returns a `Flow`."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import nn

from pushforward.bases import DiagonalNormal, StandardNormal, Uniform
from pushforward.bijections import (
    LU,
    ActNorm,
    Bijection,
    BlockAutoregressive,
    Chain,
    Continuous,
    ConvexPotential,
    Coupling,
    Elementwise,
    Householder,
    ImageCoupling,
    InvertibleConv,
    MaskedAutoregressive,
    MultiScale,
    Pixelwise,
    Planar,
    Radial,
    Residual,
    Squeeze,
    Sylvester,
    TransformerAutoregressive,
    channel_mask,
)
from pushforward.bijections.sylvester import Kind
from pushforward.flow import Flow
from pushforward.nn import PeriodicMLP, Velocity
from pushforward.numerics import check_count, check_sizes
from pushforward.transformers import (
    Additive,
    Affine,
    Bernstein,
    CircularShift,
    DeepSigmoidal,
    Gaussianization,
    LogisticMixture,
    RationalQuadratic,
    SumOfSquares,
    Transformer,
    UnconstrainedMonotone,
)

Direction = Literal["inverse", "forward"]


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
    _check("nice", features, context_features, layers, hidden_features)
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
    _check("real_nvp", features, context_features, layers, hidden_features)
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
    _check("maf", features, context_features, layers, hidden_features)
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
    _check("iaf", features, context_features, layers, hidden_features)
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
    _check("nsf", features, context_features, layers, hidden_features)
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
    _check("planar", features, context_features, layers, hidden_features)
    chain = [
        Planar(features, context_features=context_features, hidden_features=hidden_features) for _ in range(layers)
    ]
    return Flow(Chain(*chain), StandardNormal(features))


def naf(
    features: int,
    context_features: int = 0,
    *,
    layers: int = 3,
    hidden_features: Sequence[int] = (64, 64),
    activation: type[nn.Module] = nn.SiLU,
    components: int = 8,
    cheap: Direction = "inverse",
) -> Flow:
    """Autoregressive deep sigmoidal layers, the order of the features reversed from one to the next.

    Args:
        features: size of x.
        context_features: size of the context.
        layers: number of autoregressive layers.
        hidden_features: widths of the masked networks.
        activation: nonlinearity of the masked networks.
        components: sigmoids of each transformer.
        cheap: "inverse" for densities of data in closed form, "forward" for draws, as variational inference needs them;
            the other direction solves for one feature after the other.

    Reference:
        Huang et al., Neural Autoregressive Flows, 2018, arXiv 1804.00779.

    Example:
        >>> x, log_prob = naf(features=2, cheap="forward").rsample_and_log_prob(5)
        >>> x.shape, log_prob.shape
        (torch.Size([5, 2]), torch.Size([5]))
    """
    return _autoregressive_flow(
        "naf", lambda: DeepSigmoidal(components), features, context_features, layers, hidden_features, activation, cheap
    )


def unaf(
    features: int,
    context_features: int = 0,
    *,
    layers: int = 3,
    hidden_features: Sequence[int] = (64, 64),
    activation: type[nn.Module] = nn.SiLU,
    hidden: int = 8,
    nodes: int = 32,
    bound: float = 5.0,
    cheap: Direction = "inverse",
) -> Flow:
    """Autoregressive layers of integrals of positive networks, the order reversed from one to the next.

    Args:
        features: size of x.
        context_features: size of the context.
        layers: number of autoregressive layers.
        hidden_features: widths of the masked networks.
        activation: nonlinearity of the masked networks.
        hidden: hidden units of each positive network.
        nodes: nodes of the quadrature.
        bound: the maps are integrals on [-bound, bound], and linear beyond.
        cheap: the direction in closed form, as in `naf`.

    Reference:
        Wehenkel and Louppe, Unconstrained Monotonic Neural Networks, 2019, arXiv 1908.05164.

    Example:
        >>> unaf(features=3).log_prob(torch.zeros(5, 3)).shape
        torch.Size([5])
    """
    return _autoregressive_flow(
        "unaf",
        lambda: UnconstrainedMonotone(hidden, nodes, bound),
        features,
        context_features,
        layers,
        hidden_features,
        activation,
        cheap,
    )


def sospf(
    features: int,
    context_features: int = 0,
    *,
    layers: int = 3,
    hidden_features: Sequence[int] = (64, 64),
    activation: type[nn.Module] = nn.SiLU,
    degree: int = 3,
    count: int = 4,
    bound: float = 10.0,
    cheap: Direction = "inverse",
) -> Flow:
    """Autoregressive layers of integrals of sums of squared polynomials, the order reversed from one to the next.

    Args:
        features: size of x.
        context_features: size of the context.
        layers: number of autoregressive layers.
        hidden_features: widths of the masked networks.
        activation: nonlinearity of the masked networks.
        degree: of the polynomials that are squared.
        count: number of squares.
        bound: the maps are polynomials on [-bound, bound], and linear beyond.
        cheap: the direction in closed form, as in `naf`.

    Reference:
        Jaini et al., Sum-of-Squares Polynomial Flow, 2019, arXiv 1905.02325.

    Example:
        >>> sospf(features=3).log_prob(torch.zeros(5, 3)).shape
        torch.Size([5])
    """
    return _autoregressive_flow(
        "sospf",
        lambda: SumOfSquares(degree, count, bound=bound),
        features,
        context_features,
        layers,
        hidden_features,
        activation,
        cheap,
    )


def polynomial(
    features: int,
    context_features: int = 0,
    *,
    layers: int = 3,
    hidden_features: Sequence[int] = (64, 64),
    activation: type[nn.Module] = nn.SiLU,
    degree: int = 3,
    count: int = 4,
    bound: float = 10.0,
) -> Flow:
    """`sospf` with the draws in closed form, for variational inference; densities of other points solve for roots.

    Args:
        features: size of x.
        context_features: size of the context.
        layers: number of autoregressive layers.
        hidden_features: widths of the masked networks.
        activation: nonlinearity of the masked networks.
        degree: of the polynomials that are squared.
        count: number of squares.
        bound: the maps are polynomials on [-bound, bound], and linear beyond.

    Reference:
        Jaini et al., Sum-of-Squares Polynomial Flow, 2019, arXiv 1905.02325.

    Example:
        >>> polynomial(features=2).rsample_and_log_prob(5)[1].shape
        torch.Size([5])
    """
    _check("polynomial", features, context_features, layers, hidden_features)
    return sospf(
        features,
        context_features,
        layers=layers,
        hidden_features=hidden_features,
        activation=activation,
        degree=degree,
        count=count,
        bound=bound,
        cheap="forward",
    )


def bpf(
    features: int,
    context_features: int = 0,
    *,
    layers: int = 3,
    hidden_features: Sequence[int] = (64, 64),
    activation: type[nn.Module] = nn.SiLU,
    degree: int = 16,
    bound: float = 5.0,
    cheap: Direction = "inverse",
) -> Flow:
    """Autoregressive layers of increasing Bernstein polynomials, the order reversed from one to the next.

    Args:
        features: size of x.
        context_features: size of the context.
        layers: number of autoregressive layers.
        hidden_features: widths of the masked networks.
        activation: nonlinearity of the masked networks.
        degree: of the polynomials.
        bound: the maps are polynomials on [-bound, bound], and linear beyond.
        cheap: the direction in closed form, as in `naf`.

    Reference:
        Ramasinghe et al., Robust normalizing flows using Bernstein-type polynomials, 2021, arXiv 2102.03509.

    Example:
        >>> bpf(features=3).log_prob(torch.zeros(5, 3)).shape
        torch.Size([5])
    """
    return _autoregressive_flow(
        "bpf", lambda: Bernstein(degree, bound), features, context_features, layers, hidden_features, activation, cheap
    )


def flowpp(
    features: int,
    context_features: int = 0,
    *,
    layers: int = 6,
    hidden_features: Sequence[int] = (64, 64),
    activation: type[nn.Module] = nn.SiLU,
    components: int = 8,
    cheap: Direction = "inverse",
) -> Flow:
    """Couplings of alternating halves through distribution functions of logistic mixtures.

    Args:
        features: size of x.
        context_features: size of the context.
        layers: number of couplings.
        hidden_features: widths of the conditioners.
        activation: nonlinearity of the conditioners.
        components: logistic distributions of each mixture.
        cheap: "inverse" for densities of data in closed form, "forward" for draws; the other direction solves for a
            root, all features at once.

    Reference:
        Ho et al., Flow++: Improving Flow-Based Generative Models with Variational Dequantization and Architecture
        Design, 2019, arXiv 1902.00275.

    Example:
        >>> flowpp(features=3).log_prob(torch.zeros(5, 3)).shape
        torch.Size([5])
    """
    _check("flowpp", features, context_features, layers, hidden_features)
    _check_cheap(cheap)

    def transformer() -> Transformer:
        mixture = LogisticMixture(components)
        return mixture.inv if cheap == "inverse" else mixture

    couplings = _couplings(transformer, features, context_features, layers, hidden_features, activation)
    return Flow(Chain(*couplings), StandardNormal(features))


def gaussianization(
    features: int,
    context_features: int = 0,
    *,
    layers: int = 6,
    hidden_features: Sequence[int] = (64, 64),
    components: int = 8,
) -> Flow:
    """A linear map, then each feature through a mixture of normals to the normal, from x to z and again and again.

    The density is in closed form; a draw solves for roots, all features at once. Training on data starts the mixtures
    from the data's quantiles.

    Args:
        features: size of x.
        context_features: size of the context.
        layers: number of linear maps and of elementwise ones.
        hidden_features: widths of the networks that make the parameters from the context.
        components: normals of each mixture.

    Reference:
        Meng et al., Gaussianization Flows, 2020, arXiv 2003.01941.

    Example:
        >>> gaussianization(features=3).log_prob(torch.zeros(5, 3)).shape
        torch.Size([5])
    """
    _check("gaussianization", features, context_features, layers, hidden_features)
    chain: list[Bijection] = []
    for _ in range(layers):
        chain += [
            Elementwise(
                Gaussianization(components).inv,
                features,
                context_features=context_features,
                hidden_features=hidden_features,
            ),
            LU(features, context_features=context_features, hidden_features=hidden_features),
        ]
    return Flow(Chain(*chain), StandardNormal(features))


def ncsf(
    features: int,
    context_features: int = 0,
    *,
    layers: int = 5,
    hidden_features: Sequence[int] = (64, 64),
    activation: type[nn.Module] = nn.SiLU,
    bins: int = 8,
) -> Flow:
    """Angles in [-pi, pi]: couplings of circular rational-quadratic splines, each feature turned after each.

    The base is uniform on the torus, and the conditioners see sines and cosines, so that the density has no seam. Pi is
    that of float32, in every dtype.

    Args:
        features: size of x, angles in radians.
        context_features: size of the context.
        layers: number of couplings.
        hidden_features: widths of the conditioners.
        activation: nonlinearity of the conditioners.
        bins: bins of each spline.

    Reference:
        Rezende et al., Normalizing Flows on Tori and Spheres, 2020, arXiv 2002.02428.

    Example:
        >>> x = ncsf(features=2).sample(1000)
        >>> bool((x.abs() <= math.pi + 1e-6).all())
        True
    """
    _check("ncsf", features, context_features, layers, hidden_features)
    bound = torch.tensor(math.pi, dtype=torch.float32).item()
    kwargs: dict[str, Any] = {"context_features": context_features, "hidden_features": hidden_features}
    chain: list[Bijection] = []
    for k in range(layers):
        spline = RationalQuadratic(bins, bound, tails="circular")
        if features == 1:
            chain.append(Elementwise(spline, 1, **kwargs))
        else:
            mask = _halves(features, k)
            angles, moved = sum(mask), features - sum(mask)
            conditioner = PeriodicMLP(
                angles,
                angles + context_features,
                moved * spline.num_params,
                hidden_features,
                bound=bound,
                activation=activation,
            )
            conditioner.start_at_(spline.identity_params().repeat(moved))
            chain.append(Coupling(mask, spline, conditioner=conditioner, **kwargs))
        chain.append(Elementwise(CircularShift(bound), features, **kwargs))
    return Flow(Chain(*chain), Uniform([-bound] * features, [bound] * features))


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
    _check("radial", features, context_features, layers, hidden_features)
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
    _check("sylvester", features, context_features, layers, hidden_features)
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
    _check("householder", features, context_features, layers, hidden_features)
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
    hidden: Sequence[int] = (32, 32),
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
    _check("bnaf", features, context_features, layers, hidden_features)
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
    _check("residual_flow", features, context_features, layers, hidden_features)
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
    _check("convex_potential", features, context_features, layers, hidden_features)
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
    _check(
        "tarflow",
        min(features) if isinstance(features, Sequence) else features,
        context_features,
        layers,
        hidden_features,
    )
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


def glow(
    features: tuple[int, int, int],
    context_features: int = 0,
    *,
    levels: int = 2,
    layers: int = 4,
    hidden_features: Sequence[int] = (64, 64),
    hidden_channels: int = 64,
    log_scale_bound: float = 5.0,
) -> Flow:
    """For images: at each level a squeeze, then layers of ActNorm, 1 x 1 convolution and affine coupling of channels.

    Half of the channels leaves to the base after each level but the last. The base is a vector.

    Args:
        features: shape of x, (channels, height, width); height and width divisible by 2**levels.
        context_features: size of the context.
        levels: number of scales.
        layers: number of couplings at each level.
        hidden_features: widths of the networks that make the global parameters from the context.
        hidden_channels: channels of the couplings' convolutional networks.
        log_scale_bound: bound of the log-scale of each coupling.

    Reference:
        Kingma and Dhariwal, Glow: Generative Flow with Invertible 1x1 Convolutions, 2018, arXiv 1807.03039.

    Example:
        >>> glow((3, 4, 4), layers=1, hidden_channels=8).sample(5).shape
        torch.Size([5, 3, 4, 4])
    """
    if not isinstance(features, Sequence) or len(features) != 3:
        raise ValueError(f"glow: expected features, the shape (channels, height, width) of x, got {features}")
    channels, height, width = features
    _check("glow", min(features), context_features, layers, hidden_features)
    check_count("glow", "levels", levels)
    if height % 2**levels or width % 2**levels:
        raise ValueError(
            f"glow: expected height and width divisible by 2**levels = {2**levels}, got features={tuple(features)}"
        )
    parts: list[Bijection] = []
    for _ in range(levels):
        unsqueeze = Squeeze(channels, height, width).inv
        channels, height, width = 4 * channels, height // 2, width // 2
        chain: list[Bijection] = []
        for k in range(layers):
            chain += [
                ImageCoupling(
                    channel_mask(channels, height, width, flip=k % 2 == 1),
                    Affine(log_scale_bound),
                    context_features=context_features,
                    hidden_channels=hidden_channels,
                ),
                InvertibleConv(
                    channels, height, width, context_features=context_features, hidden_features=hidden_features
                ),
                Pixelwise(
                    ActNorm(channels, context_features=context_features, hidden_features=hidden_features), height, width
                ),
            ]
        parts.append(Chain(*chain, unsqueeze))
        channels //= 2
    bijection = MultiScale(*reversed(parts))
    return Flow(bijection, StandardNormal(bijection.event_shape or ()))


def cnf(
    features: int,
    context_features: int = 0,
    *,
    layers: int = 1,
    hidden_features: Sequence[int] = (64, 64, 64),
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
    _check("cnf", features, context_features, layers, hidden_features)
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
    hidden_features: Sequence[int] = (64, 64, 64),
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
    _check("ffjord", features, context_features, layers, hidden_features)
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
    recipe.__name__: recipe
    for recipe in (
        nice,
        real_nvp,
        maf,
        iaf,
        nsf,
        planar,
        naf,
        unaf,
        sospf,
        polynomial,
        bpf,
        flowpp,
        gaussianization,
        ncsf,
        radial,
        sylvester,
        householder,
        bnaf,
        residual_flow,
        convex_potential,
        tarflow,
        cnf,
        ffjord,
    )
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
            _halves(features, k),
            transformer(),
            context_features=context_features,
            hidden_features=hidden_features,
            activation=activation,
        )
        for k in range(layers)
    ]


def _halves(features: int, k: int) -> list[bool]:
    """The mask of coupling k: the first half passes, or the second."""
    return [(i < features // 2) == (k % 2 == 0) for i in range(features)]


def _autoregressive_flow(
    recipe: str,
    transformer: Callable[[], Transformer],
    features: int,
    context_features: int,
    layers: int,
    hidden_features: Sequence[int],
    activation: type[nn.Module],
    cheap: Direction,
) -> Flow:
    """Autoregressive layers with a transformer of which `forward` is in closed form, for the direction `cheap`."""
    _check(recipe, features, context_features, layers, hidden_features)
    _check_cheap(cheap)
    chain = _autoregressive(lambda: transformer().inv, features, context_features, layers, hidden_features, activation)
    return Flow(Chain(*(layer if cheap == "inverse" else layer.inv for layer in chain)), StandardNormal(features))


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


def _check(recipe: str, features: int, context_features: int, layers: int, hidden_features: Sequence[int]) -> None:
    check_sizes(recipe, features, context_features, hidden_features)
    check_count(recipe, "layers", layers)


def _check_cheap(cheap: Direction) -> None:
    if cheap not in ("inverse", "forward"):
        raise ValueError(f"expected cheap to be 'inverse' or 'forward', got {cheap!r}")


def _normalized(
    layers: Sequence[Bijection], features: int, context_features: int, hidden_features: Sequence[int]
) -> Chain:
    """Layers read backwards, from data to base, the data of each normalised."""
    chain: list[Bijection] = []
    for layer in layers:
        norm = ActNorm(features, context_features=context_features, hidden_features=hidden_features)
        chain += [layer.inv, norm]
    return Chain(*chain)
