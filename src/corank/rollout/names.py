"""Names that clients give to requests and keys: what every database, log and page takes."""

from __future__ import annotations

from corank.errors import CorankError

_MOST = 200  # characters


def require_name(what: str, name: object) -> None:
    r"""Refuse what is no name; None and the empty text stand for none.

    Printable text holds no NUL, no control character and no half of a surrogate pair.

    Raises: CorankError.

    >>> require_name("key", "山田 7")
    >>> require_name("key", "a\n")
    Traceback (most recent call last):
    corank.errors.CorankError: key: a name is printable text, got 'a\n'. Leave out what does not print.
    """
    if name is None:
        return
    if not isinstance(name, str):
        raise CorankError(f"{what}: a name is a text, got a {type(name).__name__}.")
    if len(name) > _MOST:
        raise CorankError(f"{what}: a name has at most {_MOST} characters, got {len(name)}.")
    if not name.isprintable():
        raise CorankError(
            f"{what}: a name is printable text, got {ascii(name)[:100]}. Leave out what does not print."
        )
