"""The study behind a search: opened once by all workers, and never taken for that of another search."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from corank.errors import CorankError, FileError, one_line
from corank.files import write_text
from corank.latency import LatencyTable
from corank.pilot.folder import differences, is_same
from corank.weights import file_digest

NAME = "corank"
SEARCH = Path("work") / "search.json"
_STUDY = Path("work") / "study.json"
_DIRECTIONS = ["maximize", "minimize"]


def require_own(out: Path, identity: Mapping[str, Any]) -> None:
    """Raise FileError when a folder holds another search, a trial of the pilot, or a damaged search."""
    path = out / SEARCH
    if path.exists():
        there = _read(path)
        if not is_same(there, identity):
            raise FileError(
                f"{out}: holds another search: {differences(there, identity)}. Choose another folder, or "
                "delete this one."
            )
        return
    if (out / "work" / "trial.json").exists() or (out / "pilot.json").exists():
        raise FileError(f"{out}: holds a trial of `corank pilot`. Choose another folder for the search.")
    if (out / "tune.db").exists():
        raise FileError(f"{out}: holds a tune.db without work/search.json. Choose another folder.")


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FileError(
            f"{path}: is damaged ({error}). Choose another folder, or delete this one."
        ) from error
    if not isinstance(found, dict):
        raise FileError(f"{path}: is damaged (no table). Choose another folder, or delete this one.")
    return found


def open_study(optuna: ModuleType, storage: Any, out: Path, identity: Mapping[str, Any]) -> Any:
    """Open the study of a search, or begin it; hold the lock of the folder meanwhile.

    The study says which search it is of, and the folder which study its trials are of: two searches that
    share a database, or a folder whose database was left out or changed, would take each other's trials.

    Raises: FileError, for the study of another search, or a folder whose trials are of another study.
    """
    plain = json.loads(json.dumps(identity))
    study = optuna.create_study(study_name=NAME, storage=storage, directions=_DIRECTIONS, load_if_exists=True)
    there = study.user_attrs.get("search")
    foreign = [one.name.lower() for one in study.directions] != _DIRECTIONS
    if foreign or (there is None and study.get_trials(deepcopy=False)):
        raise FileError(f"storage: it holds a study {NAME!r} that is no search's. Give another database.")
    if there is not None and not is_same(there, plain):
        raise FileError(
            f"storage: it holds another search: {differences(there, plain)}. Give another database."
        )
    if there is None:
        study.set_user_attr("id", uuid.uuid4().hex)  # first: who sees the search must find the id
        study.set_user_attr("search", plain)
    _require_trials(out / _STUDY, study.user_attrs["id"])
    return study


def one_table(study: Any, out: Path, measure: Callable[[], LatencyTable]) -> LatencyTable:
    """Measure the latency table that the search begins with, or read it where it was measured before.

    Raises: FileError, before anything is timed, when this folder has another table than the search, or none.
    """
    path, there = out / "work" / "table.json", study.user_attrs.get("times")
    if there is not None and not (path.exists() and file_digest(path) == there["digest"]):
        raise FileError(
            f"{out}: its latency table is not the one that the search began with, in {there['folder']}. Copy "
            f"work/table.json from there to {path}, and start again."
        )
    table = measure()
    if there is None:
        study.set_user_attr("times", {"digest": file_digest(path), "folder": str(out.resolve())})
    return table


def _require_trials(path: Path, study: str) -> None:
    if not path.exists():
        write_text(path, json.dumps({"study": study}))
        return
    if _read(path).get("study") != study:
        raise FileError(
            f"{path.parent.parent}: its trials are of a study in another database. Give the storage that it "
            "was begun with, or choose another folder."
        )


def open_storage(optuna: ModuleType, storage: str) -> Any:
    """Open an Optuna storage URL.

    Raises: CorankError, when it cannot be opened.
    """
    try:
        return optuna.storages.get_storage(storage)
    except Exception as error:  # of SQLAlchemy, of a driver that is missing, of the server
        raise CorankError(
            f"storage: it cannot be opened ({one_line(error)}). Give a URL that Optuna takes, such as "
            "sqlite:///tune.db or postgresql://user@host/name, and see that the database is there."
        ) from error


def open_database(optuna: ModuleType, out: Path) -> Any:
    """Open the SQLite database in the folder of a search, made if absent.

    Raises: FileError, when it is damaged.
    """
    from sqlalchemy import URL  # with optuna; it takes care of what is no letter in a path

    path = (out / "tune.db").resolve()
    url = URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)
    try:
        return optuna.storages.get_storage(url)
    except Exception as error:  # of SQLAlchemy
        raise FileError(
            f"{path}: cannot be opened ({one_line(error)}). Choose another folder, or delete this one."
        ) from error
