"""Write a benchmark's result: a table for people and JSON for machines, with how it was measured."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from corank._version import __version__
from corank.benchmarks import describe_machine
from corank.files import write_text

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"


def describe_run(seed: int, precision: str = "float32") -> dict[str, Any]:
    """Say how a result came about: command, seed, versions, threads, precision, machine and load."""
    return {
        "command": shlex.join(["python", "-m", _module(), *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "corank": __version__,
        "seed": seed,
        "threads": torch.get_num_threads(),
        "precision": precision,
        "load_average": os.getloadavg()[0],
        "machine": describe_machine(),
    }


def _module() -> str:
    script = Path(sys.argv[0])
    package = script.parent.name if script.parent.name in ("benchmarks", "examples") else "benchmarks"
    return f"{package}.{script.stem}"


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Make a Markdown table.

    >>> print(table(["a", "b"], [[1, 0.5]]))
    | a | b |
    |---|---|
    | 1 | 0.5 |
    """
    lines = [columns, *rows]
    text = ["| " + " | ".join(str(cell) for cell in line) + " |" for line in lines]
    return "\n".join([text[0], "|" + "---|" * len(columns), *text[1:]])


def store(name: str, title: str, body: str, data: Any, run: Mapping[str, Any]) -> None:
    """Write docs/results/<name>.md and .json, and print the page."""
    machine = run["machine"]
    made = (
        f"`{run['command']}`, {run['date']}, seed {run['seed']}, threads {run['threads']}, "
        f"{run['precision']}, corank {run['corank']}, load {run['load_average']:.1f} at the end; "
        + ", ".join(f"{key} {value}" for key, value in sorted(machine.get("versions", {}).items()))
        + f"; {machine.get('cpu', 'unknown processor')}. All figures: [{name}.json]({name}.json)."
    )
    page = f"# {title}\n{body}\n\n## How it was measured\n{made}\n"
    write_text(RESULTS / f"{name}.md", page)
    write_text(RESULTS / f"{name}.json", json.dumps({"run": run, "data": data}, indent=1, default=str))
    sys.stdout.write(page)


def stored(name: str) -> dict[str, Any]:
    """Return the data of a stored result, to add to it; nothing where there is none yet."""
    path = RESULTS / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text())["data"] if path.exists() else {}
    return found


def stored_run(name: str) -> str:
    """Say by which command and when a stored result was measured, for one that is measured again in part."""
    run = json.loads((RESULTS / f"{name}.json").read_text())["run"]
    return f"`{run['command']}`, {run['date']}"


def rounded(value: Any, digits: int = 5) -> Any:
    """Round every float in nested lists and dicts to significant digits: more would only fill the file.

    >>> rounded({"a": [0.123456789, 7]})
    {'a': [0.12346, 7]}
    """
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, Mapping):
        return {key: rounded(one, digits) for key, one in value.items()}
    return [rounded(one, digits) for one in value] if isinstance(value, list | tuple) else value


def kept(path: Path, text: str, make: Callable[[], Any]) -> Any:
    """Return what a JSON file holds; where it is not there yet, say what is made, make it and keep it."""
    if not path.exists():
        say(text)
        write_text(path, json.dumps(make()))
    return json.loads(path.read_text())


def say(text: str) -> None:
    """Tell whoever waits what is being measured."""
    sys.stderr.write(text + "\n")


def interval(one: Mapping[str, Any]) -> str:
    """Write a speedup with its interval.

    >>> interval({"speedup": 2.691, "ci": [2.6, 2.75]})
    '2.69 (2.60 – 2.75)'
    """
    low, high = one["ci"]
    return f"{one['speedup']:.2f} ({low:.2f} – {high:.2f})"
