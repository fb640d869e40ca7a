"""The page's content without its pictures: as plain values for JSON, and as Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from corank.decision.results import check_result
from corank.errors import CorankError, FileError
from corank.files import write_text
from corank.pilot.conclusion import retold
from corank.pilot.decision_tables import Titled, decision_tables
from corank.pilot.details import layer_table, seed_table
from corank.pilot.front_view import front_view
from corank.pilot.glossary import glossary
from corank.pilot.headline import findings, headline
from corank.pilot.meeting import meeting, plain_sentence
from corank.pilot.page import protocol_rows, rank_notes, render
from corank.pilot.tables import (
    Cell,
    Column,
    Row,
    Table,
    arm_table,
    escape_markdown,
    label,
    metric_table,
    to_markdown_table,
)
from corank.wording import language, say, speaking


def document(result: Mapping[str, Any], lang: str = "en") -> dict[str, Any]:
    """Return what the page says, as plain values.

    Args:
        result: what `pilot.json` holds.
        lang: `en` or `ja`.
    Returns: `lang`, `headline`, `meeting`, `findings`, `tables` (key, title, note, columns and rows each),
        `ranks`, `proves`, `protocol` and `words`.
    Raises: FileError, for another schema; CorankError, for another language.
    """
    check_result(result)
    with speaking(lang):
        return _document(retold(result))


def _document(result: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "lang": language(),
        "headline": headline(result),
        "meeting": [_pair(about, plain_sentence(sentence)) for about, sentence in meeting(result)],
        "findings": [_pair(*finding) for finding in findings(result)],
        "tables": [
            {"key": one.key, "title": one.title, "note": one.note, **_plain(one.table)}
            for one in _tables(result)
        ],
        "ranks": rank_notes(result),
        "proves": list(result.get("proves") or ()),
        "protocol": [
            _pair(say("Command"), str(result["command"])),
            *(_pair(name, text) for _, name, text in protocol_rows(result)),
        ],
        "words": [_pair(*word) for word in glossary()],
    }


def _tables(result: Mapping[str, Any]) -> list[Titled]:
    """Return every table of the page, in its order."""
    front, metrics, seeds = front_view(result), metric_table(result), seed_table(result)
    decisions = decision_tables(result)
    groups, layers = layer_table(result)
    titles = [layers.columns[0].title]
    for place, column in enumerate(layers.columns[1:]):
        titles.append(f"{label(groups[place // 4])}: {column.title}")
    layers = Table(tuple(map(Column, titles)), tuple(map(_filled, layers.rows)))
    found = [
        *(one for one in decisions if one.key == "checks"),
        front and Titled("front", say("More or less: what one would gain and lose"), front.note, front.table),
        Titled("arms", say("The arms side by side"), "", arm_table(result)),
        metrics and Titled("metrics", say("All metrics on the final samples"), "", metrics),
        layers.rows and Titled("layers", say("Layer by layer"), "", layers),
        *(one for one in decisions if one.key != "checks"),
        seeds and Titled("seeds", say("Spread over seeds"), "", seeds),
    ]
    return [one for one in found if isinstance(one, Titled)]


def _filled(row: Row) -> Row:
    """Give a row a cell for every column, where one covers several."""
    cells = [one for cell in row.cells for one in (cell, *[Cell("")] * (cell.span - 1))]
    return replace(row, cells=tuple(cells))


def _pair(about: str, text: str) -> dict[str, str]:
    return {"about": about, "text": text}


def _plain(table: Table) -> dict[str, Any]:
    return {
        "columns": [{"title": column.title, "hint": column.hint} for column in table.columns],
        "rows": [
            {
                "title": row.title,
                "note": row.note,
                "cells": [
                    {"value": cell.value, "notes": list(cell.notes), "span": cell.span} for cell in row.cells
                ],
            }
            for row in table.rows
        ],
    }


def to_json(result: Mapping[str, Any], lang: str = "en") -> str:
    """Return what the page says as JSON."""
    return json.dumps(document(result, lang), indent=1, ensure_ascii=False) + "\n"


def to_markdown(result: Mapping[str, Any], lang: str = "en") -> str:
    """Return what the page says as Markdown."""
    check_result(result)
    with speaking(lang):
        told = retold(result)
        content, tables = _document(told), _tables(told)
    text = escape_markdown
    lines = [f"# {text(content['headline'])}", ""]
    lines += [f"- **{text(one['about'])}**: {text(one['text'])}" for one in content["meeting"]]
    with speaking(lang):
        lines += ["", f"## {text(say('What was measured, in words'))}", ""]
        lines += [f"- **{text(one['about'])}**: {text(one['text'])}" for one in content["findings"]]
        for one in tables:
            table = to_markdown_table(
                one.table, say("Arm") if one.key in ("arms", "metrics") else say("Name")
            )
            lines += ["", f"## {text(one.title)}", "", table]
            lines += [text(one.note)] if one.note else []
        for title, said in (
            (say("Rank of each layer"), content["ranks"]),
            (say("What this trial can prove"), content["proves"]),
        ):
            lines += ["", f"## {text(title)}", "", *(f"- {text(one)}" for one in said)]
        for title, pairs in (
            (say("Protocol"), content["protocol"]),
            (say("The words of this page"), content["words"]),
        ):
            lines += ["", f"## {text(title)}", ""]
            lines += [f"- **{text(one['about'])}**: {text(one['text'])}" for one in pairs]
    return "\n".join(lines) + "\n"


FORMATS: dict[str, Callable[[Mapping[str, Any], str], str]] = {
    "html": render,
    "md": to_markdown,
    "json": to_json,
}


def write_document(result: Mapping[str, Any], path: Path, form: str = "html", lang: str = "en") -> Path:
    """Write a pilot result as a page, as Markdown or as JSON.

    Args:
        result: what `pilot.json` holds.
        path: where it goes.
        form: `html`, `md` or `json`.
        lang: `en` or `ja`.
    Returns: `path`.
    Raises: CorankError, for another format or language; FileError, as `write_report` does.
    """
    if form not in FORMATS:
        raise CorankError(f"format: allowed are {', '.join(FORMATS)}, got {form!r}.")
    try:
        said = FORMATS[form](result, lang)
    except CorankError:
        raise
    except Exception as error:  # a file may hold anything
        raise FileError(
            f"pilot result: cannot be shown ({type(error).__name__}: {error}). Use the pilot.json as it was "
            "written."
        ) from error
    return write_text(path, said.encode("utf-8", "replace").decode("utf-8"))
