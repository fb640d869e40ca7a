"""The plan: for each layer a method and a rank, or the reason why it is left alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from corank.cost import Cost
from corank.documents import read_document, write_document
from corank.errors import CorankError, FileError
from corank.rules import Rule, rule_from_dict, rule_to_dict

SCHEMA = 1
_MEASURED = ("ms_before", "ms_after", "peak_before", "peak_after")


@dataclass(frozen=True, slots=True)
class Choice:
    """What is done to one layer; rank and full rank are per group, costs of the layer on the example."""

    method: str
    rank: int
    full_rank: int
    energy: float  # the share of energy that the rank keeps, of the outputs if the plan's factors are
    before: Cost
    after: Cost
    ms_before: float | None = None  # in the latency table, where the plan was made with one
    ms_after: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """One serialisable value between choosing ranks and cutting the network.

    `factors` says what the factors keep: "weights", or "outputs" measured by `corank.calibrate`.
    `before` and `after` are the cost of the whole network on one example; the milliseconds are predicted from
    the latency table, the peaks of memory counted where a rule asks for them.
    """

    layers: Mapping[str, Choice]
    skipped: Mapping[str, str]
    before: Cost
    after: Cost
    rules: tuple[Rule, ...] = ()
    factors: str = "weights"
    table: str | None = field(default=None)  # digest of the latency table that it was made with
    ms_before: float | None = None
    ms_after: float | None = None
    peak_before: int | None = None
    peak_after: int | None = None

    def __post_init__(self) -> None:
        if self.factors not in ("weights", "outputs"):
            raise CorankError(f"plan: factors are 'weights' or 'outputs', got {self.factors!r}.")

    @property
    def rank_ratio(self) -> float:
        """The mean over all layers of rank / full rank; a layer left alone counts as 1."""
        ratios = [choice.rank / choice.full_rank for choice in self.layers.values()]
        return (sum(ratios) + len(self.skipped)) / max(len(ratios) + len(self.skipped), 1)

    def without(self, reasons: Mapping[str, str]) -> Plan:
        """Return the plan with some of its layers left alone instead, each with its reason."""
        gone = [self.layers[name] for name in reasons]
        back = sum((one.ms_before or 0.0) - (one.ms_after or 0.0) for one in gone)
        return replace(
            self,
            layers={name: choice for name, choice in self.layers.items() if name not in reasons},
            skipped={**self.skipped, **reasons},
            after=sum((one.before - one.after for one in gone), start=self.after),
            ms_after=None if self.ms_after is None else self.ms_after + back,
        )

    def to_json(self) -> str:
        """Write the plan as JSON with a schema number."""
        values = {
            "layers": {name: asdict(choice) for name, choice in self.layers.items()},
            "skipped": dict(self.skipped),
            "before": asdict(self.before),
            "after": asdict(self.after),
            "rules": [rule_to_dict(rule) for rule in self.rules],
            "factors": self.factors,
            "table": self.table,
            **{name: getattr(self, name) for name in _MEASURED},
        }
        return write_document(SCHEMA, values)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read a plan from JSON.

        Raises: FileError, for text that is not a plan of a known schema.
        """

        def make(values: dict[str, Any]) -> Plan:
            return cls(
                layers={name: _choice(one) for name, one in values["layers"].items()},
                skipped={str(name): str(reason) for name, reason in values["skipped"].items()},
                before=Cost(**values["before"]),
                after=Cost(**values["after"]),
                rules=tuple(rule_from_dict(rule) for rule in values["rules"]),
                factors=values["factors"],
                table=values["table"],
                **{name: values.get(name) for name in _MEASURED},
            )

        return read_document(text, "plan", SCHEMA, make)

    def __str__(self) -> str:
        names = [*self.layers, *self.skipped]
        width = max((len(name) for name in names), default=5)
        timed = self.ms_before is not None
        lines = [f"{'layer':{width}}  method        rank        MACs  {'  time  ' if timed else ''}note"]
        for name, choice in self.layers.items():
            rank = f"{choice.rank}/{choice.full_rank}"
            share = choice.after.macs / max(choice.before.macs, 1)
            time = f"{_ratio(choice.ms_after, choice.ms_before):>6}  " if timed else ""
            lines.append(
                f"{name:{width}}  {choice.method:12}  {rank:9}  {share:6.2f}×  {time}{choice.note}".rstrip()
            )
        lines += [f"{name:{width}}  left alone: {reason}" for name, reason in self.skipped.items()]
        lines.append(
            f"{len(self.layers)} of {len(names)} layers; the whole network: "
            f"{self.after.macs / max(self.before.macs, 1):.3f}× the MACs, "
            f"{self.after.params / max(self.before.params, 1):.3f}× the parameters"
        )
        if self.ms_before is not None and self.ms_after is not None:
            lines.append(
                f"predicted: {self.ms_after:.2f} of {self.ms_before:.2f} ms, "
                f"{self.ms_before / self.ms_after:.2f} times as fast"
            )
        if self.peak_before is not None and self.peak_after is not None:
            lines.append(f"peak memory, counted: {self.peak_after:,} of {self.peak_before:,} bytes")
        return "\n".join(lines)


def _ratio(after: float | None, before: float | None) -> str:
    return "-" if after is None or not before else f"{after / before:.2f}×"


def _choice(values: dict[str, Any]) -> Choice:
    unknown = set(values) - {one.name for one in fields(Choice)}
    if unknown:
        raise FileError(f"plan: unknown key {sorted(unknown)[0]!r} in a layer's choice.")
    costs = {"before": Cost(**values["before"]), "after": Cost(**values["after"])}
    return Choice(**{**values, **costs})
