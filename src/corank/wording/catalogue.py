"""Messages in the language of the moment, and how that is set."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from string import Formatter
from typing import NamedTuple

from corank.errors import CorankError
from corank.wording import japanese, japanese_decision

_ENGLISH_NAMES = {
    "macs": "multiplications",
    "params": "parameters",
    "bytes": "size",
    "peak_memory": "peak memory",
    "latency": "time",
}
CATALOGUES: dict[str, Mapping[str, str]] = {"en": {}, "ja": japanese.MESSAGES | japanese_decision.MESSAGES}
NAMES: dict[str, Mapping[str, str]] = {"en": _ENGLISH_NAMES, "ja": japanese.NAMES}
REASONS: dict[str, tuple[tuple[str, str], ...]] = {"en": (), "ja": japanese_decision.REASONS}
LOCALES = {"en": None, "ja": "ja_JP"}  # None: what the user chose
LANGUAGES = tuple(CATALOGUES)
_SPOKEN: ContextVar[str] = ContextVar("corank language", default="en")


class Part(NamedTuple):
    """A piece of a message, and the anchor of its source where it is a figure."""

    text: str
    anchor: str = ""


@contextmanager
def speaking(language: str) -> Iterator[None]:
    """Say everything in this language within the block, in this thread or task alone.

    Raises: CorankError, for a language without a catalogue.

    >>> with speaking("ja"):
    ...     say("not measured")
    '未測定'
    """
    require_language(language)
    before = _SPOKEN.set(language)
    try:
        yield
    finally:
        _SPOKEN.reset(before)


def require_language(language: str) -> None:
    """Raise CorankError, for a language without a catalogue."""
    if language not in CATALOGUES:
        raise CorankError(f"lang: allowed are {', '.join(LANGUAGES)}, got {language!r}.")


def language() -> str:
    """Return the language of the moment."""
    return _SPOKEN.get()


def locale(chosen: str) -> str:
    """Return the locale in which money is written: the user's, or that of another language."""
    return LOCALES[language()] or chosen


def say(text: str, **values: object) -> str:
    """Return a message in the language of the moment, its placeholders filled.

    Args:
        text: the English message, written out where it is said: the tests collect it from there.
        values: for its placeholders; put in as they are.

    >>> say("{low} to {high}", low=1, high=2)
    '1 to 2'
    """
    return CATALOGUES[language()].get(text, text).format(**values)


def parts(text: str, **values: Part | str) -> tuple[Part, ...]:
    """Return a message in pieces, so that each figure keeps the anchor of its source.

    >>> parts("It runs {pace} as fast.", pace=Part("2.00×", "speed"))[1]
    Part(text='2.00×', anchor='speed')
    """
    found: list[Part] = []
    for literal, field, _, _ in Formatter().parse(CATALOGUES[language()].get(text, text)):
        if literal:
            found.append(Part(literal))
        if field is not None:
            value = values[field]
            found.append(value if isinstance(value, Part) else Part(value))
    return tuple(found)


def mark(text: str) -> str:
    """Mark a message that is said later, such as a title in a table; returns it as it is."""
    return text


def named(text: str) -> str:
    """Return a word of a result, such as the name of a corruption, where the language has its own for it."""
    return NAMES[language()].get(text, text)


def reason(text: str) -> str:
    """Return a layer's reason in the language of the moment where it is known, else in English as it is."""
    for pattern, translated in REASONS[language()]:
        if found := re.fullmatch(pattern, text):
            return translated.format(*found.groups())
    return text
