"""Set-up of the tests, and what every doctest may use without importing it."""

import pytest
import torch

import pushforward as pf

torch.set_num_threads(1)  # small tensors: a second thread costs more than it gives


@pytest.fixture(autouse=True)
def _namespace(doctest_namespace: dict[str, object]) -> None:
    doctest_namespace["torch"] = torch
    doctest_namespace["pf"] = pf
