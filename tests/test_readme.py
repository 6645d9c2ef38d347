"""The README's code runs as it stands, with fewer steps."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=["table", "data", "log density", "pyro"])
def test_code(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "import pyro" in block:
        pytest.importorskip("pyro").clear_param_store()
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    namespace: dict[str, object] = {}
    monkeypatch.setattr("pushforward.tabular.given.LEARN_SECONDS", 0.5)
    block = re.sub(r"max_seconds=\d+", "max_seconds=1", block)
    exec(re.sub(r"(max_steps=|range\()\d+", r"\g<1>20", block), namespace)
    elbo = namespace.get("elbo")
    assert elbo is None or (isinstance(elbo, float) and elbo < 2.3133)


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
