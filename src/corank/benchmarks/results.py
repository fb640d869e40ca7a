"""What a benchmark found: one row a model and engine, with everything needed to read it later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from corank.documents import read_document, write_document
from corank.errors import CorankError

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Timing:
    """How long one model takes in one engine, per call; speedup is the reference's time over its own."""

    model: str
    backend: str
    median_ms: float
    p5_ms: float
    p95_ms: float
    speedup: float
    speedup_ci: tuple[float, float]  # 95%
    peak_memory: int | None = None  # bytes; see corank.benchmarks.memory

    def __post_init__(self) -> None:
        if not 0 < self.p5_ms <= self.median_ms <= self.p95_ms:
            raise CorankError(
                f"{self.model}: times must be above 0 and rise from p5 over the median to p95, "
                f"got {self.p5_ms}, {self.median_ms}, {self.p95_ms} ms."
            )
        if not 0 < self.speedup_ci[0] <= self.speedup_ci[1]:
            raise CorankError(f"{self.model}: an interval rises from low to high, got {self.speedup_ci}.")


@dataclass(frozen=True, slots=True)
class BenchResult:
    """Times of several models in several engines, under the same terms."""

    timings: tuple[Timing, ...]
    reference: str
    threads: int
    precision: str
    batch: int
    rounds: int
    versions: Mapping[str, str]
    machine: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def row(self, model: str, backend: str) -> Timing:
        """Return the timing of one model in one engine.

        Raises: CorankError, when it was not measured.
        """
        for timing in self.timings:
            if (timing.model, timing.backend) == (model, backend):
                return timing
        measured = ", ".join(f"{timing.model} in {timing.backend}" for timing in self.timings)
        raise CorankError(f"{model!r} in {backend!r} was not measured; there is: {measured}.")

    def to_json(self) -> str:
        """Write the result as JSON with a schema number."""
        return write_document(SCHEMA, asdict(self))

    @classmethod
    def from_json(cls, text: str) -> BenchResult:
        """Read a result from JSON.

        Raises: FileError, for text that is not a benchmark of a known schema.
        """

        def make(values: dict[str, Any]) -> BenchResult:
            rows = [{**row, "speedup_ci": tuple(row["speedup_ci"])} for row in values.pop("timings")]
            notes = tuple(values.pop("notes"))
            return cls(timings=tuple(Timing(**row) for row in rows), notes=notes, **values)

        return read_document(text, "bench", SCHEMA, make)

    def __str__(self) -> str:
        head = ("backend", "model", "median ms", "p5-p95 ms", "speedup", "95% interval", "peak MB")
        rows = [head, *(_cells(timing, self.reference) for timing in self.timings)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        engines = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        lines = [
            f"batch {self.batch}, threads {self.threads}, {self.precision}, {self.rounds} rounds; {engines}",
            f"{self.machine.get('cpu', 'unknown processor')}; speedup is over {self.reference}",
            "",
            *(
                "  ".join(
                    _pad(cell, width, i) for i, (cell, width) in enumerate(zip(row, widths, strict=True))
                ).rstrip()
                for row in rows
            ),
        ]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def _cells(timing: Timing, reference: str) -> tuple[str, ...]:
    low, high = timing.speedup_ci
    memory = "-" if timing.peak_memory is None else f"{timing.peak_memory / 1e6:.1f}"
    return (
        timing.backend,
        timing.model,
        f"{timing.median_ms:.3f}",
        f"{timing.p5_ms:.3f}-{timing.p95_ms:.3f}",
        f"{timing.speedup:.2f}",
        "-" if timing.model == reference else f"{low:.2f}-{high:.2f}",
        memory,
    )


def _pad(cell: str, width: int, column: int) -> str:
    return cell.ljust(width) if column < 2 else cell.rjust(width)
