"""Region calibration of a whole label store, offline or image by image while it is read: the numbers are the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from vfd.errors import UserError
from vfd.losses import label_shape
from vfd.offline.step import Step
from vfd.registry import FUNCTIONS
from vfd.stores import LabelledImage, LabelStore, LabelStoreWriter, Progress, StoredCrops

from .core import (
    CATEGORIES,
    DISCARD,
    RegionCalibration,
    calibrated_labels,
    calibrated_type,
    categories_of,
    check_has_confidence,
    confidences_of,
)

BINS = 10_000  # of the histogram of confidences: of an unsure teacher they are close together
UNKNOWN = 255  # beside the categories 0 to 2
EXAMPLES = 512  # images, spread over the store, whose crops may be shown


@dataclass
class CalibrationSummary:
    """Result of the calibration of a store.

    Attributes:
        rule: with the thresholds that were used.
        histogram: (3, BINS) crops by category and by confidence in 0..1.
        taken_back: crops that ``min_keep`` took back.
        kept: crops that each image kept.
        examples: for every category (image, row, confidence) of its first crop in EXAMPLES images.
    """

    rule: RegionCalibration
    histogram: np.ndarray = field(default_factory=lambda: np.zeros((3, BINS), np.int64))
    taken_back: int = 0
    kept: list[int] = field(default_factory=list)
    examples: tuple[list, list, list] = field(default_factory=lambda: ([], [], []))

    def table(self) -> str:
        """Format the crops of every category as text."""
        counts = self.histogram.sum(axis=1)
        label = ('none', 'softened ground truth', 'soft label')
        rows = [('category', 'crops', 'share', 'label')]
        rows += [
            (name, str(count), f'{count / max(counts.sum(), 1):.1%}', what)
            for name, count, what in zip(CATEGORIES, counts.tolist(), label, strict=True)
        ]
        width = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = [f'{a:<{width[0]}}  {b:>{width[1]}}  {c:>{width[2]}}  {d}'.rstrip() for a, b, c, d in rows]
        rule = self.rule
        kept = np.array(self.kept or [0])
        return '\n'.join(
            [
                f'confidence "{rule.confidence}", thresholds {rule.low:.6g}, {rule.mid:.6g}, {rule.high:.6g}, '
                f'epsilon {rule.epsilon:g}',
                *lines,
                f'kept crops of an image: {kept.min()} to {kept.max()}, median {np.median(kept):g}; '
                f'{self.taken_back} crops taken back so that no image has fewer than {rule.min_keep}',
            ]
        )


class LiveCalibration:
    """A raw store, calibrated while it is read: what a store that :func:`calibrate_store` wrote would give.

    Categories are worked out when an image is first visited, which reads all of its labels, and kept: a byte a crop, in
    memory that the loader's worker processes share. Later visits touch the rows that they read.

    Args:
        store: not calibrated.
        rule: of :func:`build_calibration`.
    """

    def __init__(self, store: LabelStore, rule: RegionCalibration) -> None:
        self.store, self.rule = store, rule
        shape = (len(store), store.crops)
        self._categories = torch.full(shape, UNKNOWN, dtype=torch.uint8).share_memory_()

    def categories(self, index: int) -> np.ndarray:
        """Return the category of every crop of image ``index``: (M,) uint8.

        Raises:
            UserError: the image's class is not known.
        """
        category = self._categories.numpy()[index]
        if category.max() == UNKNOWN:  # of any row: another process may be writing them
            store = self.store
            stored, truth = _raw(store, index)
            category[:] = categories_of(stored, store.label_type, store.classes, truth, self.rule)
        return category

    def kept(self, index: int) -> np.ndarray:
        """Return the rows of an image that calibration keeps, int64, rising."""
        return np.flatnonzero(self.categories(index))

    def read(self, index: int, rows: np.ndarray | None = None) -> StoredCrops:
        """Read crops with labels of the type ``calibrated_type(store.label_type)``; see ``LabelStore.read``."""
        store = self.store
        crops = store.read(index, rows)
        category = self.categories(index)[slice(None) if rows is None else rows]
        truth = store.ground_truth(index)
        labels = calibrated_labels(
            crops.labels, store.label_type, store.classes, truth, category, self.rule.epsilon
        )
        assert store.value_dtype is not None
        pair = labels if store.label_type == 'ori' else labels[:, 1]
        pair[...] = pair.astype(store.value_dtype)  # what a store of that type gives back
        return replace(crops, labels=labels)


def build_calibration(
    store: LabelStore,
    thresholds: Sequence[float] | None = None,
    quantiles: Sequence[float] | None = None,
    epsilon: float = 0.1,
    confidence: Literal['max', 'gt'] = 'max',
    min_keep: int = 4,
) -> RegionCalibration:
    """Build the rule for a store, from thresholds or from the distribution of its confidences.

    Args:
        store: not calibrated.
        thresholds: T_L, T_M, T_T.
        quantiles: instead: parts (a, b, c) of all crops; the thresholds are the confidences that these parts lie below
            (project default). It reads the whole store and takes 4 bytes a crop.
        epsilon: see :class:`RegionCalibration`.
        confidence: see there.
        min_keep: see there.

    Raises:
        UserError: thresholds out of order, both or none of both given, or a store that cannot be calibrated.
    """
    if store.calibrated:
        raise UserError(f'{store.folder} is calibrated already: give the raw store that it was made from')
    given = thresholds if quantiles is None else quantiles
    if given is None or (thresholds is not None and quantiles is not None) or len(given) != 3:
        raise UserError(
            'region calibration needs either three thresholds (low, mid, high) or three quantiles'
        )
    try:
        low, mid, high = given
        rule = RegionCalibration(low, mid, high, epsilon, confidence, min_keep)
        check_has_confidence(store.label_type)
    except ValueError as error:
        raise UserError(f'{store.folder}: {error}') from None
    if min_keep > store.crops:
        raise UserError(f'min_keep={min_keep}, but {store.folder} has {store.crops} crops an image')
    if quantiles is None:
        return rule
    values = np.empty((len(store), store.crops), np.float32)
    with Progress('reading confidences', len(store)) as progress:
        for index in range(len(store)):
            stored, truth = _raw(store, index, need_truth=confidence == 'gt')
            values[index] = confidences_of(stored, store.label_type, store.classes, confidence, truth)
            progress.advance(1)
    low, mid, high = np.quantile(values.reshape(-1), quantiles, method='lower').tolist()
    return replace(rule, low=low, mid=mid, high=high)


@FUNCTIONS.register_module()
def calibrate_store(folder: str | Path, out: str | Path, settings: dict[str, Any]) -> CalibrationSummary:
    """Write a calibrated store: the same crops, with a category each, and context crops relabelled.

    Args:
        folder: the raw store.
        out: folder of the new one. Interrupted, it goes on.
        settings: of :func:`build_calibration`.

    Returns:
        Counts and examples.

    Raises:
        UserError: see :func:`build_calibration`; an image without ground truth; an image of which nothing is left; or
            a full disk.
    """
    store = LabelStore(folder)
    if Path(out).resolve() == store.folder.resolve():
        raise UserError(
            f'the calibrated store cannot take the place of the raw one: choose another folder than {out}'
        )
    rule = build_calibration(store, **settings)
    live = LiveCalibration(store, rule)
    label_type = calibrated_type(store.label_type)
    shape = label_shape(label_type, store.classes)
    form = replace(store.form, label_type=label_type, shape=shape, calibrated=True)
    summary = CalibrationSummary(rule)
    origin = {**store.origin, 'raw_label_type': store.label_type, 'calibration': asdict(rule)}
    shown = set(np.linspace(0, len(store) - 1, EXAMPLES).astype(int).tolist())
    with (
        LabelStoreWriter(out, form, origin) as writer,
        Step('calibrating').run(len(store), len(writer.done), writer.record_bytes) as progress,
    ):
        for index, name in enumerate(store.names):
            image = store.image(index)
            category = live.categories(index)
            if not category.any():
                raise UserError(
                    f'{out}: no crop of {name} (record {index}) is left after calibration; set min_keep to the number '
                    'of crops that training takes of an image'
                )
            _count(summary, store, index, image, category, index in shown)
            if name not in writer.done:
                writer.append(replace(image, crops=live.read(index), category=category))
                progress.advance(1)
    return summary


def _count(
    summary: CalibrationSummary,
    store: LabelStore,
    index: int,
    image: LabelledImage,
    category: np.ndarray,
    may_be_shown: bool,
) -> None:
    rule = summary.rule
    values = confidences_of(
        image.crops.labels, store.label_type, store.classes, rule.confidence, image.ground_truth
    )
    for kind in range(3):
        summary.histogram[kind] += np.histogram(values[category == kind], BINS, (0.0, 1.0))[0]
        if may_be_shown and (category == kind).any():
            row = int((category == kind).argmax())
            summary.examples[kind].append((index, row, float(values[row])))
    summary.kept.append(int((category != DISCARD).sum()))
    free = replace(rule, min_keep=0).categories(values)
    summary.taken_back += int(((free == DISCARD) & (category != DISCARD)).sum())


def _raw(store: LabelStore, index: int, need_truth: bool = True) -> tuple[np.ndarray, int]:
    truth = store.ground_truth(index)
    if truth < 0 and need_truth:
        raise UserError(
            f'{store.folder}: the class of {store.names[index]} (record {index}) is not known; region calibration '
            'needs it. Label a data set with classes.'
        )
    return store.read(index).labels, truth
