"""The folder of a trial: one run at a time, nothing of another trial touched, what is done kept."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from corank.decision.results import SCHEMA
from corank.errors import FileError
from corank.files import write_text

logger = logging.getLogger(__name__)
WORK = "work"  # holds checkpoints and finished arms until the trial is done
_NEW = ("data_digest",)  # keys of an identity that trials begun by older versions do not have
_open: set[int] = set()  # handles of the locks that this process holds


def _forget() -> None:
    """Let go of the parent's locks: a loader's worker must not hold a folder when its parent is dead."""
    for handle in _open:
        os.close(handle)
    _open.clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget)


@contextmanager
def trial_folder(out: Path, identity: Mapping[str, Any], *, again: bool = False) -> Iterator[Path]:
    """Open the folder of a trial for one run, and give the folder for its unfinished work.

    The lock is held by the operating system for this process, so a process that is dead holds none.

    Args:
        out: the folder; made if absent, removed again if the block fails before anything is in it.
        identity: what makes it this trial and no other.
        again: replace a trial that is finished.
    Raises: FileError, when it cannot be written, when another run is at work in it, or when it holds another
        trial, a search, or a folder `work` that is no trial's.
    """
    made = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{out}: cannot be made ({error.strerror}). Choose another folder.") from error
    try:
        with locked(out):
            _require_same(out, identity, again)
            work = out / WORK
            _require_own(out)
            if not (work / "trial.json").exists():
                shutil.rmtree(work, ignore_errors=True)
                write_text(work / "trial.json", json.dumps(identity, indent=1))
            else:
                logger.info("%s: goes on with an unfinished trial", out)
            yield work
    finally:
        if made:
            with suppress(OSError):  # not empty: something of value is in it
                (out / WORK).rmdir()
            with suppress(OSError):
                out.rmdir()


def close_work(work: Path) -> None:
    """Remove the unfinished work of a trial that is done."""
    (work / "trial.json").unlink()  # first, so that what a kill leaves here is not taken for a trial
    shutil.rmtree(work)


@contextmanager
def locked(out: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a folder for this process until it ends, however it ends.

    Args:
        out: the folder.
        wait: for another process that holds it.
    Raises: FileError, when another process holds it and this one is not to wait.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        logger.warning("%s: this system has no flock; do not run two trials in one folder", out)
        yield
        return
    handle = os.open(out, os.O_RDONLY)
    _open.add(handle)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise FileError(
                f"{out}: another run is at work in this folder. Wait for it, or choose another folder."
            ) from error
        yield
    finally:
        if handle in _open:  # else this is a child of the process that holds it
            _open.remove(handle)
            os.close(handle)


def is_free(folder: Path) -> bool:
    """Say whether no process holds a folder."""
    try:
        with locked(folder):
            return True
    except FileError:
        return False


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder, made if absent; wait for another process that is at work in it."""
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, wait=True):
        yield


def finished(out: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the result of this trial if it is done, else None; nothing is written."""
    if (out / WORK / "trial.json").exists() or not (out / "pilot.json").exists():
        return None
    result = _read(out / "pilot.json")
    there = result.get("identity")
    same = isinstance(there, Mapping) and is_same(there, identity) and result.get("schema") == SCHEMA
    return result if same else None


def _require_own(out: Path) -> None:
    """Raise FileError where the folder's work is not that of a trial, since it would be removed."""
    work = out / WORK
    if (work / "search.json").exists() or (out / "tune.db").exists():
        raise FileError(f"{out}: holds a search of `corank tune`. Choose another folder for the trial.")
    if (work / "trial.json").exists() or (out / "pilot.json").exists() or not work.exists():
        return  # what a finished trial left behind is its own
    # a run that was killed while it wrote trial.json leaves a hidden file
    if not work.is_dir() or any(not one.name.startswith(".trial.") for one in work.iterdir()):
        raise FileError(
            f"{work}: is there already and holds no trial. A trial keeps its checkpoints there and removes "
            "them at the end; choose another folder, or move it away."
        )


def _require_same(out: Path, identity: Mapping[str, Any], again: bool) -> None:
    unfinished, done = out / WORK / "trial.json", out / "pilot.json"
    if unfinished.exists():
        there = _read(unfinished)
        if not is_same(there, identity):
            raise FileError(
                f"{out}: holds another trial, not finished: {differences(there, identity)}. "
                "Choose another folder, or delete this one."
            )
    elif done.exists() and not again:
        old = _read(done).get("identity")
        if not isinstance(old, Mapping) or not is_same(old, identity):
            told = differences(old, identity) if isinstance(old, Mapping) else "of an older corank"
            raise FileError(
                f"{out}: holds another trial: {told}. Choose another folder, or replace it with --again."
            )


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileError(f"{path}: cannot be read ({error}). Delete it or choose another folder.") from error
    if not isinstance(found, dict):
        raise FileError(f"{path}: holds no trial. Delete it or choose another folder.")
    return found


def is_same(there: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
    """Say whether two identities are of one trial; a key that older trials lacked may be absent there.

    >>> is_same({"seeds": [0]}, {"seeds": [0], "data_digest": "9f"})
    True
    >>> is_same({"seeds": [0], "data_digest": "a0"}, {"seeds": [0], "data_digest": "9f"})
    False
    """
    return {**{key: here[key] for key in _NEW if key in here}, **there} == here


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Say in which settings two trials differ, the first three; tables are looked into.

    >>> differences({"seeds": [0], "kind": "l2"}, {"seeds": [1], "kind": "l2"})
    'seeds is [0] there and [1] here'
    >>> differences({"options": {"shared": 1, "kind": "l2"}}, {"options": {"shared": 2, "kind": "l2"}})
    'options.shared is 1 there and 2 here'
    """
    there, here = _flat(there), _flat(here)
    keys = [key for key in here if key in there and there[key] != here[key]]
    keys += [key for key in there if key not in here]
    keys += [key for key in here if key not in there and key not in _NEW]
    return "; ".join(f"{key} is {there.get(key)} there and {here.get(key)} here" for key in keys[:3])


def _flat(table: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= _flat(value, f"{path}{key}.") if isinstance(value, Mapping) else {f"{path}{key}": value}
    return found
