"""The measured front of a trial as a table, which the page's slider reads, and as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from corank.decision.economics import Economics
from corank.pilot.drawing import PALETTE, Frame, draw, grid, look, mark, titles, words
from corank.pilot.formats import COUNTS, interval, known, milliseconds, percent, scale_of, scaled, times
from corank.pilot.headline import stepped
from corank.pilot.meeting import serving_engine
from corank.pilot.metric import score_of
from corank.pilot.tables import Cell, Column, Row, Table, engines, label
from corank.wording import named, say

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Points = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class FrontView:
    """A row a point, from the whole network to the smallest, and a sentence on each."""

    table: Table
    said: tuple[str, ...]
    chosen: int
    note: str


def front_view(result: Mapping[str, Any]) -> FrontView | None:
    """Return the front as the page shows it; None where none was measured."""
    front = result.get("front")
    if not front:
        return None
    points: Points = front["points"]
    score, timed = score_of(result), engines(result)
    units = {key: scale_of((point[key] for point in points), COUNTS) for key in ("macs", "params")}
    savings = _savings(result)
    rows, said = [], []
    for place, point in enumerate(points):
        cells = [
            Cell(score.form(point["accuracy"]), (interval(point["accuracy_ci"], score.form, score.unit),)),
            _difference(result, point),
            *(_pace(point, engine) for engine in timed),
            *(Cell(scaled(point[key], units[key])) for key in ("macs", "params")),
            *([Cell(savings[place])] if savings else []),
        ]
        rows.append(Row(_arm_of(result, point), percent(point["share"], 0), _kind(point), tuple(cells)))
        said.append(_say(result, point, savings[place] if savings else None))
    columns = [
        Column(say("{metric} on dev", metric=score.title), say("95% interval")),
        Column(say("Difference"), say("95% interval")),
        *(Column(engine, say("speedup; latency")) for engine in timed),
        Column(say("MACs")),
        Column(say("Parameters")),
        *([Column(say("Saving per month"))] if savings else []),
    ]
    note = say(
        "One training, “{arm}”, cut to several shares of dense's {by}; each was trained on for {epochs} "
        "epochs after its cut and timed in the same run. {metric} here is on the dev samples, by which "
        "choices are made, so it flatters a little. The final samples were kept for the network of this "
        "page: before another point is shipped, run the trial with it as the target.",
        arm=label(front["arm"]),
        by=named(front["by"]),
        epochs=front["epochs_after_cut"],
        metric=score.title,
    )
    chosen = next(place for place, point in enumerate(points) if point["chosen"])
    return FrontView(Table(tuple(columns), tuple(rows)), tuple(said), chosen, note)


def _arm_of(result: Mapping[str, Any], point: Mapping[str, Any]) -> str:
    return "dense" if point["accuracy_difference"] is None else str(result["front"]["arm"])


def _kind(point: Mapping[str, Any]) -> str:
    if point["name"] == "dense":
        return say("dense, not cut")
    return say("the network of this page") if point["chosen"] else ""


def _difference(result: Mapping[str, Any], point: Mapping[str, Any]) -> Cell:
    if point["name"] == "dense":
        return Cell(say("reference"))
    form = score_of(result).change
    return Cell(form(point["accuracy_difference"]), (interval(point["accuracy_difference_ci"], form),))


def _pace(point: Mapping[str, Any], engine: str) -> Cell:
    latency = milliseconds(point["latency_ms"].get(engine))
    if point["name"] == "dense":
        return Cell(say("reference"), (latency,))
    sure = interval(point["speedup_ci"].get(engine), times, "×")
    return Cell(times(point["speedup"].get(engine)), (sure, latency))


def _savings(result: Mapping[str, Any]) -> list[str]:
    found = result.get("economics") or {}
    if not found.get("front"):
        return []
    terms = Economics(**found["terms"])
    return [terms.money(saving) for saving in found["front"]]


def _say(result: Mapping[str, Any], point: Mapping[str, Any], saving: str | None) -> str:
    """Say what one would gain and lose at a point."""
    if point["name"] == "dense":
        return say("The network as it was: nothing gained, nothing lost.")
    score, engine = score_of(result), str(serving_engine(result))
    change, pace = point["accuracy_difference"], point["speedup"].get(engine)
    told = say(
        "At {share} of dense's {by}: {speedup} as fast on {engine}, {metric} on dev changes by {change}",
        share=percent(point["share"], 0),
        by=named(result["front"]["by"]),
        speedup=times(pace),
        engine=engine,
        metric=score.name,
        change=stepped(score.change(change), score.steps),
    )
    if saving is not None:
        return say("{told}; saves {saving} a month.", told=told, saving=saving)
    return say("{told}.", told=told)


def front_picture(result: Mapping[str, Any], engine: str, key: str) -> str | None:
    """Draw the front on one engine, a ring around each point that the slider can show; None without times."""
    front: Mapping[str, Any] = result.get("front") or {"points": (), "arm": ""}
    points = [
        (place, point["latency_ms"][engine], point["accuracy"], point)
        for place, point in enumerate(front["points"])
        if known(point["latency_ms"].get(engine)) and known(point["accuracy"])
    ]
    if not points:
        return None
    score = score_of(result)
    style = look(front["arm"])

    def paint(ax: Axes) -> None:
        ys = [y for _, _, y, _ in points]
        room = max(ys) - min(ys) or 0.01
        ax.set_xlim(0, 1.12 * max(x for _, x, _, _ in points))
        ax.set_ylim(min(ys) - 0.3 * room, max(ys) + 0.3 * room)
        ax.yaxis.set_major_formatter(lambda y, _: "" if score.unit and y > 1 + 1e-9 else score.form(y))
        ax.locator_params(axis="y", nbins=5)
        grid(ax, "y")
        top = words(say("{metric} on dev, {engine}", metric=score.title, engine=engine), 36)
        titles(ax, top, say("latency, ms"))
        ax.plot([x for _, x, _, _ in points], ys, color=style.colour, ls=style.dash)
        for place, x, y, point in points:
            ring, ink = f"ring{place}", PALETTE["ink"]
            ax.plot([x], [y], "o", ms=19, mfc="none", mec=ink, mew=2, gid=ring, clip_on=False)
            mark(ax, x, y, look("dense") if point["name"] == "dense" else style)
            ax.annotate(percent(point["share"], 0), (x, y), (0, 14), textcoords="offset points", ha="center")

    said = "; ".join(
        say(
            "{share}: {value} at {latency}",
            share=percent(point["share"], 0),
            value=score.form(y),
            latency=milliseconds(x),
        )
        for _, x, y, point in points
    )
    title = say("The measured front on {engine}", engine=engine)
    return draw(key, Frame(360, 270), paint, title=title, text=said)
