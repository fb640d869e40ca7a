"""Files that are whole or absent: written beside their place, then renamed; and settings read from them."""

from __future__ import annotations

import os
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from corank.errors import CorankError, FileError

_KINDS = {str: "text", int: "whole number", float: "number", bool: "flag, true or false"}


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Give a temporary path in the same folder; it takes the place of `path` if the block succeeds.

    The temporary file keeps the suffix, which some writers look at. If the block or the disk fails, it is
    removed and what stood at `path` is still there.

    Raises: FileError, when the folder cannot be written.

    >>> folder = Path(tempfile.mkdtemp())
    >>> with replacing(folder / "a.txt") as temporary:
    ...     _ = temporary.write_text("whole")
    >>> [one.name for one in folder.iterdir()]
    ['a.txt']
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise FileError(f"{path}: cannot be written ({error.strerror}). Choose another folder.") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _flush(temporary)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise FileError(f"{path}: could not be written ({error.strerror or error}).") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> Path:
    """Write a whole text file, or none."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Read a file of TOML; `what` it should be is for the error.

    Raises: FileError, when it is absent or no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror}). Give a {what} in TOML.") from error
    except ValueError as error:
        raise FileError(f"{path}: is no TOML ({error}).") from error


def require_like(where: object, key: str, value: object, like: object) -> None:
    """Raise CorankError unless a setting is of the kind of another, a list in each element.

    A whole number is a number, and true is neither.

    >>> require_like("a.toml", "seeds", [0, 1.5], (0,))
    Traceback (most recent call last):
    corank.errors.CorankError: a.toml: seeds is a list, each a whole number, got 1.5.
    """
    if not isinstance(like, tuple):
        if not _is_like(value, like):
            raise CorankError(f"{where}: {key} is a {_kind(like)}, got {value!r}.")
        return
    if not isinstance(value, list | tuple):
        raise CorankError(f"{where}: {key} is a list, got {value!r}.")
    for one in value:
        if like and not _is_like(one, like[0]):
            raise CorankError(f"{where}: {key} is a list, each a {_kind(like[0])}, got {one!r}.")


def _is_like(value: object, like: object) -> bool:
    if isinstance(value, bool) or isinstance(like, bool):
        return isinstance(value, bool) and isinstance(like, bool)
    return isinstance(value, int | float if isinstance(like, float) else type(like))


def _kind(like: object) -> str:
    return _KINDS.get(type(like), type(like).__name__)


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
