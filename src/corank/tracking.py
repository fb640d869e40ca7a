"""Where the numbers of a force go while a network trains."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from corank.engines import without_telemetry
from corank.errors import CorankError
from corank.extras import import_extra
from corank.force_stats import LayerStats

_MLFLOW_BATCH = 1000  # more metrics in one call are refused
_REFUSED = re.compile(r"[^\w\-. :/]", re.ASCII)


class Tracker(Protocol):
    """Anything that takes numbers by name at a step, such as a wrapper around wandb."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Take the numbers of one step."""


class TensorBoardTracker:
    """Write the numbers of a force as TensorBoard event files.

    Args: directory: where the event files go; TensorBoard shows it with `tensorboard --logdir`.
    Raises: ExtraError, when TensorBoard is not installed.
    """

    def __init__(self, directory: str | Path) -> None:
        import_extra("tensorboard", "track")
        self._writer: Any = import_extra("torch.utils.tensorboard", "track").SummaryWriter(str(directory))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Write the numbers of one step."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


class MlflowTracker:
    """Write the numbers of a force to a run of MLflow; neither its active run nor its settings are touched.

    MLflow reports its use over the network when it is imported; where this class imports it first, it does
    not.

    Args:
        experiment: its name; made if there is none.
        uri: of the server or database, such as `sqlite:///mlflow.db`; by default what MLflow itself uses.
        run: the id of a run to go on with, such as that of `mlflow.active_run()`; by default a new one.
    Raises: ExtraError, when MLflow is not installed; CorankError, for an experiment that was deleted.
    """

    def __init__(self, experiment: str = "corank", *, uri: str | None = None, run: str | None = None) -> None:
        with without_telemetry():
            mlflow: Any = import_extra("mlflow", "track")
        self._metric: Any = mlflow.entities.Metric
        self._client: Any = mlflow.MlflowClient(tracking_uri=uri)
        self._given, self._begun = run, ""
        found = self._client.get_experiment_by_name(experiment) if run is None else None
        if found is not None and found.lifecycle_stage != "active":
            raise CorankError(
                f"MlflowTracker: the experiment {experiment!r} was deleted. Restore it, or name another."
            )
        self._home = found.experiment_id if found is not None else None
        self._experiment = experiment

    @property
    def run(self) -> str:
        """The id of the run; a new one is begun here, so that processes that log nothing make none."""
        if self._given is None and not self._begun:
            home = self._home or self._client.create_experiment(self._experiment)
            self._begun = self._client.create_run(home).info.run_id
        return self._given or self._begun

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Write the numbers of one step; what MLflow refuses in a name becomes an underscore."""
        now = int(time.time() * 1000)
        metrics = [self._metric(_REFUSED.sub("_", name), value, now, step) for name, value in values.items()]
        for start in range(0, len(metrics), _MLFLOW_BATCH):
            self._client.log_batch(self.run, metrics=metrics[start : start + _MLFLOW_BATCH])

    def close(self) -> None:
        """End the run, if it was begun here."""
        if self._begun:
            self._client.set_terminated(self._begun)


def flat(stats: Mapping[str, LayerStats]) -> dict[str, float]:
    """Name every number of `ForceRegularizer.stats()`: `force/{number}/{layer}`.

    >>> stats = LayerStats(0.1, 1.0, 2.0, 0.5, 0.9, 7.5, 8)
    >>> flat({"conv1": stats})["force/effective_rank/conv1"]
    7.5
    """
    return {
        f"force/{number}/{layer}": float(value)
        for layer, one in stats.items()
        for number, value in asdict(one).items()
    }
