"""corank: coordinate a network's filters while it trains, then make it low-rank, measured, and faster.

Public names load on first use, so that `import corank` and `corank --help` stay quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from corank._version import __version__

if TYPE_CHECKING:
    from corank.applying import apply_plan
    from corank.benchmarks import BenchResult, bench
    from corank.benchmarks.headroom import headroom
    from corank.benchmarks.table import latency_table
    from corank.benchmarks.zeros import SparsityReport, sparsity_report
    from corank.calibration import Moments, calibrate
    from corank.compression import Result, compress
    from corank.decision.economics import Economics
    from corank.decision.gate import Decision, gate
    from corank.decision.policy import Policy
    from corank.decomposition import decompose
    from corank.errors import (
        CorankError,
        ExtraError,
        FileError,
        InfeasibleError,
        LayerError,
    )
    from corank.exported import Exported, open_exported
    from corank.exporting import export
    from corank.force_state import load_force, save_force
    from corank.headrooms import Headroom
    from corank.latency import LatencyTable
    from corank.methods import METHODS, fold
    from corank.planning import plan
    from corank.plans import Choice, Plan
    from corank.quantizing import Quantized, quantize
    from corank.recovery import Distillation, finetune, recalibrate_batchnorm
    from corank.regularizer import ForceRegularizer
    from corank.rules import Accuracy, Budget, Energy, Error, Latency, Ranks
    from corank.sensitivities import sensitivity
    from corank.sparsity import (
        Channels,
        GroupLasso,
        SemiStructured,
        Sparsified,
        Sparsifier,
        Unstructured,
        Zeros,
        count_zeros,
        group_lasso,
        sparsify,
    )
    from corank.spectra import Spectrum, spectrum
    from corank.store import load, save
    from corank.strength import Adaptive, AutoStrength
    from corank.surrogate import force_loss
    from corank.targets import Target
    from corank.tasks import Classified, Metric, Pixels, Task, classification
    from corank.training import Checkpoint
    from corank.tuning import Space, tune
    from corank.verdicts import Verdict

_HOMES = {
    "corank.applying": ("apply_plan",),
    "corank.benchmarks": ("BenchResult", "bench"),
    "corank.benchmarks.headroom": ("headroom",),
    "corank.benchmarks.table": ("latency_table",),
    "corank.benchmarks.zeros": ("SparsityReport", "sparsity_report"),
    "corank.calibration": ("Moments", "calibrate"),
    "corank.compression": ("Result", "compress"),
    "corank.decision.economics": ("Economics",),
    "corank.decision.gate": ("Decision", "gate"),
    "corank.decision.policy": ("Policy",),
    "corank.decomposition": ("decompose",),
    "corank.errors": ("CorankError", "ExtraError", "FileError", "InfeasibleError", "LayerError"),
    "corank.exported": ("Exported", "open_exported"),
    "corank.exporting": ("export",),
    "corank.force_state": ("load_force", "save_force"),
    "corank.headrooms": ("Headroom",),
    "corank.latency": ("LatencyTable",),
    "corank.methods": ("METHODS", "fold"),
    "corank.planning": ("plan",),
    "corank.plans": ("Choice", "Plan"),
    "corank.quantizing": ("Quantized", "quantize"),
    "corank.recovery": ("Distillation", "finetune", "recalibrate_batchnorm"),
    "corank.regularizer": ("ForceRegularizer",),
    "corank.rules": ("Accuracy", "Budget", "Energy", "Error", "Latency", "Ranks"),
    "corank.sensitivities": ("sensitivity",),
    "corank.sparsity": (
        "Channels",
        "GroupLasso",
        "SemiStructured",
        "Sparsified",
        "Sparsifier",
        "Unstructured",
        "Zeros",
        "count_zeros",
        "group_lasso",
        "sparsify",
    ),
    "corank.spectra": ("Spectrum", "spectrum"),
    "corank.store": ("load", "save"),
    "corank.strength": ("Adaptive", "AutoStrength"),
    "corank.surrogate": ("force_loss",),
    "corank.targets": ("Target",),
    "corank.tasks": ("Classified", "Metric", "Pixels", "Task", "classification"),
    "corank.training": ("Checkpoint",),
    "corank.tuning": ("Space", "tune"),
    "corank.verdicts": ("Verdict",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "METHODS",
    "Accuracy",
    "Adaptive",
    "AutoStrength",
    "BenchResult",
    "Budget",
    "Channels",
    "Checkpoint",
    "Choice",
    "Classified",
    "CorankError",
    "Decision",
    "Distillation",
    "Economics",
    "Energy",
    "Error",
    "Exported",
    "ExtraError",
    "FileError",
    "ForceRegularizer",
    "GroupLasso",
    "Headroom",
    "InfeasibleError",
    "Latency",
    "LatencyTable",
    "LayerError",
    "Metric",
    "Moments",
    "Pixels",
    "Plan",
    "Policy",
    "Quantized",
    "Ranks",
    "Result",
    "SemiStructured",
    "Space",
    "Sparsified",
    "Sparsifier",
    "SparsityReport",
    "Spectrum",
    "Target",
    "Task",
    "Unstructured",
    "Verdict",
    "Zeros",
    "__version__",
    "apply_plan",
    "bench",
    "calibrate",
    "classification",
    "compress",
    "count_zeros",
    "decompose",
    "export",
    "finetune",
    "fold",
    "force_loss",
    "gate",
    "group_lasso",
    "headroom",
    "latency_table",
    "load",
    "load_force",
    "open_exported",
    "plan",
    "quantize",
    "recalibrate_batchnorm",
    "save",
    "save_force",
    "sensitivity",
    "sparsify",
    "sparsity_report",
    "spectrum",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'corank' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
