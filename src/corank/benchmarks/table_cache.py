"""Measured times on disk, one JSON file for each set of terms under which they hold."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from corank.errors import FileError
from corank.files import write_text

SCHEMA = 1
Ratio: TypeAlias = tuple[float, float, float]  # time over that of the dense layer, and its 95% interval


@dataclass(slots=True)
class Times:
    """What was measured so far.

    `whole` are seconds of whole networks, `dense` those of each one's units, taken in turns with it;
    `ratios` are of a unit's splits, by the split's structure, so that methods that build the same share it,
    and so do networks. With a path it is written after every change.
    """

    terms: Mapping[str, Any]
    path: Path | None = None
    whole: dict[str, float] = field(default_factory=dict)
    dense: dict[str, dict[str, float]] = field(default_factory=dict)
    ratios: dict[str, dict[str, Ratio]] = field(default_factory=dict)
    unsteady: list[str] = field(default_factory=list)  # networks and units of which a run drifted to the end

    def save(self) -> None:
        """Write the file, whole or not at all; without a path, nothing."""
        if self.path is not None:
            values = {
                "schema": SCHEMA,
                "terms": self.terms,
                "dense": self.dense,
                "ratios": self.ratios,
                "whole": self.whole,
                "unsteady": self.unsteady,
            }
            write_text(self.path, json.dumps(values))


def open_times(cache: Path | str | None, terms: Mapping[str, Any]) -> Times:
    """Return what was measured under these very terms before, or nothing yet.

    Args:
        cache: a folder; None keeps nothing.
        terms: processor, engine and versions, threads, precision: all that a time depends on.
    Raises: FileError, for a file in the folder that is not what this corank writes.
    """
    if cache is None:
        return Times(terms)
    digest = hashlib.sha256(json.dumps(terms, sort_keys=True).encode()).hexdigest()[:16]
    path = Path(cache).expanduser() / f"latency-{digest}.json"
    if not path.exists():
        return Times(terms, path)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["schema"] != SCHEMA or values["terms"] != json.loads(json.dumps(terms)):
            raise ValueError(f"schema {values['schema']}")
        ratios = {
            unit: {one: (float(r), float(low), float(high)) for one, (r, low, high) in some.items()}
            for unit, some in values["ratios"].items()
        }
        dense = {
            key: {unit: float(second) for unit, second in some.items()}
            for key, some in values["dense"].items()
        }
        whole = {key: float(second) for key, second in values["whole"].items()}
        return Times(terms, path, whole, dense, ratios, list(values["unsteady"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FileError(
            f"{path}: is not a cache of this corank ({type(error).__name__}: {error}). Delete it."
        ) from error
