"""The pictures of what the force does to the layers: ranks, singular values and basis filters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from corank.pilot.details import cut_arms, find_layer, layer_names
from corank.pilot.drawing import PALETTE, SMALL, Frame, draw, grid, look, mark, titles, words
from corank.pilot.formats import MISSING, known
from corank.pilot.tables import label
from corank.wording import say

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Arm = Mapping[str, Any]
FLOOR = -4  # power of ten, of the largest singular value: what lies below is nothing to a network
SPECTRA = 8  # layers shown, spread over the network
FILTERS = 64  # basis filters shown
IN_A_ROW = 8


def ranks(result: Mapping[str, Any], arm: Arm, key: str) -> str | None:
    """Draw the rank of each layer of one arm: full, spectral and kept; None without layers."""
    found = {layer["name"]: layer for layer in arm.get("layers") or () if known(layer.get("full_rank"))}
    names = [name for name in layer_names(cut_arms(result)) if name in found]
    if not found:
        return None
    style = look(arm["name"])
    largest = max(layer["full_rank"] for layer in found.values())

    def paint(ax: Axes) -> None:
        for row, name in enumerate(names):
            layer = found[name]
            ax.barh(row, layer["full_rank"], height=0.62, color=PALETTE["rule"])
            if known(layer.get("plan_rank")):
                ax.barh(row, layer["plan_rank"], height=0.62, color=style.colour)
            if known(layer.get("spectral_rank")):
                x = layer["spectral_rank"]
                ax.plot([x, x], [row - 0.46, row + 0.46], color=PALETTE["paper"], lw=5, solid_capstyle="butt")
                ax.plot([x, x], [row - 0.46, row + 0.46], color=PALETTE["ink"], lw=2, solid_capstyle="butt")
        ax.set_xlim(0, largest * 1.02)
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.set_yticks(range(len(names)), [words(name, 20) for name in names], size=SMALL)
        ax.locator_params(axis="x", integer=True)
        ax.spines["left"].set_visible(False)
        titles(ax, label(arm["name"]), say("rank"))

    said = "; ".join(
        say(
            "{layer}: full {full}, spectral {spectral}, {kept}",
            layer=name,
            full=layer["full_rank"],
            spectral=_or_missing(layer.get("spectral_rank")),
            kept=say("kept {rank}", rank=layer["plan_rank"])
            if known(layer.get("plan_rank"))
            else say("left alone"),
        )
        for name, layer in found.items()
    )
    frame = Frame(360, 62 + 20 * len(names), left=16 + 0.56 * SMALL * max(len(words(n, 20)) for n in names))
    title = say("Rank of each layer, {arm}", arm=label(arm["name"]))
    return draw(key, frame, paint, title=title, text=said)


def _or_missing(x: float | None) -> str:
    return str(x) if known(x) else say(MISSING)


def spectrum_arms(result: Mapping[str, Any]) -> list[Arm]:
    """Return the two arms that differ by the force alone: without it (else the dense one), and with it."""
    arms = {arm["name"]: arm for arm in result["arms"]}
    plain = arms.get("lowrank") or arms.get("dense")
    forced = arms.get("force") or arms.get("force_plan")
    return [arm for arm in (plain, forced) if arm is not None]


def spectrum_layers(result: Mapping[str, Any]) -> list[str]:
    """Choose the layers whose spectra are shown: those that an arm cut, thinned evenly to `SPECTRA`."""
    arms = spectrum_arms(result)
    drawn = [name for name in layer_names(arms) if any(_values(arm, name) for arm in arms)]
    cut = [name for name in drawn if any(_kept(arm, name) for arm in cut_arms(result))]
    names = cut or drawn
    step = max(1.0, (len(names) - 1) / (SPECTRA - 1))
    return [names[round(i * step)] for i in range(min(len(names), SPECTRA))]


def _kept(arm: Arm, name: str) -> int | None:
    """Return the rank that an arm kept in one layer, or None where it left the layer alone."""
    kept: int | None = (find_layer(arm, name) or {}).get("plan_rank")
    return kept


def _values(arm: Arm, name: str) -> list[float]:
    """Return the singular values of one layer as fractions of the largest."""
    values = (find_layer(arm, name) or {}).get("singular_values") or []
    largest = max((x for x in values if known(x)), default=0.0)
    return [x / largest for x in values if known(x)] if largest > 0 else []


def _floor(result: Mapping[str, Any]) -> int:
    """Return the power of ten below all values that any of the pictures shows, at least `FLOOR`."""
    shown = [_values(arm, name) for arm in spectrum_arms(result) for name in spectrum_layers(result)]
    least = min((x for values in shown for x in values if x > 0), default=0.1)
    return max(FLOOR, min(-1, math.floor(math.log10(least))))


def spectrum(result: Mapping[str, Any], name: str, key: str) -> str:
    """Draw the singular values of one layer with and without force, on a scale shared by all layers."""
    lines = [(arm, values) for arm in spectrum_arms(result) if (values := _values(arm, name))]
    floor = _floor(result)

    def paint(ax: Axes) -> None:
        ax.set_yscale("log")
        ax.set_ylim(10.0**floor, 1.6)
        decades = range(floor, 1)
        ax.set_yticks([10.0**d for d in decades], [f"{10.0**d:.{-d}f}" for d in decades])
        ax.set_yticks([], minor=True)
        longest = max(len(values) for _, values in lines)
        ax.set_xlim(0, longest + 1)
        ax.locator_params(axis="x", integer=True, nbins=4)
        grid(ax, "y")
        for arm, values in lines:
            style = look(arm["name"])
            ax.plot(range(1, len(values) + 1), values, ls=style.dash, color=style.colour)
            kept = _kept(arm, name)
            if kept is not None and 1 <= kept <= len(values):
                mark(ax, kept, values[kept - 1], style)
        titles(ax, words(name, 20), "")

    said = "; ".join(
        say(
            "{arm}: number {number} of {all} is {value} of the largest",
            arm=label(arm["name"]),
            number=len(values) // 2 + 1,
            all=len(values),
            value=f"{values[len(values) // 2]:.2g}",
        )
        for arm, values in lines
    )
    frame = Frame(172, 155, left=48, right=8, bottom=22)
    return draw(key, frame, paint, title=say("Singular values of {layer}", layer=name), text=said)


def _outline(x: float, y: float, side: float) -> tuple[list[float], list[float]]:
    """Return a closed square, without which white weights would run into the page."""
    return [x, x + side, x + side, x, x], [y, y, y + side, y + side, y]


def basis_filters(arm: Arm, key: str) -> str | None:
    """Draw the basis filters of one layer as small grey images; None where there are none."""
    found = arm.get("basis_filters") or {}
    images = [np.asarray(image, dtype=float) for image in (found.get("filters") or ())[:FILTERS]]
    if not images:
        return None
    lines = math.ceil(len(images) / IN_A_ROW)

    def paint(ax: Axes) -> None:
        ax.set_axis_off()
        for place, image in enumerate(images):
            row, column = divmod(place, IN_A_ROW)
            limit = float(np.abs(image[np.isfinite(image)]).max(initial=0.0)) or 1.0
            extent = (column, column + 0.88, row + 0.88, row)
            # each filter on its own scale, zero is mid-grey
            ax.plot(*_outline(column, row, 0.88), color=PALETTE["rule"], lw=1)
            ax.imshow(image, "gray", vmin=-limit, vmax=limit, interpolation="none", extent=extent)
        ax.set_xlim(0, IN_A_ROW)
        ax.set_ylim(lines, 0)
        ax.set_aspect("auto")
        titles(ax, f"{label(arm['name'])}, {words(str(found.get('layer')), 26)}", "")

    total = len(found["filters"])
    frame = Frame(360, 30 + 44 * lines, left=4, right=4, bottom=2, top=28)
    text = say(
        "{all} filters of {layer} as grey images, the first {shown} shown",
        all=total,
        layer=found.get("layer"),
        shown=len(images),
    )
    title = say("Basis filters, {arm}", arm=label(arm["name"]))
    return draw(key, frame, paint, title=title, text=text)
