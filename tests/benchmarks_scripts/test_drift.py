"""The page of drift: which corruption hurts more than dense, less, and beyond the limit."""

from __future__ import annotations

from benchmarks.drift import body


def _arm(extras):
    return {
        "corruptions": [
            {"name": name, "strength": strength, "reference": 0.8 - 0.1 * strength}
            for name in extras
            for strength in (1, 2, 3)
        ],
        "judged": [{"name": name, "extra": sum(ci) / 2, "ci": ci} for name, ci in extras.items()],
        "unknown": [
            {"name": "noise", "confidence": 0.5, "reference": 0.6, "auroc": 0.9, "reference_auroc": 0.8}
        ],
    }


def test_every_corruption_is_called_what_its_interval_says():
    extras = {
        "blur": [-0.01, 0.01],
        "noise": [-0.03, -0.01],
        "contrast": [0.01, 0.02],
        "shift": [-0.05, -0.03],
    }
    page = body(
        {"samples": 2048, "clean": {"dense": 0.9, "force": 0.89}, "drift": {"force": _arm(extras)}}, 0.02
    )
    (line,) = (one for one in page.splitlines() if one.startswith("- "))
    assert "more brittle than dense under noise, shift; less under contrast" in line
    assert line.endswith("for certain under shift.")
    assert "| noise | 60.0% | -2.00 (-3.00 to -1.00) |" in page
    assert "| noise | 60.0% | 0.800 | 50.0%, 0.900 |" in page
