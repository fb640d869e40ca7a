"""Return on investment: what a speedup is worth, from measured times and the user's own numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from math import ceil, isfinite
from pathlib import Path
from typing import Any

from corank.cut_targets import require_key
from corank.errors import CorankError
from corank.extras import import_extra
from corank.files import read_toml
from corank.wording.catalogue import locale

DAYS = 365.25 / 12  # of a month
_TEXTS = ("currency", "locale", "backend")


@dataclass(frozen=True, slots=True)
class Economics:
    """The user's numbers. Money is in one currency throughout.

    Args:
        cost_per_hour: of one instance.
        requests_per_day: inferences of one sample each.
        currency: ISO 4217, such as EUR.
        locale: how money is written, such as de_DE.
        utilisation: the share of its time that an instance is busy.
        watts: what an instance draws more while it is busy; 0 leaves electricity out.
        electricity: price of a kWh.
        engineer_hours, engineer_cost: of the introduction, and of one hour.
        training_hours: of the pilot; None takes what the trial measured.
        training_cost: of one hour of it; None takes `cost_per_hour`.
        backend: the engine that serves; None takes the one on which dense is fastest.
    """

    cost_per_hour: float
    requests_per_day: float
    currency: str = "USD"
    locale: str = "en_US"
    utilisation: float = 0.5
    watts: float = 0.0
    electricity: float = 0.0
    engineer_hours: float = 0.0
    engineer_cost: float = 0.0
    training_hours: float | None = None
    training_cost: float | None = None
    backend: str | None = None

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name in _TEXTS:
                if not isinstance(value, str) and not (one.name == "backend" and value is None):
                    raise CorankError(f"economics: {one.name} is a text, got {value!r}.")
                continue
            if value is None and one.name in ("training_hours", "training_cost"):
                continue
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not isfinite(value) or value < 0:
                raise CorankError(f"economics: {one.name}: allowed is a number from 0, got {value!r}.")
        if not self.cost_per_hour or not self.requests_per_day:
            raise CorankError("economics: cost_per_hour and requests_per_day must be above 0.")
        if not 0 < self.utilisation <= 1:
            raise CorankError(
                f"economics: utilisation: allowed is a fraction in (0, 1], got {self.utilisation}."
            )
        _require_currency(self.currency, self.locale)

    @classmethod
    def read(cls, path: Path | str) -> Economics:
        """Read them from TOML.

        Raises: FileError, when it is absent or no TOML; CorankError, for an unknown key, naming the nearest,
            one that is missing, or a value that is not allowed.
        """
        values = read_toml(Path(path), "table of the economics")
        known = [one.name for one in fields(cls)]
        for key in values:
            require_key(str(path), key, known)
        for key in ("cost_per_hour", "requests_per_day"):
            if key not in values:
                raise CorankError(f"{path}: {key} is missing. Add it.")
        try:
            return cls(**values)
        except CorankError as error:
            raise CorankError(f"{path}: {error}") from error

    @property
    def busy_hour(self) -> float:
        """What an hour of work costs: an instance for as long as it takes to do one, and its electricity."""
        return self.cost_per_hour / self.utilisation + self.power_hour

    @property
    def power_hour(self) -> float:
        """What the electricity of an hour of work costs."""
        return self.watts / 1000 * self.electricity

    def money(self, amount: float) -> str:
        """Write an amount as the locale does; one below 1 with two digits that count.

        >>> Economics(1.0, 1000.0, currency="EUR", locale="de_DE").money(1234.5).replace(chr(160), " ")
        '1.234,50 €'
        """
        numbers: Any = import_extra("babel.numbers", "decision")
        small = 0 < abs(amount) < 1
        return str(
            numbers.format_currency(
                float(f"{amount:.2g}") if small else amount,
                self.currency,
                locale=locale(self.locale),
                decimal_quantization=not small,
            )
        )


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of dense and small on one engine.

    Args:
        engine: its name.
        dense_ms: of one batch.
        batch: samples in it.
        speedup: of small over dense.
        interval: of the speedup, 95%; None where it is a bound.
        peaks: bytes of dense and small; None where they were not measured.
        training_hours: of the trial.
    """

    engine: str
    dense_ms: float
    batch: int
    speedup: float
    interval: tuple[float, float] | None = None
    peaks: tuple[float, float] | None = None
    training_hours: float = 0.0


def estimate(terms: Economics, measured: Measured) -> dict[str, Any]:
    """Turn a speedup into money.

    A request costs the time that it holds an instance, seconds / utilisation · cost of an hour / 3600,
    and the electricity of the seconds that it keeps it busy. The saving of a month is requests ·
    (before − after), and its interval that of the speedup s carried through 1 − 1/s, which rises with s.

    Args:
        terms: the user's numbers.
        measured: times on one engine.
    Returns: plain values for pilot.json: cost per million inferences, saving per month, payback in months,
        instances and memory, and how the saving moves with each number.

    >>> found = estimate(Economics(3.6, 1e6, utilisation=1.0), Measured("torch", 10.0, 10, 2.0, (1.6, 2.5)))
    >>> found["cost_per_million"], round(found["saving_per_month"], 3)
    ({'before': 1.0, 'after': 0.5}, 15.219)
    """
    seconds = measured.dense_ms / 1000 / measured.batch
    before = _per_million(terms, seconds)
    after = before / measured.speedup
    saving = _saving(terms, seconds, measured.speedup)
    ends = None
    if measured.interval is not None:
        ends = [_saving(terms, seconds, one) for one in measured.interval]
    hours = measured.training_hours if terms.training_hours is None else terms.training_hours
    training_cost = terms.cost_per_hour if terms.training_cost is None else terms.training_cost
    invested = terms.engineer_hours * terms.engineer_cost + hours * training_cost
    load = [
        terms.requests_per_day / 86_400 * one / terms.utilisation
        for one in (seconds, seconds / measured.speedup)
    ]
    whole = [max(1, ceil(one - 1e-9)) for one in load]
    return {
        "engine": measured.engine,
        "speedup": measured.speedup,
        "speedup_ci": None if measured.interval is None else list(measured.interval),
        "cost_per_million": {"before": before, "after": after},
        "saving_per_month": saving,
        "saving_per_month_ci": ends,
        "investment": invested,
        "training_hours": hours,
        "payback_months": _payback(invested, saving),
        "payback_months_ci": None if ends is None else [_payback(invested, one) for one in reversed(ends)],
        "instances": {"before": load[0], "after": load[1], "whole_before": whole[0], "whole_after": whole[1]},
        "saving_per_month_whole_instances": DAYS
        * 24
        * (
            (whole[0] - whole[1]) * terms.cost_per_hour
            + (load[0] - load[1]) * terms.utilisation * terms.power_hour
        ),
        "memory_bytes": None
        if measured.peaks is None
        else {"before": whole[0] * measured.peaks[0], "after": whole[1] * measured.peaks[1]},
        "sensitivity": sensitivity_table(terms, measured),
    }


def sensitivity_table(terms: Economics, measured: Measured) -> list[dict[str, Any]]:
    """Return how the saving of a month moves when one number is half or twice what was given."""
    seconds = measured.dense_ms / 1000 / measured.batch
    rows = []
    for name in ("requests_per_day", "cost_per_hour", "utilisation"):
        value = getattr(terms, name)
        ends = [value / 2, min(2 * value, 1.0) if name == "utilisation" else 2 * value]
        savings = [_saving(replace(terms, **{name: one}), seconds, measured.speedup) for one in ends]
        rows.append({"name": name, "values": ends, "savings": savings})
    if measured.interval is not None:
        savings = [_saving(terms, seconds, one) for one in measured.interval]
        rows.append({"name": "speedup", "values": list(measured.interval), "savings": savings})
    return rows


def as_dict(terms: Economics) -> dict[str, Any]:
    """Return the numbers as plain values, which `Economics(**values)` takes back."""
    return asdict(terms)


def _per_million(terms: Economics, seconds: float) -> float:
    return seconds * 1e6 / 3600 * terms.busy_hour


def _saving(terms: Economics, seconds: float, speedup: float) -> float:
    return terms.requests_per_day * DAYS / 1e6 * _per_million(terms, seconds) * (1 - 1 / speedup)


def _payback(invested: float, saving: float) -> float | None:
    return invested / saving if saving > 0 else None


def _require_currency(currency: str, locale: str) -> None:
    babel, numbers = import_extra("babel", "decision"), import_extra("babel.numbers", "decision")
    try:
        babel.Locale.parse(locale)
    except (ValueError, babel.UnknownLocaleError) as error:
        raise CorankError(f"economics: locale: allowed is such as en_US or ja_JP, got {locale!r}.") from error
    if not numbers.is_currency(currency):
        raise CorankError(f"economics: currency: allowed is ISO 4217, such as EUR, got {currency!r}.")
