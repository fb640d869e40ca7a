from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.pilot.sample import make_result

CORANK = str(Path(sys.executable).with_name("corank"))


def _corank(*words, **options):
    return subprocess.run([CORANK, *words], capture_output=True, text=True, check=False, **options)


@pytest.mark.parametrize(
    "verb",
    [
        "headroom",
        "table",
        "plan",
        "compress",
        "apply",
        "sparsify",
        "pilot",
        "tune",
        "report",
        "gate",
        "bundle",
        "serve",
        "rollout",
    ],
)
def test_every_verb_has_help_with_an_example(verb):
    done = _corank(verb, "--help")
    assert done.returncode == 0
    assert f"Example: corank {verb}" in done.stdout
    assert verb in _corank("--help").stdout


def test_help_imports_nothing_heavy():
    code = "import sys, corank.cli; print([m for m in ('torch', 'numpy', 'scipy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pilot", "--out", "x", "--macs", "50"], "macs: allowed is a fraction in (0, 1], got 50"),
        (["pilot", "--out", "x", "--kind", "love"], "love"),
        (["pilot", "--out", "x", "--backend", "tensorrt"], "tensorrt"),
        (["table", "torch.nn:Identity", "--shape", "1,x"], "whole numbers such as 1,3,224,224, got '1,x'"),
        (["table", "--import", "absent"], "manifest.json: cannot be read"),
        (["report", "absent.json"], "absent.json: cannot be read"),
        (
            ["apply", "absent.json", "w", "--model", "torch.nn:Identity", "--out", "x"],
            "absent.json: cannot be",
        ),
    ],
)
def test_an_error_is_one_line_and_exit_code_2_and_leaves_nothing(tmp_path, words, message):
    start = time.monotonic()
    done = _corank(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
    assert time.monotonic() - start < 60


def test_report_is_made_again_from_the_json(tmp_path):
    pytest.importorskip("matplotlib", reason="the report comes with the extra `report`")
    (tmp_path / "pilot.json").write_text(json.dumps(make_result()))
    done = _corank("report", str(tmp_path / "pilot.json"))
    assert done.returncode == 0, done.stderr
    assert "<html" in (tmp_path / "report.html").read_text()


def test_plan_and_compress_a_network_of_this_folder(tmp_path):
    (tmp_path / "mynet.py").write_text(
        "from torch import nn\n\n\ndef make():\n"
        "    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8))\n"
    )
    common = ["mynet:make", "--shape", "4,64"]
    planned = _corank("plan", *common, "--target", "macs=0.5", cwd=tmp_path)
    assert planned.returncode == 0, planned.stderr
    assert json.loads((tmp_path / "plan.json").read_text())["layers"]
    words = [
        "--target",
        "macs=0.9,params=0.9",
        "--backend",
        "torch",
        "--threads",
        "1",
        "--cache",
        "kept",
        "-q",
    ]
    done = _corank("compress", *common, *words, cwd=tmp_path)
    # what pays depends on the machine; that it says so and writes a whole file, or none, does not
    if done.returncode == 0:
        assert "shipped" in done.stdout
        assert (tmp_path / "small.safetensors").exists()
    else:
        assert done.returncode == 2
        assert "cannot be kept" in done.stderr
        assert not (tmp_path / "small.safetensors").exists()
