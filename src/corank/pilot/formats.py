"""Numbers as words: each function turns one number of a pilot result into text, and None into `MISSING`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

from corank.wording import mark, say

MISSING = mark("not measured")
MINUS = "\N{MINUS SIGN}"


class Scale(NamedTuple):
    """A unit and what it is worth, shared by a whole column so that its numbers compare."""

    divisor: float
    unit: str


COUNTS = (Scale(1e9, " G"), Scale(1e6, " M"), Scale(1e3, " k"), Scale(1, ""))
BYTES = (Scale(2**30, " GiB"), Scale(2**20, " MiB"), Scale(2**10, " KiB"), Scale(1, " B"))


def known(x: float | None) -> TypeGuard[float]:
    """Say whether a number was measured: neither None, nor NaN, nor infinite."""
    return x is not None and math.isfinite(x)


def scale_of(values: Iterable[float | None], scales: Sequence[Scale]) -> Scale:
    """Choose the unit in which the largest value is at least 1.

    >>> scale_of([900, 2_000_000], COUNTS)
    Scale(divisor=1000000.0, unit=' M')
    """
    largest = max((abs(x) for x in values if known(x)), default=0)
    return next((scale for scale in scales if largest >= scale.divisor), scales[-1])


def significant(x: float | None, digits: int = 3) -> str:
    """Write a number with this many significant digits, without an exponent.

    >>> significant(0.41234), significant(12.345), significant(1234.5)
    ('0.412', '12.3', '1,234')
    """
    if not known(x):
        return say(MISSING)
    decimals = digits if x == 0 else max(0, digits - 1 - math.floor(math.log10(abs(x))))
    return f"{x:,.{0 if x == 0 else decimals}f}".replace("-", MINUS)


def scaled(x: float | None, scale: Scale) -> str:
    """Write a count or a number of bytes in a given unit.

    >>> scaled(1_234_567, COUNTS[1]), scaled(4096, BYTES[2])
    ('1.23 M', '4.00 KiB')
    """
    if not known(x):
        return say(MISSING)
    if scale.divisor == 1:
        return f"{x:,.0f}{scale.unit}"
    return significant(x / scale.divisor) + scale.unit


def percent(x: float | None, digits: int = 1) -> str:
    """Write a fraction in percent.

    >>> percent(0.98123), percent(0.0625, 2)
    ('98.1%', '6.25%')
    """
    return f"{x * 100:.{digits}f}%".replace("-", MINUS) if known(x) else say(MISSING)


def points(x: float | None, digits: int = 1) -> str:
    """Write a difference of fractions in percentage points, always with its sign.

    >>> points(-0.0031), points(0.0031), points(-0.0001)
    ('−0.3', '+0.3', '0.0')
    """
    if not known(x):
        return say(MISSING)
    text = f"{abs(x) * 100:.{digits}f}"
    if float(text) == 0:
        return text
    return (MINUS if x < 0 else "+") + text


def times(x: float | None) -> str:
    """Write a ratio of two times.

    >>> times(1.8437), times(12.34)
    ('1.84×', '12.3×')
    """
    return say("{ratio}×", ratio=f"{x:.{2 if abs(x) < 10 else 1}f}") if known(x) else say(MISSING)


def milliseconds(x: float | None) -> str:
    """Write a time given in milliseconds.

    >>> milliseconds(0.41234)
    '0.412 ms'
    """
    return f"{significant(x)} ms" if known(x) else say(MISSING)


def duration(x: float | None) -> str:
    """Write a time given in seconds in the units that a person would use.

    >>> duration(4.26), duration(192.4), duration(3900)
    ('4.3 s', '3 min 12 s', '1 h 05 min')
    """
    if not known(x):
        return say(MISSING)
    if x < 59.95:
        return say("{seconds} s", seconds=f"{x:.1f}")
    whole = round(x)
    if whole < 3600:
        return say("{minutes} min {seconds} s", minutes=whole // 60, seconds=f"{whole % 60:02d}")
    minutes = round(x / 60)
    return say("{hours} h {minutes} min", hours=minutes // 60, minutes=f"{minutes % 60:02d}")


def interval(pair: Sequence[float | None] | None, form: Callable[[float | None], str], unit: str = "") -> str:
    """Write an interval as `low to high`; a unit that ends both is written once.

    >>> interval([0.962, 0.991], percent, "%"), interval([-0.011, 0.005], points), interval(None, percent)
    ('96.2 to 99.1%', '−1.1 to +0.5', 'not measured')
    """
    if pair is None or len(pair) != 2 or not all(known(x) for x in pair):
        return say(MISSING)
    low, high = (form(x) for x in pair)
    return say("{low} to {high}", low=low.removesuffix(unit), high=high)


def listing(parts: Iterable[object]) -> str:
    """Join words as a sentence does.

    >>> listing(["a"]), listing("abc")
    ('a', 'a, b and c')
    """
    *head, last = [str(part) for part in parts] or [""]
    return say("{head} and {last}", head=say(", ").join(head), last=last) if head else last


def plain(x: Any) -> str:
    """Write any value of the protocol: mappings and lists flat, None as missing.

    >>> plain({"lr": 0.05, "nesterov": True, "name": "SGD"}), plain([0, 1]), plain(None)
    ('lr 0.05, nesterov yes, name SGD', '0, 1', 'not measured')
    """
    if x is None:
        return say(MISSING)
    if isinstance(x, bool):
        return say("yes") if x else say("no")
    if isinstance(x, float):
        return f"{x:g}".replace("-", MINUS) if math.isfinite(x) else say(MISSING)
    if isinstance(x, Mapping):
        return ", ".join(f"{key} {plain(value)}" for key, value in x.items()) or say("none")
    if isinstance(x, Sequence) and not isinstance(x, str | bytes):
        return ", ".join(plain(value) for value in x) or say("none")
    return str(x)
