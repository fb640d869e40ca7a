"""An arm on disk: finished, or cut and not yet fine-tuned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from corank import store
from corank.pilot.arm import Arm
from corank.pilot.problem import Problem
from corank.plans import Plan
from corank.spectra import LayerSpectrum, Spectrum
from corank.state_files import read_state, write_state


def save_arm(arm: Arm, folder: Path, stage: str, problem: Problem) -> None:
    """Write an arm; it counts as written when the last of its files is."""
    store.save(arm.model, folder / f"{stage}-model.safetensors", reference=problem.make_model, plan=arm.plan)
    state = {
        "spectrum": [(row.layer, row.full_rank, row.singular_values) for row in arm.spectrum],
        "errors": arm.errors,
        "subnormal": arm.subnormal,
        "accuracy_after_cut": arm.accuracy_after_cut,
        **arm.state_dict(),
    }
    write_state(folder / f"{stage}.safetensors", state)


def load_arm(name: str, folder: Path, stage: str, problem: Problem) -> Arm | None:
    """Read an arm that was written, bit for bit; None if it was not."""
    if not (folder / f"{stage}.safetensors").exists():
        return None
    state: dict[str, Any] = read_state(folder / f"{stage}.safetensors")
    path = folder / f"{stage}-model.safetensors"
    text = store.read_plan(path)
    spectrum = Spectrum(tuple(LayerSpectrum(*row) for row in state["spectrum"]))
    arm = Arm(name, store.load(path, problem.make_model), spectrum)
    arm.plan = None if text is None else Plan.from_json(text)
    arm.errors, arm.subnormal = state["errors"], state["subnormal"]
    arm.accuracy_after_cut = state["accuracy_after_cut"]
    arm.load_state_dict(state)
    return arm


def drop_stages(folder: Path, *stages: str) -> None:
    """Remove what is not needed any more once an arm is finished."""
    for stage in stages:
        for path in (folder / f"{stage}.safetensors", folder / f"{stage}-model.safetensors"):
            path.unlink(missing_ok=True)
