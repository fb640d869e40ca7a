"""The exactness contract as a table: every method on every layer of the zoo, and every network.

A row is one check of one method on one layer or network; the JSON holds them all with figure and limit.
Run: python -m benchmarks.contract_table
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict

import torch

from benchmarks.record import describe_run, store, table
from corank.methods import METHODS
from corank.testing import ENGINES, LAYERS, NETWORKS, Row, check_method, failures
from corank.testing.contract import check_case
from corank.testing.engine_checks import check_layers
from corank.testing.layer_checks import LAYER_CHECKS
from corank.testing.moment_checks import MOMENT_CHECKS
from corank.testing.network_checks import NETWORK_CHECKS

SAMPLED = "compile, inductor"  # minutes of a C++ compiler: on a sample of the networks only
SAMPLE = ("depthwise separable", "u-net", "attention block")
MARKS = {True: "✓", False: "**✗**", None: "–"}
Rows = Sequence[Row]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", nargs="*", choices=list(ENGINES), default=list(ENGINES))
    engines = parser.parse_args().engines
    torch.set_num_threads(1)
    begin = time.perf_counter()
    layers = [row for method in METHODS.values() for row in check_method(method)]
    say("layers, numbers", layers, begin)
    every = [engine for engine in engines if engine != SAMPLED]
    layers += check_layers(METHODS, LAYERS, every)
    say("layers, engines", layers, begin)
    networks = []
    for name, case in NETWORKS.items():
        chosen = [*every, SAMPLED] if SAMPLED in engines and name in SAMPLE else every
        networks += check_case(case, engines=chosen, name=name)
    say("networks", networks, begin)
    others = [
        row
        for method in METHODS
        for name, case in NETWORKS.items()
        for row in check_case(case, method=method, name=name)
    ]
    say("networks by every method", others, begin)
    rows = [*layers, *networks, *others]
    body = page(layers, networks, others, every)
    data = {"seconds": round(time.perf_counter() - begin), "rows": [short(row) for row in rows]}
    precision = "engines in float32, numbers in the dtype that the check names or float64"
    store("contract", "Exactness contract", body, data, describe_run(seed=0, precision=precision))
    return 1 if failures(rows) else 0


def say(what: str, rows: Rows, begin: float) -> None:
    sys.stderr.write(f"{time.perf_counter() - begin:6.0f} s  {what}: {count(rows)}\n")


def short(row: Row) -> dict:
    """Leave out what a row does not have; `passed` is always there, null where a check does not apply."""
    values = asdict(row)
    return {key: value for key, value in values.items() if key == "passed" or value not in (None, "")}


def count(rows: Rows) -> str:
    verdicts = [row.passed for row in rows]
    return f"{verdicts.count(True)} pass, {verdicts.count(False)} fail, {verdicts.count(None)} n/a"


def page(layers: Rows, networks: Rows, others: Rows, engines: Sequence[str]) -> str:
    rows = [*layers, *networks, *others]
    parts = [
        f"{len(rows):,} checks of {len(METHODS)} methods on {len(LAYERS)} layers and {len(NETWORKS)} "
        f"networks: {count(rows)}. ✓ passes, ✗ fails, – does not apply (the reasons are at the end), "
        "a blank was not run. `corank.testing` runs the same on your own method or network.",
        "## Every check, with its worst figure\n" + worst(rows),
    ]
    parts += [failed(rows)] if failures(rows) else []
    checks = [*LAYER_CHECKS, *MOMENT_CHECKS, *engines]
    for method in METHODS:
        mine = [row for row in layers if row.method == method and row.check != "refused"]
        refused = [row for row in layers if row.method == method and row.check == "refused"]
        parts.append(f"## Layers by `{method}`\n{grid(mine, checks)}\n\n{refusals(refused)}")
    parts.append(
        "## Networks by the default methods\nEvery layer that can be split is: at full rank for exactness, "
        f"at half of it for the rest.\n\n{grid(networks, [*NETWORK_CHECKS, *engines, SAMPLED])}"
    )
    parts.append(
        "## Networks by each method\nWhere a method refuses a layer, the default takes it. A cell counts the "
        f"{len(NETWORK_CHECKS)} checks above that need no engine.\n\n{by_method(others)}"
    )
    parts.append("## What is left alone in the networks\n" + left_alone(networks))
    parts.append("## What does not apply, and why\n" + reasons(rows))
    return "\n\n".join(parts)


def worst(rows: Rows) -> str:
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row.check].append(row)
    lines = []
    for check, mine in found.items():
        measured = [row for row in mine if row.figure is not None and row.limit is not None]
        top = max(measured, key=lambda row: row.figure / row.limit, default=None)
        figure = "" if top is None else f"{top.figure:.1e} of {top.limit:.1e} ({top.subject}, {top.method})"
        lines.append([check, *(sum(row.passed is one for row in mine) for one in MARKS), figure])
    return table(["check", "pass", "fail", "n/a", "nearest to its limit"], lines)


def failed(rows: Rows) -> str:
    return "## Failures\n" + "\n".join(f"- {row}" for row in failures(rows))


def grid(rows: Rows, checks: Sequence[str]) -> str:
    cells = {(row.subject, row.check): MARKS[row.passed] for row in rows}
    subjects = dict.fromkeys(row.subject for row in rows)
    lines = [[name or "(root)", *(cells.get((name, check), "") for check in checks)] for name in subjects]
    return table(["", *checks], lines)


def refusals(rows: Rows) -> str:
    found: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        found[f"{MARKS[row.passed]} {row.note}"].append(row.subject)
    return "\n".join(f"- {reason}: {', '.join(names)}." for reason, names in found.items())


def by_method(rows: Rows) -> str:
    cells: dict[tuple[str, str], list[bool | None]] = defaultdict(list)
    for row in rows:
        cells[row.subject, row.method].append(row.passed)
    lines = []
    for name in NETWORKS:
        verdicts = [cells[name, method] for method in METHODS]
        lines.append([name, *(MARKS[False] if False in one else f"{one.count(True)} ✓" for one in verdicts)])
    return table(["", *METHODS], lines)


def left_alone(networks: Iterable[Row]) -> str:
    named = [row for row in networks if row.check == "nothing raised, all named" and row.note]
    return "\n".join(f"- {row.subject}: {row.note}." for row in named)


def reasons(rows: Rows) -> str:
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        if row.passed is None:
            found[row.note, row.subject].add(row.check)
    merged: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
    for (note, subject), checks in found.items():
        merged[note, tuple(sorted(checks))].append(subject)
    return "\n".join(
        f"- {several(subjects)} ({'; '.join(checks)}): {note}." for (note, checks), subjects in merged.items()
    )


def several(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names) if len(names) <= most else f"{len(names)} layers"


if __name__ == "__main__":
    sys.exit(main())
