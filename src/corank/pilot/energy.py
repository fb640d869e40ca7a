"""Energy of an inference, by codecarbon: measured from hardware counters where there are some."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from corank.extras import import_extra
from corank.inputs import Example, call, first_tensor

COUNTERS = ("intel_rapl", "intel_power_gadget", "windows_emi")  # codecarbon's modes that read the hardware
_COUNTRY = "DEU"  # codecarbon wants one for its emissions, which are not used


def measure_energy(
    models: Mapping[str, nn.Module], example: Example, seconds: float = 2.0
) -> dict[str, dict[str, Any]]:
    """Return the kWh that processor and GPU take for a million samples, in eager torch, one network by one.

    Args:
        models: in eval mode.
        example: a batch, as it is served.
        seconds: how long each runs.
    Returns: `{name: {"kwh_per_million", "label", "by"}}`; the label is `estimated` unless the power of the
        processor was read from hardware counters.
    Raises: ExtraError, when codecarbon is missing.
    """
    codecarbon: Any = import_extra("codecarbon", "energy")
    logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
    tracker = codecarbon.OfflineEmissionsTracker(
        country_iso_code=_COUNTRY,
        output_methods=[],
        log_level="critical",
        measure_power_secs=1,
        allow_multiple_runs=True,
    )
    batch, found = first_tensor(example).shape[0], {}
    try:
        for name, model in models.items():
            with torch.no_grad():
                call(model, example)  # what torch sets up once is no inference
            tracker.start_task(name)
            samples, end = 0, time.perf_counter() + seconds
            with torch.no_grad():
                while samples == 0 or time.perf_counter() < end:
                    call(model, example)
                    samples += batch
            used = tracker.stop_task()
            kwh = float(used.cpu_energy + used.gpu_energy)  # memory is never read, only assumed
            found[name] = {
                "kwh_per_million": kwh / samples * 1e6,
                **source_of(tracker, codecarbon.__version__),
            }
    finally:
        tracker.stop()
    return found


def source_of(tracker: Any, version: str) -> dict[str, str]:
    """Say where the power comes from: the label, and what it was read by."""
    modes = [str(mode) for one in tracker._hardware if (mode := getattr(one, "_mode", None)) is not None]
    counted = bool(modes) and all(mode in COUNTERS for mode in modes)
    how = ", ".join(modes) or "no reading of the processor"
    return {"label": "measured" if counted else "estimated", "by": f"codecarbon {version}: {how}"}
