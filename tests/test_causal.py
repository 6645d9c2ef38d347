"""Causal transformers: who sees whom, and the sequential direction against the parallel one."""

from typing import Any

import pytest
import torch

import pushforward as pf


def layer(event_shape: int | tuple[int, int], **kwargs: Any) -> pf.TransformerAutoregressive:
    torch.manual_seed(0)
    kwargs = {"hidden_features": (16, 16), "width": 8, "heads": 2, **kwargs}
    layer = pf.TransformerAutoregressive(pf.Affine(), event_shape, **kwargs).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return layer


@pytest.mark.parametrize("context_features", [0, 3])
def test_sampling_with_the_cache_equals_the_single_pass(context_features: int) -> None:
    """Given the tokens that it emitted, the pass over all of them makes the same parameters."""
    torch.manual_seed(0)
    network = pf.CausalTransformer(6, 2, 4, (16, 16), width=8, heads=2, context_features=context_features).double()
    context = torch.randn(5, 3, dtype=torch.float64) if context_features else None
    x = torch.randn(5, 6, 2, dtype=torch.float64)
    emitted = []

    def emit(i: int, h: torch.Tensor) -> torch.Tensor:
        emitted.append(h)
        return x[:, i]

    network.sequentially(emit, x[..., 0], context)
    assert torch.allclose(torch.stack(emitted, dim=1), network(x, context), rtol=0, atol=1e-13)


def test_jacobian_is_triangular_by_tokens_in_the_order_of_generation() -> None:
    order = [2, 0, 3, 1]
    f = layer((4, 3), order=order)
    x = torch.randn(4, 3, dtype=torch.float64)
    for function in (f, f.inverse):
        jacobian = torch.func.jacrev(lambda x, g=function: g(x)[0])(x)[order][:, :, order]
        for i in range(4):
            for j in range(4):
                block = jacobian[i, :, j]
                if j > i:
                    assert (block == 0).all()
                elif j == i:
                    assert (block == torch.diag(block.diagonal())).all()
                else:
                    assert (block != 0).all()  # every channel of a token before is seen


def test_blocks_of_features_are_tokens() -> None:
    """A vector of 6 features with 2 channels is the sequence of 3 tokens of 2 channels."""
    vector, sequence = layer(6, channels=2, order=[1, 2, 0]), layer((3, 2), order=[1, 2, 0])
    z = torch.randn(5, 6, dtype=torch.float64)
    x, log_det = vector(z)
    x_sequence, log_det_sequence = sequence(z.unflatten(-1, (3, 2)))
    assert (x == x_sequence.flatten(-2)).all()
    assert (log_det == log_det_sequence).all()


def test_long_sequence_round_trip() -> None:
    f = layer((40, 2), order=range(39, -1, -1))
    x = torch.randn(3, 40, 2, dtype=torch.float64)
    z, log_det = f.inverse(x)
    again, log_det_forward = f(z)
    assert torch.allclose(again, x, rtol=0, atol=1e-11)
    assert torch.allclose(log_det, -log_det_forward, rtol=0, atol=1e-11)


def test_errors() -> None:
    with pytest.raises(ValueError, match="expected channels to divide the 5 features, got 2"):
        layer(5, channels=2)
    with pytest.raises(ValueError, match=r"expected channels to be left out, or 2 .* got 3"):
        layer((5, 2), channels=3)
    with pytest.raises(ValueError, match="permutation of the tokens"):
        layer(5, order=[0, 1])
    with pytest.raises(ValueError, match="expected heads to divide width = 8, got heads=3"):
        layer(5, heads=3)
    with pytest.raises(ValueError, match="expected at least one block"):
        layer(5, hidden_features=())
    with pytest.raises(ValueError, match=r"expected an event shape \(features,\) or \(tokens, channels\)"):
        layer((5, 2, 3))  # type: ignore[arg-type]
