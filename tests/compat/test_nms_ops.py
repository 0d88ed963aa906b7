"""Suppression through mmcv.ops against plain loops over Python numbers."""

import math

import mmcv.ops
import numpy as np
import pytest
import torch


def overlap(a, b, offset=0):
    wide = min(a[2], b[2]) - max(a[0], b[0]) + offset
    high = min(a[3], b[3]) - max(a[1], b[1]) + offset
    if wide <= 0 or high <= 0:
        return 0.0
    areas = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b)]
    return wide * high / (sum(areas) - wide * high)


def loop_nms(boxes, scores, threshold, offset=0):
    kept = []
    for i in sorted(range(len(scores)), key=lambda i: -scores[i]):
        if all(overlap(boxes[i], boxes[k], offset) <= threshold for k in kept):
            kept.append(i)
    return kept


def loop_soft_nms(boxes, scores, threshold, sigma, min_score, method, offset):
    scores = dict(enumerate(scores))
    kept = []
    while scores:
        best = max(scores, key=scores.get)
        kept.append((best, scores.pop(best)))
        for i in list(scores):
            iou = overlap(boxes[best], boxes[i], offset)
            if method == 'naive':
                scores[i] *= 0 if iou >= threshold else 1
            elif method == 'linear':
                scores[i] *= 1 - iou if iou >= threshold else 1
            else:
                scores[i] *= math.exp(-iou * iou / sigma)
            if scores[i] < min_score:
                del scores[i]
    return kept


def random_boxes(count, seed=0, extent=60.0):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator, dtype=torch.float64) * extent
    size = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 30 + 1
    return torch.cat([corner, corner + size], 1), torch.rand(count, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', [0.2, 0.5, 0.7])
def test_nms(offset, threshold):
    boxes, scores = random_boxes(100, extent=25.0)
    dets, kept = mmcv.ops.nms(boxes, scores, threshold, offset=offset)
    assert kept.tolist() == loop_nms(boxes.tolist(), scores.tolist(), threshold, offset)
    assert len(kept) < 100
    torch.testing.assert_close(dets, torch.cat([boxes, scores[:, None]], 1)[kept])


def test_nms_offset_counts():
    # Areas 4 x 4 = 16 and, with the last pixel counted, 25; overlap 2/3 without and 20/30 with: between
    # 12/20 = 0.6 and 20/30 = 0.667 only the offset decides.
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [1.0, 0.0, 5.0, 4.0]])
    scores = torch.tensor([0.9, 0.8])
    assert len(mmcv.ops.nms(boxes, scores, 0.63, offset=0)[1]) == 2
    assert len(mmcv.ops.nms(boxes, scores, 0.63, offset=1)[1]) == 1


def test_nms_threshold_is_exclusive():
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 2.0]])  # overlap exactly 0.5
    assert len(mmcv.ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.5)[1]) == 2


def test_nms_score_threshold_and_max_num():
    boxes, scores = random_boxes(40, seed=1)
    expected = [i for i in loop_nms(boxes.tolist(), scores.tolist(), 0.5) if scores[i] > 0.3][:5]
    _, kept = mmcv.ops.nms(boxes, scores, 0.5, score_threshold=0.3, max_num=5)
    assert kept.tolist() == expected


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
def test_nms_keeps_the_dtype(dtype):
    boxes = torch.tensor([[0, 0, 8, 8], [1, 0, 9, 8], [20, 20, 28, 28]], dtype=dtype)
    dets, kept = mmcv.ops.nms(boxes, torch.tensor([0.5, 0.75, 0.25], dtype=dtype), 0.5)
    assert kept.tolist() == [1, 2] and dets.dtype == dtype


def test_nms_takes_numpy():
    boxes, scores = (t.numpy().astype(np.float32) for t in random_boxes(20))
    dets, kept = mmcv.ops.nms(boxes, scores, 0.5)
    assert isinstance(dets, np.ndarray) and kept.tolist() == loop_nms(boxes.tolist(), scores.tolist(), 0.5)


def test_no_boxes():
    none = torch.zeros(0, 4), torch.zeros(0)
    assert mmcv.ops.nms(*none, 0.5)[0].shape == (0, 5)
    assert mmcv.ops.soft_nms(*none, 0.5)[0].shape == (0, 5)
    assert mmcv.ops.nms_match(torch.zeros(0, 5), 0.5) == []


@pytest.mark.parametrize('class_agnostic', [False, True])
@pytest.mark.parametrize('split_thr', [10, 10000])
def test_batched_nms(class_agnostic, split_thr):
    boxes, scores = random_boxes(50, seed=2)
    classes = torch.arange(50) % 3
    config = {'type': 'nms', 'iou_threshold': 0.3, 'split_thr': split_thr}
    dets, kept = mmcv.ops.batched_nms(boxes, scores, classes, config, class_agnostic=class_agnostic)
    expected = []
    # mmcv splits by class above split_thr even where class-agnostic is set
    for group in [range(50)] if class_agnostic and split_thr > 50 else [range(c, 50, 3) for c in range(3)]:
        members = list(group)
        found = loop_nms(boxes[members].tolist(), scores[members].tolist(), 0.3)
        expected += [members[i] for i in found]
    expected.sort(key=lambda i: -scores[i])
    assert kept.tolist() == expected
    torch.testing.assert_close(dets[:, 4], scores[expected])


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
def test_soft_nms(method, offset):
    boxes, scores = random_boxes(40, seed=3)
    before = boxes.clone(), scores.clone()
    dets, kept = mmcv.ops.soft_nms(boxes, scores, 0.3, 0.5, 0.05, method, offset)
    expected = loop_soft_nms(boxes.tolist(), scores.tolist(), 0.3, 0.5, 0.05, method, offset)
    assert kept.tolist() == [i for i, _ in expected]
    torch.testing.assert_close(dets[:, 4], torch.tensor([s for _, s in expected], dtype=torch.float64))
    torch.testing.assert_close(dets[:, :4], boxes[kept])
    assert 0 < len(kept) < 40
    assert torch.equal(boxes, before[0]) and torch.equal(scores, before[1])


@pytest.mark.parametrize('as_numpy', [False, True])
def test_nms_match(as_numpy):
    boxes, scores = random_boxes(40, seed=4)
    dets = torch.cat([boxes, scores[:, None]], 1)
    groups = mmcv.ops.nms_match(dets.numpy() if as_numpy else dets, 0.4)
    kept = loop_nms(boxes.tolist(), scores.tolist(), 0.4)
    assert [int(g[0]) for g in groups] == kept
    owner = {}  # the first kept box, best first, that overlaps it enough
    for i in range(40):
        owner[i] = next(k for k in kept if k == i or overlap(boxes[k].tolist(), boxes[i].tolist()) >= 0.4)
    for group in groups:
        members = sorted((i for i in range(40) if owner[i] == int(group[0])), key=lambda i: -scores[i])
        assert [int(i) for i in group] == members
