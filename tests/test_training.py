"""A training goes on bit-equal after it was stopped, wherever that was."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from corank.errors import CorankError, FileError
from corank.recovery import Distillation, finetune
from corank.regularizer import ForceRegularizer
from corank.state_files import read_state, write_state
from corank.tasks import cross_entropy
from corank.training import Checkpoint
from tests.killed import run_killed
from tests.killing import train


def test_a_training_that_is_killed_again_and_again_ends_bit_equal(tmp_path):
    result = run_killed("tests.killing", tmp_path, seed=0, kills=6)
    assert result["equal"]
    assert result["losses"]
    assert result["killed"] >= 2  # the last ones may find it done
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == [
        "checkpoint.safetensors"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 9))
def test_a_training_that_is_killed_many_times_ends_bit_equal(tmp_path, seed):
    result = run_killed("tests.killing", tmp_path, seed=seed, kills=24)
    assert result["equal"]
    assert result["losses"]


class _Stop(Exception):
    pass


def _interrupted(path, at, every=None, **settings):
    """Train the small network to step `at`, then start over from the checkpoint."""
    steps = 0

    def loss(model, batch):
        nonlocal steps
        steps += 1
        if steps == at:
            raise _Stop
        return cross_entropy(model, batch)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2))
    data = TensorDataset(torch.randn(20, 4), torch.arange(20) % 2)
    epochs = finetune(
        model,
        DataLoader(data, 4, shuffle=True),
        epochs=3,
        loss=loss,
        checkpoint=path and Checkpoint(path, every=every),
        progress=False,
        **settings,
    )
    return model, epochs


@pytest.mark.parametrize("every", [None, 1, 2])
@pytest.mark.parametrize("at", [1, 3, 6, 9, 15])
def test_it_goes_on_where_it_stopped(tmp_path, every, at):
    path = tmp_path / "a.safetensors"
    wanted, losses = _interrupted(None, at=0)
    with pytest.raises(_Stop):
        _interrupted(path, at, every)
    model, resumed = _interrupted(path, at=0, every=every)
    assert all(
        torch.equal(one, two) for one, two in zip(wanted.parameters(), model.parameters(), strict=True)
    )
    assert [one.loss for one in losses] == [one.loss for one in resumed]


def test_what_is_kept_goes_back_too(tmp_path):
    class Notes(list):
        def state_dict(self):
            return {"notes": list(self)}

        def load_state_dict(self, state):
            self[:] = state["notes"]

    batches = [(torch.randn(4, 4), torch.arange(4) % 2)]
    for _ in range(2):
        notes = Notes()
        torch.manual_seed(0)
        finetune(
            nn.Linear(4, 2),
            batches,
            epochs=3,
            after_epoch=lambda epoch, notes=notes: notes.append(epoch.number),
            checkpoint=Checkpoint(tmp_path / "a.safetensors", keep={"notes": notes}),
            progress=False,
        )
        assert notes == [1, 2, 3]


def _linear(seed=0):
    torch.manual_seed(seed)
    return nn.Linear(4, 2)


BATCHES = [(torch.ones(4, 4), torch.arange(4) % 2)] * 3


def test_the_checkpoint_of_another_training_is_refused_and_kept(tmp_path):
    path = tmp_path / "a.safetensors"
    finetune(_linear(), BATCHES, epochs=1, checkpoint=path, progress=False)
    before = path.read_bytes()
    with pytest.raises(CorankError, match="another training: of 1 epochs, here are 2"):
        finetune(_linear(), BATCHES, epochs=2, checkpoint=path, progress=False)
    with pytest.raises(CorankError, match="it began from other weights"):
        finetune(_linear(1), BATCHES, epochs=1, checkpoint=path, progress=False)
    with pytest.raises(CorankError, match="another training: it holds no notes"):
        finetune(
            _linear(), BATCHES, epochs=1, checkpoint=Checkpoint(path, keep={"notes": None}), progress=False
        )
    assert path.read_bytes() == before
    path.write_bytes(before[:-3])
    with pytest.raises(FileError, match=r"a\.safetensors: cannot be read as a state"):
        finetune(_linear(), BATCHES, epochs=1, checkpoint=path, progress=False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (lambda model: {"optimizer": torch.optim.Adam(model.parameters(), 0.01)}, "optimizer was SGD, here"),
        (lambda model: {"learning_rate": 0.1}, "lr was 0.01, here it is 0.1"),
        (lambda model: {"momentum": 0.0}, "momentum was 0.9, here it is 0.0"),
        (lambda model: {"force": ForceRegularizer(model, 0.1, types=("linear",))}, "force's kind was"),
        (lambda model: {"teacher": _linear(1)}, "teacher was None, .*distillation was"),
        (lambda model: {"optimizer": torch.optim.SGD(model.parameters(), 0.01, 0.9)}, "scheduler was Cosine"),
    ],
)
def test_a_checkpoint_is_refused_by_a_call_with_other_settings(tmp_path, settings, message):
    path = tmp_path / "a.safetensors"
    finetune(_linear(), BATCHES, epochs=1, checkpoint=path, progress=False)
    model = _linear()
    with pytest.raises(CorankError, match=f"another training: .*{message}"):
        finetune(model, BATCHES, epochs=1, checkpoint=path, progress=False, **settings(model))


def test_a_checkpoint_is_refused_by_other_forces_teachers_and_data(tmp_path):
    def train(path, strength=0.1, seed=1, weight=0.5, batches=BATCHES):
        model = _linear()
        finetune(
            model,
            batches,
            epochs=1,
            force=ForceRegularizer(model, strength, types=("linear",)),
            teacher=_linear(seed),
            distillation=Distillation(weight),
            checkpoint=path,
            progress=False,
        )

    path = tmp_path / "a.safetensors"
    train(path)
    train(path)
    for terms, message in (
        ({"strength": 0.2}, "force's layers was {'': '0.1'}, here it is {'': '0.2'}"),
        ({"seed": 2}, "teacher was"),
        ({"weight": 0.6}, r"distillation was Distillation\(weight=0.5.*weight=0.6"),
        ({"batches": BATCHES[:2]}, "batches was 3, here it is 2"),
    ):
        with pytest.raises(CorankError, match=message):
            train(path, **terms)


def test_a_checkpoint_of_an_older_version_is_gone_on_with(tmp_path):
    path = tmp_path / "a.safetensors"
    done = finetune(_linear(), BATCHES, epochs=1, checkpoint=path, progress=False)
    state = read_state(path)
    older = ("epochs", "start", "precision", "frozen_norm")
    state["identity"] = {key: state["identity"][key] for key in older}
    write_state(path, state)
    again = finetune(_linear(), BATCHES, epochs=1, checkpoint=path, progress=False)
    assert [one.loss for one in again] == [one.loss for one in done]
    with pytest.raises(CorankError, match="precision was float32, here it is bfloat16"):
        finetune(_linear(), BATCHES, epochs=1, checkpoint=path, progress=False, precision="bfloat16")


@pytest.mark.parametrize("kept", [False, True])
def test_weights_that_the_last_step_broke_are_no_success(tmp_path, kept):
    def loss(model, batch):
        return (model.weight * 1e30).sum() * 3e8  # the loss is finite, the step is not

    model = _linear()
    nn.init.zeros_(model.weight)
    with pytest.raises(CorankError, match="epoch 1 ended in weights that are not finite: layer ''"):
        finetune(
            model,
            BATCHES[:1],
            epochs=1,
            loss=loss,
            learning_rate=1.0,
            checkpoint=tmp_path / "a.safetensors" if kept else None,
            progress=False,
        )
    assert not list(tmp_path.iterdir())


def test_a_last_batch_of_one_sample_under_batch_norm_is_one_clear_error():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    data = TensorDataset(torch.randn(5, 1, 3, 3), torch.tensor([0, 1, 0, 1, 0]))
    message = r"epoch 1, step 3: batch norm .* has 1 sample for it\. Leave it out \(drop_last=True"
    with pytest.raises(CorankError, match=message):
        finetune(model, DataLoader(data, 2), epochs=1, progress=False)


def test_a_loss_that_turns_nan_keeps_the_last_good_checkpoint_and_says_what_to_lower(tmp_path):
    path = tmp_path / "a.safetensors"
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 16, 2))
    batches = [(torch.randn(4, 1, 6, 6), torch.arange(4) % 2) for _ in range(4)]
    force = ForceRegularizer(model, 0.5)
    steps = 0

    def loss(model, batch):
        nonlocal steps
        steps += 1
        if steps == 7:  # the second epoch's third step
            with torch.no_grad():
                model[0].weight[0, 0, 0, 0] = float("inf")
        return cross_entropy(model, batch)

    message = (
        r"the loss is nan in epoch 2, step 3: layer '0' has weights that are not finite.*strength, 0\.5 now, "
        r"to 0\.05.*last good state is kept in .*a\.safetensors, 1 epochs and 2 steps"
    )
    with pytest.raises(CorankError, match=message):
        finetune(
            model,
            batches,
            epochs=3,
            loss=loss,
            force=force,
            checkpoint=Checkpoint(path, every=1),
            progress=False,
        )
    assert not model[0]._forward_hooks
    assert force._hooks == {}


def test_a_layer_that_puts_out_nan_is_named():
    class Root(nn.Module):
        def forward(self, x):
            return x.sqrt()

    model = nn.Sequential(nn.Linear(4, 2), nn.Sequential(Root()), nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.fill_(-1)
    with pytest.raises(CorankError, match=r"layer '1\.0' is the first whose output is not finite"):
        finetune(model, [(torch.ones(2, 4), torch.tensor([0, 1]))], epochs=1, progress=False)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
        MemoryError(),
    ],
)
def test_memory_that_runs_out_names_the_batch(error):
    def loss(model, batch):
        raise error

    message = r"epoch 1, step 1: memory ran out on a batch of 4 samples\. Use smaller batches, such as 2"
    with pytest.raises(CorankError, match=message):
        finetune(_linear(), BATCHES, epochs=1, loss=loss, progress=False)


def test_other_errors_pass_through():
    def loss(model, batch):
        raise RuntimeError("the user's own")

    with pytest.raises(RuntimeError, match="the user's own"):
        finetune(_linear(), BATCHES, epochs=1, loss=loss, progress=False)


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    finetune(_linear(), BATCHES, epochs=1, checkpoint=path, progress=False)
    before = path.read_bytes()
    path.unlink()
    writes = 0

    def full(*_):
        nonlocal writes
        writes += 1
        if writes > 1:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("corank.files._flush", full)
    with pytest.raises(FileError, match="No space left on device"):
        finetune(_linear(), BATCHES, epochs=3, checkpoint=path, progress=False)
    assert [one.name for one in tmp_path.iterdir()] == ["a.safetensors"]
    assert path.read_bytes()[:8] == before[:8] or path.stat().st_size > 0
    monkeypatch.undo()
    done = finetune(_linear(), BATCHES, epochs=3, checkpoint=path, progress=False)
    assert [epoch.number for epoch in done] == [1, 2, 3]


def test_unusable_settings():
    with pytest.raises(CorankError, match="every is a whole number of steps"):
        Checkpoint("a", every=0)


def test_the_undisturbed_run_repeats_itself():
    one, two = train(None), train(None)
    assert one[1] == two[1]
