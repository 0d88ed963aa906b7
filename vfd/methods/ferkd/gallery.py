"""Pictures of region calibration: of a store, and of one image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vfd.errors import BadDataError, MissingFileError, UserError
from vfd.methods.ferkd.pictures import ShownCrop, draw_categories, draw_crop_sheet, draw_regions
from vfd.registry import FUNCTIONS
from vfd.stores import LabelStore
from vfd.visualization.theme import LIGHT

from .calibration import CalibrationSummary
from .core import CATEGORIES, RegionCalibration, confidences_of
from .crops import cut_crop, read_rgb
from .labeller import RegionLabeller

SIDE = 112  # of shown crops in pixels
COLUMNS = 8
CONFIDENCE = {'max': 'largest probability of the teacher', 'gt': 'probability of the ground-truth class'}


@FUNCTIONS.register_module()
def calibration_histogram(summary: CalibrationSummary) -> bytes:
    """Draw the confidences by category as a PNG."""
    rule = summary.rule
    thresholds = (rule.low, rule.mid, rule.high)
    return draw_categories(summary.histogram, thresholds, CATEGORIES, CONFIDENCE[rule.confidence], LIGHT)


@FUNCTIONS.register_module()
def calibration_sheet(
    folder: str | Path, images: str | Path, summary: CalibrationSummary, class_names: Sequence[str] = ()
) -> bytes:
    """Draw example crops of every category, of the images that are there, as a PNG.

    Args:
        folder: the raw store.
        images: folder to which the store's names are relative.
        summary: of the calibration.
        class_names: empty: numbers are shown.

    Raises:
        MissingFileError: none of the images is there.
        UserError: an image changed after it was labelled.
    """
    store = LabelStore(folder)

    def there(example: tuple) -> bool:
        return Path(images, store.names[example[0]]).exists()

    examples = [list(filter(there, kind)) for kind in summary.examples]
    if not any(examples):
        raise MissingFileError(
            f'none of the images of {folder} that were looked for is in {images}, such as {store.names[0]}: its names '
            'are relative to another folder'
        )
    rows = []
    for name, kind in zip(CATEGORIES, examples, strict=True):
        shown = []
        for index, row, confidence in spread(kind, COLUMNS):
            path = Path(images, store.names[index])
            data = path.read_bytes()
            store.check_file(index, data)
            image = read_rgb(data, str(path))
            crops = store.read(index, [row])
            picture = cut_crop(image, crops.boxes[0], bool(crops.flip[0]), SIDE, 'bicubic')
            truth = class_name(store.ground_truth(index), class_names)
            best = label_lines(crops.labels[0], store.label_type, 1, class_names)
            shown.append(ShownCrop(picture, f'of {truth}\n{best}\nconfidence {confidence:.2f}'))
        rows.append((name, shown))
    return draw_crop_sheet(rows, LIGHT)


@FUNCTIONS.register_module()
def regions_picture(
    labeller: RegionLabeller,
    path: str | Path,
    rule: dict[str, Any],
    ground_truth: int | None = None,
    class_names: Sequence[str] = (),
) -> tuple[bytes, str]:
    """Label the crops of one image and show which of them region calibration keeps.

    Args:
        labeller: of a relabelling config.
        path: the image.
        rule: of :class:`RegionCalibration`.
        ground_truth: class of the image; default: the class of the largest mean probability.
        class_names: empty: numbers are shown.

    Returns:
        A PNG, and a line of text a crop.

    Raises:
        UserError: the image cannot be read, or the rule is none.
    """
    chunks = list(labeller.dataset([(Path(path).name, Path(path))]))
    first = chunks[0]
    if first.fault is not None:
        raise BadDataError(first.fault)
    assert first.boxes is not None and first.flips is not None
    probs = torch.cat([labeller.probabilities(chunk.pixels) for chunk in chunks]).cpu().numpy()
    truth = int(probs.mean(axis=0).argmax()) if ground_truth is None else ground_truth
    if not 0 <= truth < labeller.classes:
        raise UserError(f'class {truth}: the teacher has classes 0 to {labeller.classes - 1}')
    try:
        calibration = RegionCalibration(**rule)
    except ValueError as error:
        raise UserError(str(error)) from None
    confidences = confidences_of(probs, 'ori', labeller.classes, calibration.confidence, truth)
    category = calibration.categories(confidences)
    image = read_rgb(Path(path).read_bytes(), str(path))
    rows, lines = [], []
    for kind, name in enumerate(CATEGORIES):
        members = np.flatnonzero(category == kind)
        shown = []
        for row in members[np.argsort(-confidences[members], kind='stable')]:
            best = label_lines(probs[row], 'ori', 5, class_names)
            picture = cut_crop(image, first.boxes[row], bool(first.flips[row]), SIDE, 'bicubic')
            shown.append(ShownCrop(picture, best))
            lines.append(f'{name:<10} {confidences[row]:.3f}  ' + best.replace('\n', ', '))
        rows.append((f'{name} ({len(shown)})', spread(shown, 4)))
    title = f'{len(category)} crops, class {class_name(truth, class_names)}'
    png = draw_regions(np.asarray(image), first.boxes, category, rows, title, LIGHT)
    return png, '\n'.join(lines)


def label_lines(label: np.ndarray, label_type: str, count: int, class_names: Sequence[str]) -> str:
    """Return the ``count`` best classes of one stored label, one a line."""
    if label_type == 'ori':
        ids = np.argsort(-label, kind='stable')
        values = label[ids]
    else:
        ids, values = np.atleast_1d(label[0]).astype(int), np.atleast_1d(label[1])
    return '\n'.join(
        f'{class_name(int(i), class_names)} {v:.2f}'
        for i, v in zip(ids[:count], values[:count], strict=False)
    )


def spread(items: list, count: int) -> list:
    """Return at most ``count`` of the items, evenly spread."""
    places = np.linspace(0, len(items) - 1, min(count, len(items))).astype(int)
    return [items[place] for place in places.tolist()]


def class_name(number: int, class_names: Sequence[str]) -> str:
    """Return the name of a class, at most 18 letters; its number where it has no name."""
    if not 0 <= number < len(class_names):
        return str(number)
    name = class_names[number]
    return name if len(name) <= 18 else name[:17] + '…'
