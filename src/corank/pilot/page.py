"""The report of a pilot: one HTML file that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from corank.decision.results import check_result
from corank.extras import import_extra
from corank.files import write_text
from corank.pilot import pictures, rank_pictures
from corank.pilot.decision_tables import decision_tables
from corank.pilot.details import cut_arms, layer_table, seed_table
from corank.pilot.drawing import look
from corank.pilot.formats import percent, plain
from corank.pilot.headline import findings, headline
from corank.pilot.metric import score_of
from corank.pilot.tables import arm_table, engines, label, metric_table

PROTOCOL = {  # how the parts of the protocol are called, in the order shown; parts not named here follow
    "data": "Data",
    "samples": "Samples",
    "classes": "Classes",
    "model": "Network",
    "metric": "Deciding metric",
    "seeds": "Seeds",
    "epochs": "Epochs",
    "optimizer": "Optimizer",
    "force": "Force",
    "target": "Target of the cut",
    "threads": "Threads",
    "precision": "Precision",
    "latency_batch": "Batch size when timed",
    "machine": "Machine",
    "versions": "Versions",
}


def write_report(result: Mapping[str, Any], path: Path) -> Path:
    """Write a pilot result as one self-contained HTML page.

    The page loads nothing: its style and pictures are inside, and a content security policy forbids the
    rest. Every figure on it comes from `result`; equal results give equal bytes.

    Args:
        result: what `pilot.json` holds, see `corank.decision.results`.
        path: where the page goes; an older one is replaced whole or not at all.
    Returns: `path`.
    Raises: FileError, for another schema, a result without arms, or a folder that cannot be written;
        ExtraError, where jinja2 or matplotlib is not installed.

    Source: corank's own.
    """
    return write_text(path, render(result))


def render(result: Mapping[str, Any]) -> str:
    """Return the page as text; see `write_report`."""
    check_result(result)
    jinja2 = import_extra("jinja2", "report")
    markup = import_extra("markupsafe", "report").Markup
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("corank.pilot"),
        autoescape=True,  # by extension would leave .j2 unescaped
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    groups, layers = layer_table(result)
    text: str = environment.get_template("report.html.j2").render(
        result=result,
        headline=headline(result),
        findings=findings(result),
        arms=arm_table(result),
        metrics=metric_table(result),
        decisions=decision_tables(result),
        score=score_of(result),
        looks={arm["name"]: look(arm["name"]).token for arm in result["arms"]},
        label=label,
        pictures={name: [markup(svg) for svg in svgs] for name, svgs in draw_all(result).items()},
        spectrum_arms=rank_pictures.spectrum_arms(result),
        rank_notes=rank_notes(result),
        groups=groups,
        layers=layers,
        seeds=seed_table(result),
        protocol=protocol_rows(result),
    )
    # half a surrogate pair is legal in JSON and not in UTF-8
    return text.encode("utf-8", "replace").decode("utf-8")


def draw_all(result: Mapping[str, Any]) -> dict[str, list[str]]:
    """Draw every picture of the page, by section; a picture without data is left out."""
    cut, forced = cut_arms(result), rank_pictures.spectrum_arms(result)
    layers = rank_pictures.spectrum_layers(result)
    drawn: dict[str, list[str | None]] = {
        "trade": [
            pictures.accuracy_latency(result, engine, f"trade{i}") for i, engine in enumerate(engines(result))
        ],
        "ranks": [rank_pictures.ranks(result, arm, f"ranks{i}") for i, arm in enumerate(cut)],
        "spectra": [rank_pictures.spectrum(result, name, f"spectrum{i}") for i, name in enumerate(layers)],
        "filters": [rank_pictures.basis_filters(arm, f"filters{i}") for i, arm in enumerate(forced)],
        "history": [pictures.history(result, "history")],
    }
    return {name: [svg for svg in svgs if svg is not None] for name, svgs in drawn.items()}


def rank_notes(result: Mapping[str, Any]) -> list[str]:
    """Say for each arm that was cut how many layers were, and what rank is left of the full one."""
    return [
        f"{label(arm['name'])}: {plain(arm.get('decomposed'))} of {len(arm.get('layers') or ())} layers "
        f"decomposed; "
        f"spectral rank {percent(arm.get('spectral_rank_ratio'), 0)} of full, "
        f"plan rank {percent(arm.get('plan_rank_ratio'), 0)} of full."
        for arm in cut_arms(result)
    ]


def protocol_rows(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the protocol as names and texts, known parts first and no part left out."""
    protocol = result["protocol"]
    order = [key for key in PROTOCOL if key in protocol] + [key for key in protocol if key not in PROTOCOL]
    rows = [(str(PROTOCOL.get(key, key)), plain(protocol[key])) for key in order]
    for arm in result["arms"]:
        if known_subnormal := arm.get("subnormal"):
            rows.append((f"Subnormal weights, {label(arm['name'])}", subnormal_note(known_subnormal)))
        if files := [arm[key] for key in ("model_file", "plan_file") if arm.get(key)]:
            rows.append((f"Files, {label(arm['name'])}", plain(files)))
    return rows


def subnormal_note(count: Mapping[str, int]) -> str:
    """Say how many weights were too small for float32's normal range, which can slow a network many times.

    >>> subnormal_note({"before_cut": 1200, "final": 0})
    '1,200 before the cut, 0 at the end; a cut sets those of the layers that it splits to zero'
    """
    return (
        f"{count['before_cut']:,} before the cut, {count['final']:,} at the end; "
        "a cut sets those of the layers that it splits to zero"
    )
