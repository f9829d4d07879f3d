"""The versions that a result depends on."""

from __future__ import annotations

from pathlib import Path

import torch

from msgdas.runs import Run, versions


def test_versions_can_go_into_the_config(tmp_path: Path) -> None:
    found = versions()
    assert found["torch"] == torch.__version__
    assert found["threads"] == torch.get_num_threads()
    with Run.create(tmp_path / "run", {"versions": found}) as made:
        assert made.config == {"versions": found}
