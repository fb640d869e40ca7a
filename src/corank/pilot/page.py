"""The report of a pilot: one HTML file that needs nothing but itself."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from corank.decision.results import check_result
from corank.extras import import_extra
from corank.files import write_text
from corank.pilot import front_view, pictures, rank_pictures
from corank.pilot.conclusion import retold
from corank.pilot.decision_tables import decision_tables
from corank.pilot.details import cut_arms, layer_table, seed_table
from corank.pilot.drawing import look
from corank.pilot.formats import percent, plain
from corank.pilot.glossary import glossary
from corank.pilot.headline import findings, headline
from corank.pilot.meeting import meeting
from corank.pilot.metric import score_of
from corank.pilot.tables import arm_table, column_keys, engines, label, metric_table
from corank.wording import LANGUAGES, language, mark, say, speaking

_OPENING = 2000  # characters of a page, in which its language is
PROTOCOL = {  # how the parts of the protocol are called, in the order shown; parts not named here follow
    "data": mark("Data"),
    "samples": mark("Samples"),
    "classes": mark("Classes"),
    "model": mark("Network"),
    "metric": mark("Deciding metric"),
    "seeds": mark("Seeds"),
    "epochs": mark("Epochs"),
    "optimizer": mark("Optimizer"),
    "force": mark("Force"),
    "target": mark("Target of the cut"),
    "threads": mark("Threads"),
    "precision": mark("Precision"),
    "latency_batch": mark("Batch size when timed"),
    "machine": mark("Machine"),
    "versions": mark("Versions"),
}


def write_report(result: Mapping[str, Any], path: Path, lang: str = "en") -> Path:
    """Write a pilot result as one self-contained HTML page.

    The page loads nothing: its style, its pictures and the script of its slider are inside, and a content
    security policy forbids the rest. Every figure on it comes from `result`; equal results give equal bytes.

    Args:
        result: what `pilot.json` holds, see `corank.decision.results`.
        path: where the page goes; an older one is replaced whole or not at all.
        lang: `en` or `ja`.
    Returns: `path`.
    Raises: FileError, for another schema, a result without arms, or a folder that cannot be written;
        ExtraError, where jinja2 or matplotlib is not installed; CorankError, for another language.

    Source: corank's own.
    """
    return write_text(path, render(result, lang))


def page_language(path: Path) -> str:
    """Return the language that a page was written in; English where there is none."""
    try:
        start = path.read_text(encoding="utf-8")[:_OPENING]
    except OSError:
        return "en"
    found = re.search(r'<html lang="(\w+)"', start)
    return found[1] if found is not None and found[1] in LANGUAGES else "en"


def render(result: Mapping[str, Any], lang: str = "en") -> str:
    """Return the page as text; see `write_report`."""
    check_result(result)
    with speaking(lang):
        return _render(retold(result))


def _render(result: Mapping[str, Any]) -> str:
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
    script = files("corank.pilot").joinpath("templates/report.js").read_text(encoding="utf-8")
    text: str = environment.get_template("report.html.j2").render(
        say=say,
        language=language(),
        script=markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        result=result,
        headline=headline(result),
        meeting=meeting(result),
        findings=findings(result),
        arms=arm_table(result),
        arm_keys=column_keys(result),
        metrics=metric_table(result),
        decisions=decision_tables(result),
        front=front_view.front_view(result),
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
        glossary=glossary(),
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
        "front": [
            front_view.front_picture(result, engine, f"front{i}") for i, engine in enumerate(engines(result))
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
        say(
            "{arm}: {cut} of {layers} layers decomposed; spectral rank {spectral} of full, plan rank {kept} "
            "of full.",
            arm=label(arm["name"]),
            cut=plain(arm.get("decomposed")),
            layers=len(arm.get("layers") or ()),
            spectral=percent(arm.get("spectral_rank_ratio"), 0),
            kept=percent(arm.get("plan_rank_ratio"), 0),
        )
        for arm in cut_arms(result)
    ]


def protocol_rows(result: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the protocol as keys, names and texts, known parts first and no part left out."""
    protocol = result["protocol"]
    order = [key for key in PROTOCOL if key in protocol] + [key for key in protocol if key not in PROTOCOL]
    rows = [
        (key, say(PROTOCOL[key]), plain(protocol[key]))
        if key in PROTOCOL
        else ("", key, plain(protocol[key]))
        for key in order
    ]
    for arm in result["arms"]:
        if known_subnormal := arm.get("subnormal"):
            title = say("Subnormal weights, {arm}", arm=label(arm["name"]))
            rows.append(("", title, subnormal_note(known_subnormal)))
        if kept := [arm[key] for key in ("model_file", "plan_file") if arm.get(key)]:
            rows.append(("", say("Files, {arm}", arm=label(arm["name"])), plain(kept)))
    return rows


def subnormal_note(count: Mapping[str, int]) -> str:
    """Say how many weights were too small for float32's normal range, which can slow a network many times.

    >>> subnormal_note({"before_cut": 1200, "final": 0})
    '1,200 before the cut, 0 at the end; a cut sets those of the layers that it splits to zero'
    """
    return say(
        "{before} before the cut, {after} at the end; a cut sets those of the layers that it splits to zero",
        before=f"{count['before_cut']:,}",
        after=f"{count['final']:,}",
    )
