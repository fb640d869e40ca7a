"""The page of `benchmarks.combinations`: every network, the fastest at equal accuracy, the paper's marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.record import table

ENGINES = ("torch", "onnxruntime", "openvino")
DROPS = (0.005, 0.01, 0.02)


def variants(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return every network, and every int8 file as one more, with one name a combination."""
    found = []
    for row in rows:
        name = " + ".join(row["parts"]) or "dense"
        if "not_run" in row:
            found.append({"name": name, "level": row["level"], "not_run": row["not_run"]})
            continue
        keep = ("level", "macs", "zeros", "zipped", "after_cut", "conv_nonzero")
        whole = {key: row[key] for key in (*keep, "dev", "final", "speedup")}
        found.append(whole | {"name": name})
        int8 = "int8" if name == "dense" else f"{name} + int8"
        low = {key: row["int8"][key] for key in ("dev", "final", "speedup")}
        found.append(whole | low | {"name": int8, "zipped": None})
    return found


def fastest(
    found: Sequence[Mapping[str, Any]], name: str, engine: str, least: float
) -> Mapping[str, Any] | None:
    """Return the fastest of a combination in an engine that is accurate enough on dev.

    >>> rows = [{"name": "a", "dev": [0.9], "speedup": {"torch": [s]}} for s in (1.5, 2.0)]
    >>> fastest(rows, "a", "torch", 0.85)["speedup"]["torch"], fastest(rows, "a", "torch", 0.95)
    ([2.0], None)
    """
    fit = [
        one
        for one in found
        if one["name"] == name and engine in one.get("speedup", {}) and one["dev"][0] >= least
    ]
    return max(fit, key=lambda one: one["speedup"][engine][0], default=None)


def page(data: Mapping[str, Any]) -> str:
    """Write the body of the page."""
    head = (
        "Trained ResNets on CIFAR-10; 5,000 test images are dev, the other 5,000 final. One seed: "
        "differences of a few tenths of a point are noise (95%: ±0.8). Order: low rank, channels, single "
        "weights, int8. Low rank is planned from the times of onnxruntime, in float32 or for int8.\n"
    )
    return head + "\n".join(_section(depth, found) for depth, found in sorted(data.items()))


def _section(depth: str, found: Mapping[str, Any]) -> str:
    every = variants(found["rows"])
    dense = next(one for one in every if one["name"] == "dense")
    names = list(dict.fromkeys(one["name"] for one in every))
    parts = [
        f"\n## ResNet-{depth}: dense {100 * dense['dev'][0]:.2f}% on dev, "
        f"{100 * dense['final'][0]:.2f}% on final",
        f"{found['epochs']} epoch(s) of recovery on {found['images']:,} images; batch {found['batch']}.\n",
        table(
            ["network", "level", "MACs", "zeros", "zipped", "after the cut", "dev", "final (95%)", *ENGINES],
            [_cells(one, dense) for one in every],
        ),
    ]
    for drop in DROPS:
        least = dense["dev"][0] - drop
        lines = [
            [name, *(_best(every, name, engine, least, dense) for engine in ENGINES)] for name in names[1:]
        ]
        parts.append(f"\n### The fastest that loses at most {100 * drop:g} points on dev\n")
        parts.append(table(["combination", *ENGINES], lines))
        parts.append("\n" + " ".join(_winner(every, names, engine, least) for engine in ENGINES))
    parts.append(_marks(every, found["lasso"], dense))
    return "\n".join(parts)


def _cells(one: Mapping[str, Any], dense: Mapping[str, Any]) -> list[object]:
    head = [one["name"], "" if one["name"] in ("dense", "int8") else one["level"] + 1]
    if "not_run" in one:
        return [*head, f"not run: {one['not_run']}", *[""] * (5 + len(ENGINES))]
    low, high = 100 * one["final"][1], 100 * one["final"][2]
    return [
        *head,
        f"{one['macs'] / dense['macs']:.2f}",
        f"{100 * one['zeros']:.0f}%",
        "" if one["zipped"] is None else f"{one['zipped'] / dense['zipped']:.2f}",
        f"{100 * one['after_cut']:.1f}",
        f"{100 * one['dev'][0]:.2f}",
        f"{100 * one['final'][0]:.2f} ({low:.2f} – {high:.2f})",
        *(
            "{:.2f} ({:.2f} – {:.2f})".format(*one["speedup"][engine]) if engine in one["speedup"] else ""
            for engine in ENGINES
        ),
    ]


def _best(
    every: Sequence[Mapping[str, Any]], name: str, engine: str, least: float, dense: Mapping[str, Any]
) -> str:
    one = fastest(every, name, engine, least)
    if one is None:
        return "none"
    lost = 100 * (one["final"][0] - dense["final"][0])
    return f"{one['speedup'][engine][0]:.2f}× (level {one['level'] + 1}; final {lost:+.2f})"


def _winner(every: Sequence[Mapping[str, Any]], names: Sequence[str], engine: str, least: float) -> str:
    best = {name: one for name in names if (one := fastest(every, name, engine, least)) is not None}
    first = max(best, key=lambda name: best[name]["speedup"][engine][0])
    alone = [name for name in ("low rank", "channels", "unstructured", "int8") if name in best]
    against = ", ".join(_over(best[first], best[name], engine) for name in alone if name != first)
    return f"In {engine} the fastest is {first}" + (f": {against}." if against else ".")


def _over(one: Mapping[str, Any], other: Mapping[str, Any], engine: str) -> str:
    """Write how much faster one is than another, and whether their intervals tell them apart."""
    ratio = one["speedup"][engine][0] / other["speedup"][engine][0]
    apart = one["speedup"][engine][1] > other["speedup"][engine][2]
    return f"{ratio:.2f}× {other['name']} alone" + ("" if apart else " (not told apart)")


def _marks(
    every: Sequence[Mapping[str, Any]], lasso: Sequence[Mapping[str, Any]], dense: Mapping[str, Any]
) -> str:
    lines = []
    for drop in DROPS:
        least, cells = dense["dev"][0] - drop, []
        for name in ("unstructured", "low rank + unstructured"):
            fit = [
                one["conv_nonzero"]
                for one in every
                if one["name"] == name and one.get("dev", [0])[0] >= least
            ]
            cells.append(f"{dense['conv_nonzero'] / min(fit):.1f}×" if fit else "none")
        lines.append([f"≤ {100 * drop:g}", *cells])
    text = (
        "\n### The paper's marks\nConvolution compression, weights that are not zero; the paper has 11.0× "
        "with low rank against 2.6× without on AlexNet's conv2, on ImageNet.\n\n"
        + table(["points lost on dev", "single weights alone", "on top of low rank"], lines)
    )
    if not lasso:
        return text
    rows = [
        [
            " + ".join(one["parts"]) or "dense",
            one["strength"],
            _percent(one["columns"]),
            _percent(one["rows"]),
            f"{100 * (one['dev'][0] - dense['dev'][0]):+.2f}",
            f"{100 * (one['final'][0] - dense['final'][0]):+.2f}",
        ]
        for one in lasso
    ]
    return (
        f"{text}\n\nStructured sparsity by the group lasso, as many epochs as a recovery with it and half as "
        "many, at least one, with its zeros kept; the paper has 63 – 74% on top of low rank, after 150,000 "
        "iterations.\n\n"
        + table(["network", "λ", "zero columns, k×k", "zero rows, 1×1", "dev, points", "final, points"], rows)
    )


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f}%"
