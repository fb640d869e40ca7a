"""Average precision from rows is faster-coco-eval's."""

from __future__ import annotations

import pytest
import torch
from examples.average_precision import average_precision, coco_precision, match
from examples.detection import HEIGHT, MOST, STRIDE, WIDTH, Detector, detect, loss, split_output


def draw(seed, images=6, classes=3):
    """Return true boxes, and detections of them that are moved, doubled, missed or invented."""
    generator = torch.Generator().manual_seed(seed)
    found, true = [], []
    for _ in range(images):
        many = int(torch.randint(0, 9, (1,), generator=generator))
        corner = 100 * torch.rand(many, 2, generator=generator)
        size = 10 + 30 * torch.rand(many, 2, generator=generator)
        kinds = torch.randint(0, classes, (many, 1), generator=generator).float()
        boxes = torch.cat([corner, corner + size, kinds], 1)
        moved = boxes.repeat(2, 1)
        moved[:, :4] += 6 * torch.randn(len(moved), 4, generator=generator)
        moved[:, 2:4] = torch.maximum(moved[:, 2:4], moved[:, :2] + 1)  # COCO skips boxes without an area
        moved = moved[torch.rand(len(moved), generator=generator) < 0.7]
        scores = torch.rand(len(moved), 1, generator=generator)
        order = scores[:, 0].argsort(descending=True)
        found.append(torch.cat([moved, scores], 1)[order])
        true.append(boxes)
    return found, true


@pytest.mark.parametrize("seed", range(8))
def test_it_is_that_of_faster_coco_eval(seed):
    pytest.importorskip("faster_coco_eval", reason="the extra detection")
    found, true = draw(seed)
    rows = torch.stack([match(*pair, 3) for pair in zip(found, true, strict=True)])
    assert average_precision(rows) == pytest.approx(coco_precision(found, true, 3), abs=1e-6)


def test_what_is_right_counts_fully_and_nothing_counts_nothing():
    _, true = draw(0)
    perfect = [torch.cat([boxes, torch.ones(len(boxes), 1)], 1) for boxes in true]
    rows = torch.stack([match(*pair, 3) for pair in zip(perfect, true, strict=True)])
    assert average_precision(rows) == pytest.approx(1)
    empty = torch.stack([match(torch.zeros(0, 6), boxes, 3) for boxes in true])
    assert average_precision(empty) == 0


def test_boxes_survive_the_output():
    boxes = torch.full((1, MOST, 5), -1.0)
    boxes[0, :2] = torch.tensor([[20.0, 30, 60, 70, 0], [100, 40, 130, 100, 1]])
    places, _, _ = split_output(torch.zeros(1, 7, HEIGHT // STRIDE, WIDTH // STRIDE))
    output = torch.full((1, 7, len(places)), -8.0)
    for x1, y1, x2, y2, kind in boxes[0, :2].tolist():
        number = int((places - torch.tensor([(x1 + x2) / 2, (y1 + y2) / 2])).square().sum(1).argmin())
        x, y = places[number].tolist()
        sides = torch.tensor([x - x1, y - y1, x2 - x, y2 - y]) / STRIDE
        output[0, int(kind), number] = 8
        output[0, 3:, number] = sides.log()
    (found,) = detect(output.view(1, 7, HEIGHT // STRIDE, WIDTH // STRIDE))
    assert torch.allclose(found[:, :5].sort(0).values, boxes[0, :2].sort(0).values, atol=1e-3)


def test_the_loss_sees_boxes_and_ignores_padding():
    torch.manual_seed(0)
    model, images = Detector(8), torch.randn(2, 3, HEIGHT, WIDTH)
    boxes = torch.full((2, MOST, 5), -1.0)
    empty = loss(model, (images, boxes))
    boxes[0, 0] = torch.tensor([20.0, 30, 60, 70, 0])
    some = loss(model, (images, boxes))
    assert torch.isfinite(empty)
    assert some != empty
