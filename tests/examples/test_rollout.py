"""The roll-out's example runs: the cut network is promoted, the broken one rolled back."""

from __future__ import annotations

import pytest
from examples.rollout import main


@pytest.mark.slow
def test_the_example_ends_as_it_says(tmp_path, capsys):
    pytest.importorskip("sklearn", reason="the digits come with the extra `digits`")
    ended = main(tmp_path)
    assert ended["small"]["status"] == "promoted"
    assert ended["broken"]["status"] == "rolled back"
    assert "quality" in ended["broken"]["reason"] or "disagreement" in ended["broken"]["reason"]
    said = capsys.readouterr().out
    assert said.startswith("the gate: ")
    assert "broken: served beside dense" in said
