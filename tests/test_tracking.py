"""The numbers of a force reach a tracker at the right steps, TensorBoard, and MLflow."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import nn

from corank.errors import CorankError, ExtraError
from corank.regularizer import ForceRegularizer
from corank.tracking import MlflowTracker, TensorBoardTracker, flat


class Records:
    def __init__(self) -> None:
        self.rows: dict[int, dict[str, float]] = {}

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.rows[step] = dict(values)


def train(force: ForceRegularizer, model: nn.Module, steps: int) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    force.attach(optimizer)
    for _ in range(steps):
        model(torch.ones(2, 3, 4, 4)).sum().backward()
        optimizer.step()
    force.detach()


@pytest.mark.parametrize(("every", "expected"), [(1, [0, 5, 10]), (2, [0, 4, 8])])
def test_a_tracker_gets_every_number_of_every_layer(every: int, expected: list[int]) -> None:
    model, records = nn.Sequential(nn.Conv2d(3, 8, 3)), Records()
    force = ForceRegularizer(model, 0.1, every=every, tracker=records, track_every=5)
    train(force, model, 11)
    assert list(records.rows) == expected
    assert set(records.rows[0]) == set(flat(force.stats()))
    assert records.rows[0]["force/strength/0"] == 0.1


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra `track`")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    model, tracker = nn.Sequential(nn.Conv2d(3, 8, 3)), TensorBoardTracker(tmp_path)
    force = ForceRegularizer(model, 0.1, tracker=tracker, track_every=2)
    train(force, model, 3)
    tracker.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [one.step for one in events.Scalars("force/effective_rank/0")] == [0, 2]
    assert events.Scalars("force/energy/0")[-1].value > 0


def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a database would need the full package
    monkeypatch.setattr("corank.tracking._MLFLOW_BATCH", 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow = pytest.importorskip("mlflow", reason="needs the extra `track`")
    uri = tmp_path.as_uri()
    model, tracker = nn.Sequential(nn.Conv2d(3, 8, 3)), MlflowTracker("force", uri=uri)
    force = ForceRegularizer(model, 0.1, tracker=tracker, track_every=2)
    train(force, model, 3)
    tracker.close()
    client = mlflow.MlflowClient(tracking_uri=uri)
    run = client.get_run(tracker.run)
    assert (run.info.status, client.get_experiment(run.info.experiment_id).name) == ("FINISHED", "force")
    assert set(run.data.metrics) == set(flat(force.stats()))
    assert [one.step for one in client.get_metric_history(tracker.run, "force/energy/0")] == [0, 2]

    home = run.info.experiment_id
    MlflowTracker("force", uri=uri).close()  # of a process that logs nothing
    assert len(client.search_runs([home])) == 1
    odd = MlflowTracker("force", uri=uri)
    odd.log({"force/rank/a+b[1]": 1.0}, 0)
    assert client.get_run(odd.run).data.metrics == {"force/rank/a_b_1_": 1.0}
    client.delete_experiment(client.create_experiment("gone"))
    with pytest.raises(CorankError, match="'gone' was deleted. Restore it, or name another"):
        MlflowTracker("gone", uri=uri)

    other = MlflowTracker("force", uri=uri)
    joined = MlflowTracker(uri=uri, run=other.run)
    joined.log({"loss": 0.5}, 7)
    joined.close()
    assert client.get_run(other.run).info.status == "RUNNING"  # not begun by it, so not ended by it
    assert client.get_run(other.run).data.metrics == {"loss": 0.5}
    assert client.get_run(other.run).info.experiment_id == run.info.experiment_id


@pytest.mark.parametrize(
    ("make", "package"), [(TensorBoardTracker, "tensorboard"), (MlflowTracker, "mlflow")]
)
def test_without_the_package_the_extra_is_named(make, package, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExtraError, match=rf"{package} is not installed.*corank\[track\]"):
        make(tmp_path)
