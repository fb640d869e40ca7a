"""How the pictures of a report look, and the way from a matplotlib figure to SVG inside a page.

Pictures are drawn in the light palette below. Each of its colours is replaced by the page's CSS variable of
the same name, so that one drawing serves light, dark and print. Sizes are in CSS pixels.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unicodedata import east_asian_width

from corank.extras import import_extra
from corank.pilot.svg import inline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PALETTE = {
    "paper": "#fffffe",
    "ink": "#17202b",
    "muted": "#566172",
    "rule": "#d5dbe3",
    "dense": "#6a7482",
    "lowrank": "#b8540a",
    "force": "#0067a5",
    "other": "#7a4a9e",
}
TEXT = 12.0  # pixels
SMALL = 11.0
_STYLE = {
    "svg.fonttype": "none",  # text stays text: it can be read aloud, copied, and takes the page's font
    "svg.hashsalt": "corank",  # or every run would name its clip paths anew
    "text.parse_math": False,  # a layer may be called $x$
    "axes.unicode_minus": True,
    "font.size": TEXT,
    "text.color": PALETTE["muted"],
    "axes.edgecolor": PALETTE["rule"],
    "axes.labelcolor": PALETTE["muted"],
    "axes.linewidth": 1.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": PALETTE["rule"],
    "ytick.color": PALETTE["rule"],
    "xtick.labelcolor": PALETTE["muted"],
    "ytick.labelcolor": PALETTE["muted"],
    "xtick.major.size": 3.0,
    "ytick.major.size": 0.0,
    "xtick.minor.size": 0.0,
    "ytick.minor.size": 0.0,
    "lines.linewidth": 1.75,
    "lines.solid_capstyle": "round",
}


@dataclass(frozen=True, slots=True)
class Look:
    """How an arm is drawn in every picture: never by its colour alone."""

    token: str  # the name of its colour in PALETTE and in the page's CSS
    marker: str
    dash: str | tuple[float, tuple[float, ...]] = "-"

    @property
    def colour(self) -> str:
        return PALETTE[self.token]


LOOKS = {
    "dense": Look("dense", "o", (0, (1, 2))),
    "lowrank": Look("lowrank", "s", (0, (5, 2))),
    "force": Look("force", "^"),
    "force_plan": Look("other", "v", (0, (3, 2, 1, 2))),
}


def look(arm: str) -> Look:
    """Return how an arm is drawn; arms of other names share one look."""
    return LOOKS.get(arm, Look("other", "D", (0, (3, 2, 1, 2))))


@dataclass(frozen=True, slots=True)
class Frame:
    """The size of a picture and the room around its axes, in CSS pixels."""

    width: float
    height: float
    left: float = 50
    right: float = 14
    top: float = 26
    bottom: float = 36

    @property
    def box(self) -> tuple[float, float, float, float]:
        """The axes as matplotlib wants them: left, bottom, width, height as fractions."""
        w, h = self.width, self.height
        return (
            self.left / w,
            self.bottom / h,
            (w - self.left - self.right) / w,
            (h - self.top - self.bottom) / h,
        )


def draw(key: str, frame: Frame, paint: Callable[[Axes], None], *, title: str, text: str) -> str:
    """Draw one picture as SVG to be put inside a page.

    Args:
        key: a word that no other picture of the page has: its ids begin with it.
        frame: the picture's size.
        paint: draws on the axes.
        title: the picture's name, read aloud.
        text: what it shows, read aloud.
    Returns: an `<svg>` element, the same for equal input.
    Raises: ExtraError, where matplotlib is not installed.
    """
    matplotlib = import_extra("matplotlib", "report")
    figures = import_extra("matplotlib.figure", "report")
    buffer = io.StringIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the browser has the font
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        figure = figures.Figure(
            figsize=(frame.width / 72, frame.height / 72), dpi=72
        )  # one point is one pixel
        paint(figure.add_axes(frame.box))
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return inline(buffer.getvalue(), key, PALETTE, title=title, text=text)


def grid(ax: Axes, axis: Any) -> None:
    ax.grid(visible=True, axis=axis, color=PALETTE["rule"], lw=0.75)
    ax.set_axisbelow(True)
    ax.spines["left"].set_visible(False)


def titles(ax: Axes, top: str, bottom: str) -> None:
    """Write both axes' names flat: the upright one's on top, the level one's below on the right."""
    write(ax, top, (0, 1), (2 - ax.bbox.x0, 12), PALETTE["ink"], "left")
    write(ax, bottom, (1, 0), (0, -30), PALETTE["muted"], "right")


def write(
    ax: Axes, text: str, at: tuple[float, float], shift: tuple[float, float], colour: str, ha: Any
) -> None:
    """Write text at a corner of the axes, shifted by pixels."""
    ax.annotate(
        text,
        at,
        shift,
        xycoords="axes fraction",
        textcoords="offset points",
        color=colour,
        ha=ha,
        va="baseline",
        weight="normal" if colour == PALETTE["muted"] else "bold",
    )


def mark(ax: Axes, x: float, y: float, style: Look) -> None:
    """Put an arm's mark at a point."""
    ax.plot([x], [y], style.marker, color=style.colour, ms=8, mec=PALETTE["paper"], mew=1)


def breadth(text: str) -> float:
    """Return how many Latin letters wide a text is; a Japanese one is as wide as two.

    >>> breadth("rank"), breadth("階数")
    (4, 4)
    """
    return sum(2 if east_asian_width(c) in "WF" else 1 for c in text)


def words(text: str, limit: int = 200) -> str:
    """Make any text drawable: what cannot be printed becomes `?`, and the middle of a long one is cut.

    >>> words("layer1.0.conv1", 9), words("a\\x00b")
    ('laye…onv1', 'a?b')
    """
    text = "".join(c if c.isprintable() else "?" for c in text)
    if len(text) <= limit:
        return text
    kept = limit - 1
    return text[: kept - kept // 2] + "…" + text[len(text) - kept // 2 :]
