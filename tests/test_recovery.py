from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from corank.errors import CorankError
from corank.recovery import Distillation, finetune, recalibrate_batchnorm
from corank.tasks import cross_entropy
from corank.testing import networks


def _batches(count=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(16, 8, generator=generator), torch.randint(0, 3, (16,), generator=generator))
        for _ in range(count)
    ]


def _model():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


def test_training_lowers_the_loss_and_reports_each_epoch():
    seen = []
    model = _model().eval()
    epochs = finetune(model, _batches(), epochs=8, learning_rate=0.1, after_epoch=seen.append, progress=False)
    assert [epoch.number for epoch in epochs] == list(range(1, 9))
    assert seen == epochs
    assert epochs[-1].loss < epochs[0].loss
    assert not model.training


def test_zero_epochs_change_nothing():
    model = _model()
    before = [parameter.clone() for parameter in model.parameters()]
    assert finetune(model, _batches(), epochs=0, progress=False) == []
    assert all(torch.equal(one, two) for one, two in zip(before, model.parameters(), strict=True))


def test_a_frozen_parameter_stays():
    model = _model()
    model[0].weight.requires_grad_(False)
    before = model[0].weight.clone()
    finetune(model, _batches(), epochs=1, progress=False)
    assert torch.equal(before, model[0].weight)


def test_a_student_with_full_weight_on_the_teacher_comes_to_agree_with_it():
    teacher, student = _model().eval(), _model()
    with torch.no_grad():
        student[3].weight.zero_()
    x = _batches()[0][0]
    before = (student.eval()(x).softmax(1) - teacher(x).softmax(1)).abs().mean()
    kept = [parameter.clone() for parameter in teacher.parameters()]
    finetune(
        student, _batches(), epochs=30, teacher=teacher, distillation=Distillation(1.0, 1.0), progress=False
    )
    after = (student.eval()(x).softmax(1) - teacher(x).softmax(1)).abs().mean()
    assert after < before / 2
    assert all(torch.equal(one, two) for one, two in zip(kept, teacher.parameters(), strict=True))
    assert not student._forward_hooks


def test_distillation_of_no_weight_is_plain_training():
    plain, student = _model(), _model()
    finetune(plain, _batches(), epochs=2, progress=False)
    finetune(
        student, _batches(), epochs=2, teacher=_model(), distillation=Distillation(weight=0), progress=False
    )
    for one, two in zip(plain.parameters(), student.parameters(), strict=True):
        assert torch.allclose(one, two, atol=1e-6)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: finetune(_model(), [], epochs=1, progress=False), "the loader has no batches"),
        (lambda: finetune(_model(), _batches(), epochs=-1), "epochs is a whole number from 0"),
        (lambda: finetune(_model(), _batches(), epochs=1, distillation=Distillation()), "needs a teacher"),
        (lambda: Distillation(weight=2), r"weight is a fraction in \[0, 1\]"),
        (lambda: Distillation(temperature=0), "temperature is above 0"),
        (
            lambda: finetune(_model(), _batches(), epochs=1, loss=_infinite, progress=False),
            "the loss is nan in epoch 1, step 1",
        ),
    ],
)
def test_what_cannot_be_trained(run, message):
    with pytest.raises(CorankError, match=message):
        run()


def _infinite(model, batch):
    return cross_entropy(model, batch) * float("nan")


def test_batch_norm_becomes_the_average_over_the_batches():
    model = nn.Sequential(nn.BatchNorm1d(8), nn.Dropout(0.9))
    model.eval()
    batches = _batches(3)
    assert recalibrate_batchnorm(model, batches) == 3
    means = torch.stack([x.mean(0) for x, _ in batches]).mean(0)
    variances = torch.stack([x.var(0) for x, _ in batches]).mean(0)
    assert torch.allclose(model[0].running_mean, means, atol=1e-6)
    assert torch.allclose(model[0].running_var, variances, atol=1e-6)
    assert model[0].momentum == 0.1
    assert not any(module.training for module in model.modules())


def test_without_batches_the_statistics_are_kept_and_without_batch_norm_nothing_runs():
    model = nn.BatchNorm1d(8)
    model.running_mean.fill_(3.0)
    with pytest.raises(CorankError, match="there was no batch"):
        recalibrate_batchnorm(model, [])
    assert (model.running_mean == 3).all()
    assert recalibrate_batchnorm(nn.Linear(2, 2), iter(())) == 0


def test_it_repairs_a_network_whose_statistics_are_off():
    model = networks.Residual().train()
    batches = [(torch.randn(8, 3, 8, 8), None) for _ in range(4)]
    recalibrate_batchnorm(model, batches)
    wanted = model.eval()(batches[0][0])
    model.body.norm1.running_mean.add_(5)
    recalibrate_batchnorm(model, batches)
    assert torch.allclose(model(batches[0][0]), wanted, atol=1e-5)


def test_in_bfloat16_only_the_loss_is_rounded():
    seen = []

    def loss(model, batch):
        output = model(batch[0])
        seen.append(output.dtype)
        return nn.functional.cross_entropy(output.float(), batch[1])

    torch.manual_seed(0)
    batches = [(torch.randn(8, 4), torch.randint(0, 2, (8,))) for _ in range(3)]
    coarse, fine = nn.Linear(4, 2), nn.Linear(4, 2)
    fine.load_state_dict(coarse.state_dict())
    start = coarse.weight.detach().clone()
    finetune(coarse, batches, epochs=1, loss=loss, precision="bfloat16", progress=False)
    finetune(fine, batches, epochs=1, loss=loss, progress=False)
    assert seen == [torch.bfloat16] * 3 + [torch.float32] * 3
    assert coarse.weight.dtype == torch.float32
    assert not torch.equal(coarse.weight, fine.weight)
    steps = (coarse.weight - start, fine.weight - start)
    torch.testing.assert_close(*steps, rtol=0.02, atol=1e-4)  # 8 bits of the gradient


@pytest.mark.parametrize("enabled", [False, True])
def test_an_autocast_around_the_training_changes_nothing(enabled):
    ends = []
    for within in (False, True):
        torch.manual_seed(0)
        batches = [(torch.randn(8, 4), torch.randint(0, 2, (8,))) for _ in range(4)]
        net = nn.Linear(4, 2)
        outer = torch.autocast("cpu", torch.bfloat16, enabled=enabled) if within else nullcontext()
        with outer:
            finetune(net, batches, epochs=2, learning_rate=0.1, precision="bfloat16", progress=False)
        ends.append(net.weight)
    assert torch.equal(*ends)


def test_half_precision_is_refused_with_the_way_out():
    with pytest.raises(CorankError, match="float32 and bfloat16, got 'float16'.*your own loop"):
        finetune(nn.Linear(4, 2), [], epochs=1, precision="float16", progress=False)


def test_frozen_norm_keeps_the_statistics_and_trains_all_else():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    model[1].running_mean.copy_(torch.arange(4.0))
    before = {name: one.clone() for name, one in model.state_dict().items()}
    batches = [(torch.randn(8, 3, 3, 3), torch.randint(0, 2, (8,))) for _ in range(2)]
    with torch.no_grad():
        expected = torch.stack([nn.functional.cross_entropy(model.eval()(x), y) for x, y in batches[:1]])
    seen = []

    def loss(net, batch):
        seen.append(nn.functional.cross_entropy(net(batch[0]), batch[1]))
        return seen[-1]

    finetune(model, batches, epochs=1, loss=loss, frozen_norm=True, progress=False)
    torch.testing.assert_close(seen[0], expected[0])  # what the network gives in eval mode is what is trained
    changed = {name for name, one in model.state_dict().items() if not torch.equal(one, before[name])}
    assert changed == {"0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias"}
    assert not model.training
