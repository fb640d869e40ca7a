"""The tables behind the main one: what happened to each layer, and the spread over seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from corank.pilot.formats import (
    COUNTS,
    MISSING,
    interval,
    known,
    scale_of,
    scaled,
    significant,
    times,
)
from corank.pilot.metric import score_of
from corank.pilot.tables import Cell, Column, Row, Table, label
from corank.wording import say
from corank.wording.catalogue import reason


def cut_arms(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the arms that were meant to be decomposed: all but the dense one."""
    return [arm for arm in result["arms"] if arm["name"] != "dense"]


def layer_names(arms: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the layers of some arms, each once, in order."""
    return list(dict.fromkeys(layer["name"] for arm in arms for layer in arm.get("layers") or ()))


def find_layer(arm: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """Return what an arm says of one layer."""
    return next((layer for layer in arm.get("layers") or () if layer["name"] == name), None)


def layer_table(result: Mapping[str, Any]) -> tuple[tuple[str, ...], Table]:
    """Build the table of layers: a row per layer, and four columns for every arm that was cut.

    Returns: the arms that the columns are grouped by, and the table. A layer that an arm left alone
        has its reason across the last three of the arm's columns.
    """
    arms = cut_arms(result)
    four = tuple(map(Column, (say("Spectral rank"), say("Plan rank"), say("Error"), say("MACs"))))
    rows = []
    for name in layer_names(arms):
        found = [find_layer(arm, name) for arm in arms]
        first = next(layer for layer in found if layer is not None)
        full = first.get("full_rank")
        cells = [Cell(say(MISSING) if full is None else str(full))]
        for layer in found:
            cells += _layer(layer)
        rows.append(Row("", name, str(first.get("kind") or ""), tuple(cells)))
    columns = (Column(say("Full rank")), *(column for _ in arms for column in four))
    return tuple(arm["name"] for arm in arms), Table(columns, tuple(rows))


def _layer(layer: Mapping[str, Any] | None) -> list[Cell]:
    if layer is None:
        return [Cell(say("not in this arm"), span=4)]
    spectral = layer.get("spectral_rank")
    cells = [Cell(say(MISSING) if spectral is None else str(spectral))]
    if layer.get("plan_rank") is None:
        why = layer.get("reason")
        told = reason(str(why)) if why else say("no reason given")
        return [*cells, Cell(say("left alone"), (told,), span=3)]
    said = tuple(reason(str(layer[key])) for key in ("method", "reason") if layer.get(key))
    before, after = layer.get("macs") or (None, None)
    unit = scale_of((before, after), COUNTS)
    return [
        *cells,
        Cell(say("{kept} of {full}", kept=layer["plan_rank"], full=layer["full_rank"]), said),
        Cell(significant(layer.get("error"), 2)),
        Cell(scaled(after, unit), (say("of {whole}", whole=scaled(before, unit)),)),
    ]


def seed_table(result: Mapping[str, Any]) -> Table | None:
    """Build the table of the spread over seeds, or None where there was one seed."""
    spread = result.get("spread")
    if not spread:
        return None
    seeds = spread["seeds"]
    score = score_of(result)
    rows = []
    for name, figures in spread["arms"].items():
        cells = _spread(figures.get("accuracy"), len(seeds), score.form, score.unit)
        rows.append(Row(name, label(name), score.name, cells))
        for engine, values in (figures.get("speedup") or {}).items():
            rows.append(
                Row(
                    name,
                    label(name),
                    say("speedup, {engine}", engine=engine),
                    _spread(values, len(seeds), times, "×"),
                )
            )
    return Table(
        (*(Column(say("Seed {seed}", seed=seed)) for seed in seeds), Column(say("Lowest to highest"))),
        tuple(rows),
    )


def _spread(
    values: Sequence[float | None] | None, seeds: int, form: Callable[[float | None], str], unit: str
) -> tuple[Cell, ...]:
    padded = [*(values or ()), *[None] * seeds][:seeds]
    present = [x for x in padded if known(x)]
    ends = (min(present), max(present)) if present else None
    return (*(Cell(form(x)) for x in padded), Cell(interval(ends, form, unit)))
