"""What low rank could gain on a hardware, as a value: per layer and for the whole network, with a verdict.

`corank.headroom` measures it; `corank.benchmarks.headroom` holds the measurement.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from corank.documents import read_document, write_document

SCHEMA = 1
RATIOS = (0.125, 0.25, 0.5)  # rank over full rank
WORTH = 1.1  # a whole network that gains less at a quarter of its ranks is not worth the trouble


@dataclass(frozen=True, slots=True)
class LayerHeadroom:
    """The speedup of one layer: its best split at each rank ratio, and the fastest that was measured.

    `share` is the layer's part of the whole network's time. A speedup below 1 is slower than dense.
    """

    layer: str
    share: float
    full_rank: int
    speedups: Mapping[str, float]  # by rank ratio
    method: str | None = None
    rank: int | None = None
    best: float = 1.0


@dataclass(frozen=True, slots=True)
class Headroom:
    """Speedups of the whole network if every layer that gains is split, and what bounds them.

    `speedups` is by rank ratio, `best` with the fastest measured split of each layer, `bound` what it would
    be if the layers that can be split took no time at all (Amdahl). `weight_bytes` are those of dense, and
    of the network of `best`.
    """

    backend: str
    threads: int
    precision: str
    batch: int
    whole_ms: float
    layers: tuple[LayerHeadroom, ...]
    skipped: Mapping[str, str]
    speedups: Mapping[str, float]
    best: float
    bound: float
    machine: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    weight_bytes: tuple[int, int] | None = None

    @property
    def worth_it(self) -> bool:
        """Whether a quarter of the ranks makes the whole network at least 1.1 times as fast."""
        return self.speedups[_key(0.25)] >= WORTH

    @property
    def verdict(self) -> str:
        """One line: worth it, or do not bother."""
        quarter = self.speedups[_key(0.25)]
        if self.worth_it:
            return f"worth it: {quarter:.2f} times as fast at a quarter of the ranks, {self.best:.2f} at best"
        return (
            f"do not bother: {quarter:.2f} times as fast at a quarter of the ranks, below {WORTH}; "
            f"{self.best:.2f} at best, {self.bound:.2f} if the layers took no time"
        )

    def to_json(self) -> str:
        """Write it as JSON with a schema number."""
        return write_document(SCHEMA, asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Headroom:
        """Read it from JSON.

        Raises: FileError, for text that is not a headroom of a known schema.
        """

        def make(values: dict[str, Any]) -> Headroom:
            layers = tuple(LayerHeadroom(**one) for one in values.pop("layers"))
            sizes = values.pop("weight_bytes", None)
            return cls(
                layers=layers,
                notes=tuple(values.pop("notes")),
                weight_bytes=None if sizes is None else (sizes[0], sizes[1]),
                **values,
            )

        return read_document(text, "headroom", SCHEMA, make)

    def __str__(self) -> str:
        ratios = list(self.speedups)
        head = ["layer", "share", *(f"at {ratio}" for ratio in ratios), "best", "by"]
        rows = [head, *(_cells(one, ratios) for one in self.layers)]
        whole = [f"{self.speedups[ratio]:.2f}" for ratio in ratios]
        bound = f"bound {self.bound:.2f}" if self.bound < 100 else "no bound seen"
        rows.append(["whole network", "100%", *whole, f"{self.best:.2f}", bound])
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        engine = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        lines = [
            self.verdict,
            f"{self.backend} ({engine}), batch {self.batch}, threads {self.threads}, {self.precision}, "
            f"dense {self.whole_ms:.3f} ms; {self.machine.get('cpu', 'unknown processor')}",
            "speedup over dense by rank ratio; a layer that does not gain stays dense in the whole network",
            "",
            *(
                "  ".join(
                    cell.ljust(width) if column == 0 else cell.rjust(width)
                    for column, (cell, width) in enumerate(zip(row, widths, strict=True))
                ).rstrip()
                for row in rows
            ),
        ]
        left = [f"left alone: {name}: {reason}" for name, reason in self.skipped.items()]
        return "\n".join([*lines, *left, *(f"note: {note}" for note in self.notes)])


def _cells(one: LayerHeadroom, ratios: list[str]) -> list[str]:
    speedups = [f"{one.speedups[ratio]:.2f}" if ratio in one.speedups else "-" for ratio in ratios]
    by = "-" if one.method is None else f"{one.method} {one.rank} of {one.full_rank}"
    return [one.layer, f"{one.share:.1%}", *speedups, f"{one.best:.2f}", by]


def _key(ratio: float) -> str:
    return f"{ratio:g}"
