"""Whether coupling splines are the same function: pushforward's weights in the networks of another library.

    python -m benchmarks.speed.parity LIBRARY

nflows and normflows share pushforward's rational-quadratic spline up to the offset of the slopes, which goes into a
bias, and apply it from data to base, where pushforward applies it from base to data. So their densities are those of
pushforward's chain read as the map from data to base. Prints the largest
difference in nats, in float64, as JSON.
"""

from __future__ import annotations

import importlib
import json
import math
import sys

import torch
from torch import Tensor, nn

from benchmarks.speed.cases import BINS, CASES, data
from benchmarks.speed.libraries import ours

MIN_SLOPE = 1e-3  # the same default in all three
SLOPE_OF_ZERO = math.log(math.expm1(1 - MIN_SLOPE))  # what pushforward adds before its softplus


@torch.no_grad()
def difference(library: str, case: str = "spline_8") -> float:
    chosen = CASES[case]
    torch.manual_seed(0)
    flow = ours.flow(chosen).double()
    for parameter in flow.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))  # away from the identity
    theirs = importlib.import_module(f"benchmarks.speed.libraries.{library}").build(chosen)
    theirs.module.double()
    x = torch.from_numpy(data(chosen)).double()
    z, log_det = flow.bijection(x)
    expected = flow.base.log_prob(z) + log_det
    # normflows lists its layers from base to data, so that the first to see the data is the last
    copy_weights(linears(flow), linears(theirs.module), backwards=library == "normflows")
    found = theirs.log_prob(x.numpy())
    assert found is not None
    return float((torch.from_numpy(found) - expected).abs().max())


def linears(module: nn.Module) -> list[nn.Linear]:
    return [part for part in module.modules() if isinstance(part, nn.Linear)]


def copy_weights(source: list[nn.Linear], target: list[nn.Linear], *, backwards: bool) -> None:
    per_layer = 3
    layers = [target[i : i + per_layer] for i in range(0, len(target), per_layer)]
    ordered = [linear for layer in (reversed(layers) if backwards else layers) for linear in layer]
    for i, (ours_linear, theirs_linear) in enumerate(zip(source, ordered, strict=True)):
        theirs_linear.weight.copy_(ours_linear.weight)
        is_last = i % per_layer == per_layer - 1
        theirs_linear.bias.copy_(shifted(ours_linear.bias) if is_last else ours_linear.bias)


def shifted(bias: Tensor) -> Tensor:
    """The biases of a feature are of its widths, heights and slopes, in this order."""
    bias = bias.clone().unflatten(0, (-1, 3 * BINS - 1))
    bias[:, 2 * BINS :] += SLOPE_OF_ZERO
    return bias.flatten()


if __name__ == "__main__":
    print(json.dumps({"difference": difference(sys.argv[1])}))
