"""The latency table: how long each layer takes, dense and split, measured on the engine that will serve it.

It is a value, like a plan: `corank.latency_table` measures it where the network will run, and a plan is made
from it anywhere. `corank.benchmarks.table` holds the measurement.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any

from corank.documents import read_document, write_document
from corank.errors import CorankError

SCHEMA = 1
DENSE = "dense"


@dataclass(frozen=True, slots=True)
class TableRow:
    """The time of one structure of one layer: of all its calls in one run of the network.

    `method` is "dense" for the layer as it is, with its full rank; rank is per group. `ratio` is the time
    over that of the dense layer, measured side by side in one run, with its 95% interval: below 1 it is
    faster. `ms` is the dense layer's time times the ratio.
    """

    layer: str
    method: str
    rank: int
    ms: float
    ratio: float = 1.0
    ratio_ci: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        low, high = self.ratio_ci
        if not (isfinite(self.ms) and self.ms > 0 and isfinite(high) and 0 < low <= self.ratio <= high):
            raise CorankError(
                f"{self.layer}: a time is above 0 ms and a ratio lies within its interval, "
                f"got {self.ms} ms, {self.ratio} in {self.ratio_ci}."
            )
        if self.rank < 1:
            raise CorankError(f"{self.layer}: a rank is a whole number from 1, got {self.rank}.")


@dataclass(frozen=True, slots=True)
class LatencyTable:
    """What was measured, and where: one row a structure, every layer's dense row among them.

    `whole_ms` is the time of the whole dense network on the example; what of it is no layer's, such as
    pooling and additions, no plan can change.
    """

    backend: str
    threads: int
    precision: str
    batch: int
    whole_ms: float
    rows: tuple[TableRow, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that were measured, in the network's order."""
        return tuple(row.layer for row in self.rows if row.method == DENSE)

    @property
    def digest(self) -> str:
        """What a plan records of the table that it was made with."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def dense(self, layer: str) -> TableRow:
        """Return the row of a layer as it is.

        Raises: CorankError, when the layer was not measured.
        """
        return self._one(layer, DENSE, None)

    def splits(self, layer: str) -> tuple[TableRow, ...]:
        """Return the rows of a layer's splits, by method and rising rank."""
        found = [row for row in self.rows if row.layer == layer and row.method != DENSE]
        return tuple(sorted(found, key=lambda row: (row.method, row.rank)))

    def ms(self, layer: str, method: str, rank: int) -> float:
        """Return the time of a split, in milliseconds: linear in the rank between two that were measured.

        Below the lowest measured rank it is that one's time, above the highest it grows in proportion.
        Raises: CorankError, when no rank of this method was measured.
        """
        rows = [row for row in self.splits(layer) if row.method == method]
        if not rows:
            measured = sorted({row.method for row in self.splits(layer)}) or ["nothing but the dense layer"]
            raise CorankError(
                f"{layer}: the latency table has no {method}, there is: {', '.join(measured)}. Measure it: "
                f"latency_table(..., methods=[{method!r}])."
            )
        below = [row for row in rows if row.rank <= rank]
        above = [row for row in rows if row.rank >= rank]
        if not below:
            return rows[0].ms
        if not above:
            return rows[-1].ms * rank / rows[-1].rank
        low, high = below[-1], above[0]
        share = 0.0 if low.rank == high.rank else (rank - low.rank) / (high.rank - low.rank)
        return low.ms + share * (high.ms - low.ms)

    def _one(self, layer: str, method: str, rank: int | None) -> TableRow:
        for row in self.rows:
            if row.layer == layer and row.method == method and rank in (None, row.rank):
                return row
        raise CorankError(
            f"{layer}: the latency table does not cover it. Measure again with this network: "
            "corank.latency_table(model, example)."
        )

    def to_json(self) -> str:
        """Write the table as JSON with a schema number."""
        return write_document(SCHEMA, asdict(self))

    @classmethod
    def from_json(cls, text: str) -> LatencyTable:
        """Read a table from JSON.

        Raises: FileError, for text that is not a table of a known schema.
        """

        def make(values: dict[str, Any]) -> LatencyTable:
            rows = [{**row, "ratio_ci": tuple(row["ratio_ci"])} for row in values.pop("rows")]
            notes = tuple(values.pop("notes"))
            return cls(rows=tuple(TableRow(**row) for row in rows), notes=notes, **values)

        return read_document(text, "latency table", SCHEMA, make)
