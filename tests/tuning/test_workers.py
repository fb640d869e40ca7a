"""Several workers on one search: started by torchrun, as on a machine with several processors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("optuna", reason="the search comes with the extra `tune`")
pytest.importorskip("matplotlib", reason="the pictures come with the extra `report`")

ROOT = Path(__file__).resolve().parents[2]


def test_torchrun_starts_workers_that_share_the_trials(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "tests.tuning.worker", str(tmp_path / "search")]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
    }
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((tmp_path / "search" / "tune.json").read_text())
    assert [one["number"] for one in result["trials"]] == list(range(4))  # not one too many
    assert {one["state"] for one in result["trials"]} <= {"complete", "pruned"}
    drawn = [json.dumps(one["settings"], sort_keys=True) for one in result["trials"]]
    assert len(set(drawn)) == 4, "a setting was run twice"
    workers = {path.read_text() for path in (tmp_path / "search" / "work").glob("trial*/worker")}
    assert workers == {"0", "1"}, "one worker did it all"
