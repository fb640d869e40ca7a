"""Where a command writes, looked at before it measures for minutes."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path

from corank.errors import FileError


def require_writable(path: Path | None) -> None:
    """Raise FileError unless a file can be written at a path; nothing is left there. None is no file.

    >>> require_writable(Path(tempfile.gettempdir()) / "absent" / "table.json")
    """
    if path is None:
        return
    if path.is_dir():
        raise FileError(f"{path}: is a folder. Name a file.")
    made = [one for one in path.parents if not one.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise FileError(f"{path}: cannot be written ({error.strerror}). Choose another folder.") from error
    finally:
        for folder in made:  # the innermost first
            with suppress(OSError):
                folder.rmdir()
