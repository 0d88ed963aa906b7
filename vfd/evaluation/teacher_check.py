"""A quick check before training: whether a teacher is better than chance on the data of the student.

B images, C classes, N images of the check.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.dataset import pseudo_collate
from torch import Tensor

from vfd.errors import UserError
from vfd.evaluation.knn import knn_predict

IMAGES = 64
KNN_CLASSES = 8  # neighbours of the same class have to be among the images
CHUNK = 8
SECONDS = 20.0  # after which no further chunk is begun
DEVIATIONS = 3.0


@dataclass(frozen=True)
class TeacherCheck:
    """Result of the check.

    Attributes:
        text: for people.
        warning: what is wrong, empty for nothing.
    """

    text: str
    warning: str = ''


def check_teacher(teacher: Any, dataset: Any, prepare: Callable[[dict], dict]) -> TeacherCheck:
    """Measure a teacher on some labelled images, prepared as in training.

    With the tap ``logits`` that is its accuracy and cross-entropy on images spread over the data set; with any other
    tap the accuracy of nearest neighbours by the mean features of its last tap, on images of a few classes. Results
    that chance could give are a warning, and so is an accuracy far below the one that the weight file names. A teacher
    with ``bn='train'`` gets all images as one batch, and moves its statistics as in a step of training.

    Args:
        teacher: a live :class:`vfd.Teacher`.
        dataset: of the validation; its samples have ``gt_label``.
        prepare: collated samples to ``{'inputs', 'data_samples'}``: the data preprocessor.
    """
    classify = 'logits' in teacher.taps
    rows = _spread(dataset) if classify else _of_few_classes(dataset)
    if not rows:
        return TeacherCheck('not measured: the validation images have no class labels')
    features, labels = _run(teacher, dataset, rows, prepare, 'logits' if classify else teacher.taps[-1])
    if not features.isfinite().all():
        return TeacherCheck('features that are not finite', 'the teacher outputs NaN or infinity')
    return _classified(teacher, features, labels) if classify else _neighbours(features, labels)


def _classified(teacher: Any, logits: Tensor, labels: Tensor) -> TeacherCheck:
    count, classes = logits.shape
    if int(labels.max()) >= classes:
        return TeacherCheck(
            f'not measured: {classes} classes, labels up to {int(labels.max())}',
            f'the teacher has {classes} classes, the validation images have labels up to {int(labels.max())}',
        )
    accuracy = float((logits.argmax(1) == labels).float().mean())
    loss = float(F.cross_entropy(logits, labels))
    text = f'accuracy {accuracy:.3f}, cross-entropy {loss:.2f} on {count} validation images (chance {1 / classes:.3f})'
    if accuracy <= _bound(1 / classes, count):
        order = (
            '' if teacher.classes is None else f' Its classes begin with {", ".join(teacher.classes[:3])}.'
        )
        return TeacherCheck(
            text,
            f'the teacher is no better than chance on the validation images ({accuracy:.3f}): are its classes those of '
            f'the data, in the same order, and its input_size and bn those it was trained with?{order}',
        )
    known = teacher.card.accuracy
    if known is not None and accuracy < known - DEVIATIONS * (known * (1 - known) / count) ** 0.5:
        return TeacherCheck(
            text,
            f'the teacher reaches {accuracy:.3f} on the validation images, it had {known:.3f} when it was made: are '
            f'its input_size ({teacher.input_size}), bn ({teacher.bn}) and the size of the images right?',
        )
    return TeacherCheck(text)


def _neighbours(features: Tensor, labels: Tensor) -> TeacherCheck:
    array, truth = features.double().numpy(), labels.numpy()
    others = [np.arange(len(array)) != row for row in range(len(array))]
    found = [
        knn_predict(array[other], truth[other], array[[row]], k=5)[0] for row, other in enumerate(others)
    ]
    accuracy = float(np.mean(np.array(found) == truth))
    chance = float(np.bincount(truth).max() / len(truth))
    text = (
        f'kNN accuracy {accuracy:.3f} on {len(truth)} validation images of {len(set(truth.tolist()))} classes '
        f'(chance {chance:.3f})'
    )
    if accuracy <= _bound(chance, len(truth)):
        return TeacherCheck(
            text, f"the teacher's features tell classes apart no better than chance ({accuracy:.3f})"
        )
    return TeacherCheck(text)


def _bound(chance: float, count: int) -> float:
    """Return an upper bound of the accuracy of guessing."""
    return chance + 2 * (chance * (1 - chance) / count) ** 0.5


@torch.no_grad()
def _run(
    teacher: Any, dataset: Any, rows: Sequence[int], prepare: Callable[[dict], dict], tap: str
) -> tuple[Tensor, Tensor]:
    """Compute features (N, D) and labels (N,)."""
    features, labels, begun = [], [], time.monotonic()
    chunk = IMAGES if teacher.bn == 'train' else CHUNK
    for first in range(0, len(rows), chunk):
        batch = prepare(pseudo_collate([dataset[row] for row in rows[first : first + chunk]]))
        output = teacher(batch['inputs'], data_samples=batch['data_samples'])[tap]
        if not isinstance(output, Tensor):
            raise UserError(f'the tap "{tap}" gives a different number of features for each image')
        if output.ndim == 4:
            output = output.mean((2, 3))
        elif output.ndim == 3:
            output = output.mean(1)
        features.append(output.float().cpu())
        labels += [_label(sample.gt_label) for sample in batch['data_samples']]
        if time.monotonic() - begun > SECONDS:
            break
    return torch.cat(features), torch.tensor(labels)


def _label(value: Any) -> int:
    return int(torch.as_tensor(value).reshape(-1)[0])


def _labels(dataset: Any) -> list[int | None]:
    infos = (dataset.get_data_info(index) for index in range(len(dataset)))
    return [
        int(info['gt_label'])
        if info.get('has_label', True) and np.ndim(info.get('gt_label', ())) == 0
        else None
        for info in infos
    ]


def _spread(dataset: Any) -> list[int]:
    """Return rows of labelled images, evenly spread."""
    rows = [row for row, label in enumerate(_labels(dataset)) if label is not None]
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(IMAGES, len(rows))).round().astype(int))
    return [rows[k] for k in chosen]


def _of_few_classes(dataset: Any) -> list[int]:
    """Return rows of labelled images of a few classes, as many of each."""
    labels = _labels(dataset)
    by_class: dict[int, list[int]] = {}
    for row, label in enumerate(labels):
        if label is not None:
            by_class.setdefault(label, []).append(row)
    names = [name for name, rows in sorted(by_class.items()) if len(rows) > 1]
    if len(names) < 2:
        return []
    step = max(1, len(names) // KNN_CLASSES)
    chosen = names[::step][:KNN_CLASSES]
    return sorted(row for name in chosen for row in by_class[name][: IMAGES // KNN_CLASSES])
