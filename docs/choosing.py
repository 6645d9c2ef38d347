"""Write choosing.md: the table of every recipe, transformer and layer, from the classes and the notes below.

python docs/choosing.py
"""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pushforward as pf
from pushforward import recipes

PAGE = Path(__file__).with_name("choosing.md")

# What no class knows about itself: how the direction without a closed form goes, the tails of x when z is normal,
# what it is good at.
Note = tuple[str, str, str]
LINEAR, OWN = "as z's", "-"
EQUATION = "a differential equation, both ways"
RECIPES: dict[str, Note] = {
    "nice": ("", LINEAR, "the simplest; volume is preserved up to one scale, so it needs many layers"),
    "real_nvp": ("", LINEAR, "many features, images, both directions fast; needs depth for sharp edges"),
    "maf": ("x one feature after the other", LINEAR, "densities of tables; draws cost more"),
    "iaf": ("z one feature after the other", LINEAR, "posteriors by reverse KL, where draws must be fast"),
    "nsf": ("", LINEAR, "the first to try, for data and for log densities up to some tens of features"),
    "ncsf": ("", "none: angles", "angles and torsions"),
    "naf": ("scalar roots", LINEAR, "several modes with few layers"),
    "unaf": ("scalar roots", LINEAR, "smooth densities with few layers, at the cost of quadrature"),
    "sospf": ("scalar roots", LINEAR, "smooth densities, interpretable polynomials"),
    "polynomial": ("scalar roots", LINEAR, "as sospf, drawn from quickly: for reverse KL"),
    "bpf": ("scalar roots", LINEAR, "stable under noise in the data; smooth"),
    "flowpp": ("scalar roots", LINEAR, "couplings more expressive than affine ones, smooth"),
    "gaussianization": ("scalar roots", LINEAR, "many modes; starts from the data"),
    "planar": ("scalar roots", LINEAR, "teaching, and posteriors of few features"),
    "radial": ("", LINEAR, "teaching; bumps and holes"),
    "sylvester": ("scalar roots", LINEAR, "posteriors of amortised inference; planar layers many at once"),
    "householder": ("", LINEAR, "rotations: full covariance when the base has scales of its own"),
    "bnaf": ("scalar roots", LINEAR, "sharp densities of few features; both gaps and modes"),
    "residual_flow": ("damped Newton steps", LINEAR, "no masks and no split; smooth global maps"),
    "convex_potential": ("damped Newton steps", LINEAR, "optimal-transport maps"),
    "glow": ("", LINEAR, "images: `pf.glow((channels, height, width))`"),
    "cnf": (
        EQUATION,
        LINEAR,
        "smooth global maps, trained by flow matching without solving an equation",
    ),
    "ffjord": (EQUATION, LINEAR, "as cnf, trained by likelihood with estimated traces"),
    "tarflow": ("x one token after the other", LINEAR, "sequences and images in tokens, where there is much data"),
}
TRANSFORMERS: dict[str, Note] = {
    "Additive": ("", LINEAR, "volume-preserving layers"),
    "Affine": ("", LINEAR, "speed; many layers"),
    "RationalQuadratic": ("", LINEAR, "nearly everything of up to some tens of features; circles"),
    "LinearSpline": ("", LINEAR, "histograms; densities with jumps"),
    "QuadraticSpline": ("", LINEAR, "continuous densities in closed form"),
    "CubicSpline": ("scalar root in a bin", LINEAR, "a density with a continuous slope"),
    "DeepSigmoidal": ("scalar roots", LINEAR, "multimodal conditionals"),
    "LogisticMixture": ("scalar roots", LINEAR, "multimodal conditionals, few parameters"),
    "Gaussianization": ("scalar roots", LINEAR, "layer by layer training; mixtures"),
    "SumOfSquares": ("scalar roots", LINEAR, "smooth maps of low degree"),
    "Bernstein": ("scalar roots", LINEAR, "smooth maps, robust to noise in the data"),
    "UnconstrainedMonotone": ("scalar roots", LINEAR, "any smooth map, by quadrature"),
    "TailTransform": ("", "power laws", "a last layer for heavy tails"),
    "Moebius": ("scalar roots", "none: angles", "angles, smooth"),
    "CircularShift": ("", "none: angles", "rotations of angles between spline layers"),
}
LAYERS: dict[str, Note] = {
    "Elementwise": ("the transformer's", OWN, "margins of their own"),
    "Coupling": ("the transformer's", OWN, "both directions fast"),
    "MaskedAutoregressive": ("one feature after the other", OWN, "the best density per parameter"),
    "TransformerAutoregressive": ("one token after the other", OWN, "sequences, large data"),
    "BlockAutoregressive": ("scalar roots", LINEAR, "sharp densities of few features"),
    "Planar": ("scalar root", LINEAR, "teaching, small posteriors"),
    "Radial": ("", LINEAR, "bumps and holes"),
    "Sylvester": ("scalar roots", LINEAR, "many planar steps at once"),
    "Residual": ("damped Newton steps", LINEAR, "no masks; smooth maps"),
    "ConvexPotential": ("damped Newton steps", LINEAR, "optimal transport"),
    "Continuous": (
        EQUATION,
        LINEAR,
        "no masks and no split; any velocity field, trained by flow matching",
    ),
    "LU": ("", LINEAR, "mixing features between layers"),
    "QR": ("", LINEAR, "as LU, and no pivot to fear"),
    "Triangular": ("", LINEAR, "autoregressive covariance"),
    "MatrixExponential": ("", LINEAR, "every linear map of positive determinant, smooth in the parameters"),
    "Orthogonal": ("", LINEAR, "rotations"),
    "Householder": ("", LINEAR, "rotations and reflections, cheap"),
    "Permutation": ("", LINEAR, "which feature comes first"),
    "ActNorm": ("", LINEAR, "scales set from data; deep flows"),
    "BatchNorm": ("", LINEAR, "deep flows of data; frozen when evaluated"),
    "Standardize": ("", LINEAR, "units of a table as part of the model"),
    "StudentTail": ("", "power laws", "a fixed last layer where the index of the tails is known"),
}
IMAGES: dict[str, Note] = {
    "Squeeze": ("", LINEAR, "pixels to channels, between scales"),
    "Pixelwise": ("the bijection's", OWN, "`ActNorm` or any map of the channels at each pixel"),
    "InvertibleConv": ("", LINEAR, "mixing channels"),
    "ImageCoupling": ("the transformer's", OWN, "checkerboard and channel couplings, convolutional conditioners"),
    "MultiScale": ("the levels'", OWN, "half of the channels leaves after each scale"),
}
SURJECTIONS = ["Augmented", "Dequantized", "Absolute", "Sorted"]
SUPPORTS = [
    "Exp",
    "Softplus",
    "GreaterThan",
    "LessThan",
    "Power",
    "Sigmoid",
    "Interval",
    "Tanh",
    "Simplex",
    "Ordered",
    "Cholesky",
    "PositiveDefinite",
    "CorrCholesky",
]
GLUE = ["Chain", "Inverse", "Independent", "Flattened", "Concatenate", "Stack", "FromTorch"]

HEAD = "| name | x = f(z) | closed form | the other way | conditional | tails | good for | paper (arXiv) |"
INTRO = """# Choosing a flow

*Made by `python docs/choosing.py` from the classes; a test holds it to them.*

Start with `pf.nsf`. Everything here has both directions and both log-determinants, for any point: "closed form" says
which cost one evaluation (z to x is sampling, x to z is the density), "the other way" how the other one is computed, to
the precision of the dtype and with gradients. Conditional: takes `context_features`.
"""


def page() -> str:
    """The page, whole."""
    parts = [INTRO]
    parts.append(_table("Recipes", "Whole flows: `pf.nsf(features=2)`.", RECIPES, _recipe_facts))
    text = "Scalar increasing maps, for `Elementwise`, `Coupling` and `MaskedAutoregressive`, which make h."
    parts.append(_table("Transformers", text, TRANSFORMERS, _class_facts))
    parts.append(_table("Layers", "To compose with `pf.Chain`.", LAYERS, _class_facts))
    text = "Events of shape (channels, height, width)."
    parts.append(_table("Image layers", text, IMAGES, _class_facts))
    rows = "\n".join(f"| `{name}` | {_first(getattr(pf, name))} |" for name in SUPPORTS)
    text = "Without parameters; `pf.biject_to(constraint)` picks one for a constraint of torch."
    parts.append(f"## Maps between supports\n\n{text}\n\n| name | x = f(z) |\n|---|---|\n{rows}\n")
    text = "Not one-to-one: no `log_prob`, but `log_prob_bound`, a lower bound that rises to the truth with its draws."
    rows = "\n".join(
        f"| `{name}` | {_first(getattr(pf, name))} | {_papers(getattr(pf, name))} |" for name in SURJECTIONS
    )
    parts.append(
        f"## Bounds on the likelihood\n\n{text}\n\n| name | x = g(y) | paper (arXiv) |\n|---|---|---|\n{rows}\n"
    )
    rows = "\n".join(f"| `{name}` | {_first(getattr(pf, name))} |" for name in GLUE)
    parts.append(f"## Compositions\n\n| name | what |\n|---|---|\n{rows}\n")
    return "\n".join(parts)


def _table(title: str, text: str, notes: dict[str, Note], facts: Callable[[str], tuple[Any, str, bool]]) -> str:
    lines = [f"## {title}\n\n{text}\n", HEAD, "|" + "---|" * (HEAD.count("|") - 1)]
    for name, (other_way, tails, good_for) in notes.items():
        thing, closed, conditional = facts(name)
        cells = [
            f"`{name}`",
            _first(thing),
            closed,
            other_way or "-",
            "yes" if conditional else "no",
            tails,
            good_for,
            _papers(thing),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _recipe_facts(name: str) -> tuple[Any, str, bool]:
    recipe = getattr(recipes, name)
    flow = recipe((1, 4, 4) if name == "glow" else 2)
    return recipe, _closed(flow.bijection.cheap), "context_features" in inspect.signature(recipe).parameters


def _class_facts(name: str) -> tuple[Any, str, bool]:
    cls = getattr(pf, name)
    parameters = inspect.signature(cls).parameters
    if issubclass(cls, pf.Transformer):
        return cls, _closed(cls.cheap), True
    if "bijection" in parameters or name == "MultiScale":
        return cls, "its parts'", True
    if "transformer" in parameters:
        return cls, "x to z" if "Autoregressive" in name else "the transformer's", True
    return cls, _closed(cls.cheap), "context_features" in parameters


def _closed(cheap: str) -> str:
    return {"both": "both", "forward": "z to x", "inverse": "x to z", "neither": "neither"}[cheap]


def _first(thing: Any) -> str:
    """The first sentence of the docstring, formulas as text."""
    text = " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())
    return re.sub(r"(?<!\\)\|", r"\\|", text)


def _papers(thing: Any) -> str:
    doc = inspect.getdoc(thing) or ""
    ids = dict.fromkeys(re.findall(r"arXiv\s+(\d{4}\.\d{4,5})", doc))
    return ", ".join(f"[{i}](https://arxiv.org/abs/{i})" for i in ids) or "-"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
