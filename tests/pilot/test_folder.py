"""The folder of a trial: what is not a trial's own is left alone, and a dead process holds nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from corank.errors import FileError
from corank.pilot.folder import is_free, locked, trial_folder

IDENTITY = {"kind": "l2"}


def _open(out, identity=IDENTITY, **terms):
    with trial_folder(out, identity, **terms):
        pass


def test_a_folder_of_ones_own_that_is_called_work_is_kept(tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.tex").write_text("years")
    with pytest.raises(FileError, match="holds no trial.*choose another folder, or move it away"):
        _open(tmp_path)
    assert (tmp_path / "work" / "thesis.tex").read_text() == "years"


@pytest.mark.parametrize("name", ["work/search.json", "tune.db"])
def test_the_folder_of_a_search_is_kept(tmp_path, name):
    (tmp_path / "work").mkdir()
    (tmp_path / name).write_text("{}")
    with pytest.raises(FileError, match="holds a search of `corank tune`. Choose another folder"):
        _open(tmp_path)
    assert (tmp_path / name).exists()


@pytest.mark.parametrize("left", ["work", "work/.trial.x1.json", "pilot.json and work/seed0"])
def test_what_a_killed_run_left_is_no_hindrance(tmp_path, left):
    (tmp_path / "work").mkdir()
    if "seed0" in left:  # a finished trial, killed while it removed its work
        (tmp_path / "work" / "seed0").mkdir()
        (tmp_path / "pilot.json").write_text(json.dumps({"identity": IDENTITY}))
    elif left != "work":
        (tmp_path / left).write_text("{")
    _open(tmp_path)
    assert [one.name for one in (tmp_path / "work").iterdir()] == ["trial.json"]


def test_a_trial_begun_without_the_new_keys_is_gone_on_with_and_another_is_refused(tmp_path):
    _open(tmp_path)
    _open(tmp_path, {**IDENTITY, "data_digest": "9f"})
    with pytest.raises(FileError, match="batch_size is None there and 32 here"):
        _open(tmp_path, {**IDENTITY, "batch_size": 32})
    (tmp_path / "work" / "trial.json").write_text(json.dumps({**IDENTITY, "data_digest": "a0"}))
    with pytest.raises(FileError, match="data_digest is a0 there and 9f here"):
        _open(tmp_path, {**IDENTITY, "data_digest": "9f"})


_HOLDER = """
import os, sys, time
from pathlib import Path
from corank.pilot.folder import locked
with locked(Path(sys.argv[1])):
    child = os.fork()
    if child == 0:
        print(os.getpid(), flush=True)
        time.sleep(60)
        os._exit(0)
    time.sleep(60)
"""


def test_the_children_of_a_killed_process_hold_nothing(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", _HOLDER, str(tmp_path)], stdout=subprocess.PIPE)
    child = int(holder.stdout.readline())
    try:
        assert not is_free(tmp_path)
        holder.kill()
        holder.communicate()
        assert is_free(tmp_path)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_child_that_leaves_the_block_does_not_let_go_for_its_parent(tmp_path):
    with locked(tmp_path):
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        assert not is_free(tmp_path)
    assert is_free(tmp_path)
