"""The pictures of a pilot's report: each function draws one, as SVG to be put inside the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from corank.pilot.drawing import PALETTE, TEXT, Frame, breadth, draw, grid, look, mark, titles, words, write
from corank.pilot.formats import interval, known, milliseconds, percent
from corank.pilot.metric import score_of
from corank.pilot.placement import Box, place
from corank.pilot.tables import label
from corank.wording import say

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Arm = Mapping[str, Any]


def accuracy_latency(result: Mapping[str, Any], engine: str, key: str) -> str | None:
    """Draw accuracy against latency on one engine, an interval on both axes; None where nothing was timed."""
    score = score_of(result)
    form = score.form
    dots = []
    for arm in result["arms"]:
        latency = (arm.get("latency_ms") or {}).get(engine)
        if known(latency) and known(arm.get("accuracy")):
            spread = _pair((arm.get("latency_p5_p95") or {}).get(engine), latency)
            dots.append(
                (arm, latency, spread, arm["accuracy"], _pair(arm.get("accuracy_ci"), arm["accuracy"]))
            )
    if not dots:
        return None

    def paint(ax: Axes) -> None:
        lows, highs = [dot[4][0] for dot in dots], [dot[4][1] for dot in dots]
        room = max(highs) - min(lows) or 0.01
        ax.set_xlim(0, 1.12 * max(dot[2][1] for dot in dots))
        ax.set_ylim(min(lows) - 0.22 * room, max(highs) + 0.22 * room)
        ax.yaxis.set_major_formatter(lambda y, _: _tick(y, room) if score.unit else form(y))
        grid(ax, "y")
        titles(
            ax, words(say("{metric} on {engine}", metric=score.title, engine=engine), 36), say("latency, ms")
        )
        for arm, x, (left, right), y, (low, high) in dots:
            style = look(arm["name"])
            ax.plot([left, right], [y, y], color=style.colour, solid_capstyle="butt")
            ax.plot([x, x], [low, high], color=style.colour, solid_capstyle="butt")
            mark(ax, x, y, style)
        _label(ax, [(arm["name"], x, low, high) for arm, x, _, _, (low, high) in dots])

    said = [
        say(
            "{arm}: {value} (95% interval {interval}) at {latency}",
            arm=label(arm["name"]),
            value=form(y),
            interval=interval(arm.get("accuracy_ci"), form, score.unit),
            latency=milliseconds(x),
        )
        for arm, x, _, y, _ in dots
    ]
    title = say("{metric} against latency on {engine}", metric=score.title, engine=engine)
    return draw(key, Frame(360, 270), paint, title=title, text="; ".join(said))


def _tick(y: float, room: float) -> str:
    """Write an accuracy at a tick; beyond 100% there is nothing to write."""
    return "" if y > 1 + 1e-9 else percent(y, 1 if room < 0.04 else 0)


def _pair(pair: Sequence[float | None] | None, middle: float) -> tuple[float, float]:
    low, high = pair if pair is not None and len(pair) == 2 else (None, None)
    return (low if known(low) else middle, high if known(high) else middle)


def _label(ax: Axes, marks: Sequence[tuple[str, float, float, float]]) -> None:
    """Write each arm's name in its colour near its interval: arm, x, low, high."""
    corner = (ax.bbox.x0, ax.bbox.y0)
    boxes = []
    for _, x, low, high in marks:
        (px, bottom), (_, top) = ax.transData.transform([(x, low), (x, high)]) - corner
        boxes.append(Box(px - 5, bottom, px + 5, top))
    names = [words(label(arm), 32) for arm, *_ in marks]
    sizes = [(0.58 * TEXT * breadth(name), TEXT) for name in names]
    room = Box(0, 2, ax.bbox.width + 10, ax.bbox.height)
    for (arm, *_), name, box in zip(marks, names, place(boxes, sizes, room), strict=True):
        write(ax, name, (0, 0), ((box.left + box.right) / 2, box.bottom + 2), look(arm).colour, "center")


def history(result: Mapping[str, Any], key: str) -> str | None:
    """Draw dev accuracy by epoch, a line per arm, with the cut marked; None where nothing was recorded."""
    lines = []
    for arm in result["arms"]:
        rows = [row for row in arm.get("history") or () if known(row.get("dev_accuracy"))]
        if rows:
            lines.append((arm, [row["epoch"] for row in rows], [row["dev_accuracy"] for row in rows]))
    if not lines:
        return None
    cuts = sorted({cut for arm, *_ in lines if (cut := _cut_epoch(arm)) is not None})

    def paint(ax: Axes) -> None:
        values = [y for _, _, ys in lines for y in ys]
        room = max(values) - min(values) or 0.01
        ax.set_ylim(min(values) - 0.06 * room, max(values) + 0.06 * room)
        ax.set_xlim(0, max(x for _, xs, _ in lines for x in xs) + 1)
        ax.yaxis.set_major_formatter(lambda y, _: _tick(y, room) if score.unit else form(y))
        grid(ax, "y")
        for cut in cuts:
            ax.axvline(cut + 0.5, color=PALETTE["muted"], lw=1)
            write(ax, say("cut"), ((cut + 0.5) / ax.get_xlim()[1], 0), (-5, 6), PALETTE["muted"], "right")
        for arm, xs, ys in lines:
            style = look(arm["name"])
            ax.plot(xs, ys, ls=style.dash, color=style.colour)
            mark(ax, xs[-1], ys[-1], style)
        ax.locator_params(axis="x", integer=True)
        titles(ax, words(say("{metric} on the dev samples", metric=score.title), 36), say("epoch"))

    score = score_of(result)
    form = score.form
    said = [
        say(
            "{arm} ends at {value} after epoch {epoch}",
            arm=label(arm["name"]),
            value=form(ys[-1]),
            epoch=xs[-1],
        )
        for arm, xs, ys in lines
    ]
    said += [say("the cut comes after epoch {epoch}", epoch=cut) for cut in cuts]
    title = say("{metric} during training", metric=score.title)
    return draw(key, Frame(360, 270), paint, title=title, text="; ".join(said))


def _cut_epoch(arm: Arm) -> int | None:
    """Return the last epoch before the cut, or None for an arm that never was cut."""
    rows = arm.get("history") or ()
    if arm["name"] == "dense" or not any(row.get("phase") == "after_cut" for row in rows):
        return None
    return max((row["epoch"] for row in rows if row.get("phase") != "after_cut"), default=0)
