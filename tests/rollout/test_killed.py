"""kill -9 under load: no acknowledged outcome is lost, none counts twice, the split stays the same."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.killed import ROOT


def run(folder, url, seed, kills, total):
    words = [str(folder), url, str(seed), str(kills), str(total)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.rollout.killed", *words], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check(found, kills, total):
    assert found["failed"] == []
    assert found["codes"] == [0, 0, 0]
    assert found["killed"] >= kills / 2  # a worker may have ended before
    assert found["acknowledged"] == total
    assert found["rows"] == {"all": total, "requests": total, "left": 0}
    assert found["counted"] == total
    assert found["same split"]


def test_three_processes_killed_four_times(tmp_path, url):
    check(run(tmp_path, url, 1, 4, 500), 4, 500)


@pytest.mark.slow
def test_three_processes_killed_forty_times(tmp_path, url):
    check(run(tmp_path, url, 2, 40, 30_000), 40, 30_000)
