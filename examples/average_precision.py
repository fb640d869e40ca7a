"""Average precision at an IoU of 0.5 from one row an image, so that its interval can be bootstrapped.

`coco_precision` is faster-coco-eval's value, and `average_precision` the same from rows that can be drawn
anew. A row holds the true boxes of each class, then MOST times (score, class, hit); a score of -1 is none.
The rules are COCO's: detections in order of their score take
the free true box of their class with the best IoU of at least 0.5; precision is the best at that recall or a
higher one, averaged over 101 recalls, and then over the classes that there are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from corank.extras import import_extra
from examples.boxes import iou

MOST = 100
LEAST = 0.5


def match(found: Tensor, true: Tensor, classes: int) -> Tensor:
    """Return the row of one image.

    Args:
        found: (k, 6) corners, class, score, best first.
        true: (m, 5) corners, class.
    """
    row = torch.full((classes + 3 * MOST,), -1.0)
    row[:classes] = torch.bincount(true[:, 4].long(), minlength=classes)
    overlaps = iou(found[:, None, :4], true[:, :4]).masked_fill(found[:, 4:5] != true[:, 4], 0)
    for number, (one, overlap) in enumerate(zip(found[:MOST], overlaps, strict=False)):
        best = int(overlap.argmax()) if len(true) else 0
        hit = bool(len(true)) and bool(overlap[best] >= LEAST)
        if hit:
            overlaps[:, best] = 0  # taken
        row[classes + 3 * number : classes + 3 * number + 3] = torch.tensor([one[5], one[4], float(hit)])
    return row


def average_precision(rows: Tensor) -> float:
    """Return the mean over classes of the average precision, from rows (n, classes + 3 MOST)."""
    classes = rows.shape[1] - 3 * MOST
    scores, kinds, hits = rows[:, classes:].reshape(-1, MOST, 3).flatten(0, 1).double().numpy().T
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= 0]
    kinds, hits = kinds[order], hits[order]
    found = []
    for kind, total in enumerate(rows[:, :classes].sum(0).tolist()):
        if total:
            mine = hits[kinds == kind]
            right = np.cumsum(mine)
            precision = np.maximum.accumulate((right / np.arange(1, len(mine) + 1))[::-1])[::-1]
            at = np.searchsorted(right / total, np.linspace(0, 1, 101), side="left")
            found.append(np.append(precision, 0.0)[np.minimum(at, len(mine))].mean())
    return float(np.mean(found)) if found else 0.0


def coco_precision(found: Sequence[Tensor], true: Sequence[Tensor], classes: int) -> float:
    """Return faster-coco-eval's mAP at an IoU of 0.5, of what was found in each image and what is there."""
    coco = import_extra("faster_coco_eval", "detection")
    boxes = [(image, box) for image, many in enumerate(true) for box in many.tolist()]
    hits = [(image, box) for image, many in enumerate(found) for box in many[:MOST].tolist()]
    if not hits:
        return 0.0
    truth = {
        "images": [{"id": image} for image in range(len(true))],
        "categories": [{"id": kind, "name": str(kind)} for kind in range(classes)],
        "annotations": [
            {"id": number, "image_id": image, "category_id": int(box[4]), "iscrowd": 0, **_sides(box)}
            for number, (image, box) in enumerate(boxes, 1)
        ],
    }
    results = [
        {"image_id": image, "category_id": int(box[4]), "score": box[5], **_sides(box)} for image, box in hits
    ]
    dataset = coco.COCO(truth)
    judge = coco.COCOeval_faster(dataset, dataset.loadRes(results), "bbox")
    judge.params.iouThrs = np.array([LEAST])
    judge.evaluate()
    judge.accumulate()
    precision = judge.eval["precision"][0, :, :, 0, -1]  # recalls, classes; of all sizes, most detections
    return float(precision[precision > -1].mean())


def _sides(box: Sequence[float]) -> dict[str, object]:
    width, height = box[2] - box[0], box[3] - box[1]
    return {"bbox": [box[0], box[1], width, height], "area": width * height}
