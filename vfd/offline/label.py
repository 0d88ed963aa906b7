"""Label many random crops of every image with teachers once, and store the labels.

The slow step of training from stored labels. It is planned, shared by ranks, and goes on after a kill: what an
image's crops and labels are depends on the config and the image alone, never on which process came to it when.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.fileio import join_path
from mmengine.registry import DefaultScope
from torch.utils.data import DataLoader

from vfd.apis.config import load_config
from vfd.apis.device import choose_device
from vfd.errors import BadDataError, UserError, did_you_mean
from vfd.offline.step import Step
from vfd.registry import DATASETS, MODELS
from vfd.stores import (
    LabelledImage,
    LabelStoreWriter,
    Progress,
    StoredCrops,
    atomic_write,
    merge,
    verify_labels,
)
from vfd.stores.label_checks import image_faults
from vfd.stores.label_store import written_files

CONFIG_KEYS = {'model', 'train_dataloader', 'default_scope', 'work_dir', 'custom_imports'}
LOADER_KEYS = {'dataset', 'num_workers'}


@dataclass(frozen=True)
class SourceImage:
    """An image that is to be labelled: name relative to the data set, file, class (-1: not known)."""

    name: str
    path: Path
    ground_truth: int


@dataclass(frozen=True)
class Relabelled:
    """Result of a run.

    Attributes:
        folder: of the store.
        images: images in this rank's shard.
        skipped: name -> reason, for images that could not be labelled.
        gone: images in this rank's part of the store that the data set no longer has.
    """

    folder: Path
    images: int
    skipped: dict[str, str]
    gone: list[str]


def relabel(
    config: str | Path,
    work_dir: str | None = None,
    options: dict[str, Any] | None = None,
    launcher: str = 'none',
    device: str | None = None,
) -> Relabelled:
    """Label the images of a config's data set.

    Args:
        config: with ``model`` (a labeller) and ``train_dataloader`` (``dataset``, ``num_workers``).
        work_dir: folder of the store; default: the config's, else ``work_dirs/<config name>``.
        options: settings that replace those of the config.
        launcher: ``none``, or ``pytorch`` (torchrun) or ``slurm`` (srun): the ranks then share the images.
        device: default: this process's GPU, or the CPU.

    Returns:
        Counts of this rank.

    Raises:
        UserError: a config without these parts, a store of other inputs, an image that changed after it was
            labelled, or a full disk.
    """
    cfg = load_config(config, options)
    _check(cfg, config)
    step = Step.launched('labelling', launcher)
    images = images_of(cfg)
    labeller: Any = MODELS.build(cfg.model)
    _check_classes(images, labeller.classes)
    labeller.check_names([image.name for image in images])
    labeller.to(choose_device(device))
    folder = store_folder(cfg, config, work_dir)
    mine = [image for image in images if step.owns(image.name)]
    form = labeller.form([image.path for image in images])
    written = written_files(folder)
    there = _unchanged(written, mine)  # a folder no longer lists what was deleted
    gone = [name for name in written if step.owns(name) and name not in there]
    with LabelStoreWriter(folder, form, labeller.origin(), step.rank, step.world_size) as writer:
        todo = [image for image in mine if image.name not in writer.done]
        workers = cfg.train_dataloader.get('num_workers', 0)
        seconds = _measure(labeller, todo, workers)
        title = f'labelling {len(mine)} images x {labeller.crops} crops ({len(mine) * labeller.crops} crops)'
        with step.run(len(mine), len(mine) - len(todo), writer.record_bytes, seconds, title) as progress:
            skipped = _label(labeller, todo, writer, workers, progress)
    _report(folder, step, skipped)
    print(
        f'{folder}: {len(writer.done)} images of rank {step.rank} are labelled; {len(skipped)} could not be read'
        + (f', {len(gone)} are no longer in the data set' if gone else '')
    )
    return Relabelled(folder, len(writer.done), skipped, gone)


def verify_relabelling(
    config: str | Path, work_dir: str | None = None, options: dict[str, Any] | None = None
) -> list[str]:
    """Check what an earlier run wrote.

    Returns:
        One line a fault: records that differ from their checksums or make no sense, images that changed.
    """
    cfg = load_config(config, options)
    _check(cfg, config)
    folder = store_folder(cfg, config, work_dir)
    return verify_labels(folder) + image_faults(folder, {image.name: image.path for image in images_of(cfg)})


def merge_relabelling(
    config: str | Path, work_dir: str | None = None, options: dict[str, Any] | None = None
) -> Path:
    """Make one data file of the finished shards; the folder of the store."""
    folder = store_folder(load_config(config, options), config, work_dir)
    merge(folder)
    return folder


def images_of(cfg: Config) -> list[SourceImage]:
    """Return the images of a config; data sets that name no package are of its ``default_scope`` (else mmpretrain)."""
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmpretrain'):
        return source_images(cfg.train_dataloader.dataset)


def source_images(dataset: dict) -> list[SourceImage]:
    """Return the images of a data set, named relative to its image folder.

    Args:
        dataset: config of a data set with ``img_path`` and perhaps ``gt_label``: those of mmpretrain,
            ``vfd.ImageListDataset``, ``vfd.ImageFolderDataset``. Its pipeline is not used.

    Raises:
        UserError: an image lies outside the folder, or is named twice.
    """
    built = DATASETS.build(dataset)
    root = Path(image_root(built))
    images: dict[str, SourceImage] = {}
    for number in range(len(built)):
        info = built.get_data_info(number)
        path = Path(info['img_path'])
        if not path.is_relative_to(root):
            raise UserError(f"{path} does not lie in {root or '.'}, the data set's image folder")
        name = path.relative_to(root).as_posix()
        if name in images:
            raise UserError(f'the data set names {path} twice')
        truth = int(info['gt_label']) if info.get('has_label', 'gt_label' in info) else -1
        images[name] = SourceImage(name, path, truth)
    return list(images.values())


def image_root(dataset: Any) -> str:
    """Return the folder to which the names of a data set's images are relative."""
    if hasattr(dataset, 'roots'):  # vfd.ImageListDataset
        if len(set(dataset.roots)) > 1:
            raise UserError(
                f'image lists of several folders cannot share a store: {sorted(set(dataset.roots))}'
            )
        return join_path(dataset.data_root, dataset.roots[0]) if dataset.data_root else dataset.roots[0]
    return getattr(dataset, 'img_prefix', None) or dataset.data_root


def store_folder(cfg: Config, config: str | Path, work_dir: str | None) -> Path:
    """Return the folder of a config's label store."""
    return Path(work_dir or cfg.get('work_dir') or f'work_dirs/{Path(config).stem}')


def _label(
    labeller: Any, todo: Sequence[SourceImage], writer: LabelStoreWriter, workers: int, progress: Progress
) -> dict[str, str]:
    """Label images and append them in order; the images that could not be, with the reason."""
    skipped: dict[str, str] = {}
    crops = labeller.dataset([(image.name, image.path) for image in todo])
    # one item a batch: a chunk is a batch already
    loader = iter(DataLoader(crops, batch_size=None, num_workers=workers, collate_fn=_as_it_is))
    together = max(workers, 1)  # images whose chunks come in turn, one of each worker
    for first in range(0, len(todo), together):
        images = [Labelling(image) for image in todo[first : first + together]]
        for _ in range(labeller.chunks):
            for image in images:
                image.add(next(loader), labeller)
        for image in images:
            reason = image.finish(writer)
            if reason is not None:
                skipped[image.source.name] = reason
            progress.advance(1)
    return skipped


class Labelling:
    """One image on its way into the store, chunk by chunk."""

    def __init__(self, source: SourceImage) -> None:
        self.source = source
        self.labels: list[np.ndarray] = []
        self.chunk: Any = None

    def add(self, chunk: Any, labeller: Any) -> None:
        """Label the crops of a chunk."""
        assert chunk.name == self.source.name
        self.chunk = chunk
        if chunk.fault is None:
            self.labels.append(labeller.label(chunk.pixels))

    def finish(self, writer: LabelStoreWriter) -> str | None:
        """Append the image; the reason why it cannot be."""
        chunk = self.chunk
        if chunk.fault is not None:
            return chunk.fault
        stored = StoredCrops(chunk.boxes, chunk.flips, np.concatenate(self.labels))
        image = LabelledImage(self.source.name, chunk.size, stored, self.source.ground_truth, chunk.file)
        try:
            writer.append(image)
        except BadDataError as error:
            return str(error)
        return None


def _measure(labeller: Any, todo: Sequence[SourceImage], workers: int) -> float | None:
    """Measure the seconds an image takes, from one chunk of the first readable image."""
    for image in todo[:8]:
        begin = time.perf_counter()
        chunk = next(iter(labeller.dataset([(image.name, image.path)])))
        cut = time.perf_counter() - begin
        if chunk.fault is None:
            labeller.label(chunk.pixels)  # the first call of a network is slow
            begin = time.perf_counter()
            labeller.label(chunk.pixels)
            labelled = time.perf_counter() - begin
            return labeller.chunks * (max(cut / workers, labelled) if workers else cut + labelled)
    return None


def _check(cfg: Config, config: str | Path) -> None:
    """Refuse keys that relabelling would not read."""
    for names, known, where in (
        (cfg, CONFIG_KEYS, ''),
        (cfg.get('train_dataloader', {}), LOADER_KEYS, 'train_dataloader.'),
    ):
        for name in names:
            if name not in known:
                raise UserError(
                    f'config {config}: relabelling does not read "{where}{name}"{did_you_mean(name, known)}; it reads '
                    f'{", ".join(sorted(known))}'
                )
    labels = hasattr(MODELS.get(str(cfg.get('model', {}).get('type'))), 'label')
    if not labels or 'dataset' not in cfg.get('train_dataloader', {}):
        labellers = ', '.join(
            f'vfd.{name}' for name, cls in MODELS.module_dict.items() if hasattr(cls, 'label')
        )
        raise UserError(
            f'config {config}: relabelling needs a model that labels ({labellers}) and '
            'train_dataloader=dict(dataset=...)'
        )


def _check_classes(images: Sequence[SourceImage], classes: int) -> None:
    for image in images:
        if image.ground_truth >= classes:
            raise UserError(
                f'{image.name} is of class {image.ground_truth}, the teacher has classes 0 to {classes - 1}: teacher '
                'and data set do not belong together'
            )


def _unchanged(written: Mapping[str, tuple[int, int]], images: Sequence[SourceImage]) -> set[str]:
    """Return the names of the labelled images that are still there; UserError when one has another size."""
    there = set()
    for number, image in enumerate(images):
        if image.name not in written:
            continue
        try:
            size = image.path.stat().st_size
        except FileNotFoundError:
            continue
        if size != written[image.name][0]:
            raise UserError(
                f'{image.path} (image {number}) changed after it was labelled: {size} bytes, in the store '
                f'{written[image.name][0]}. Restore the file, or choose another folder to label anew.'
            )
        there.add(image.name)
    return there


def _report(folder: Path, step: Step, skipped: dict[str, str]) -> None:
    """Write the list of images that were not labelled."""
    path = folder / f'skipped-{step.rank:05d}-of-{step.world_size:05d}.txt'
    if skipped:
        atomic_write(path, ''.join(f'{name}\t{reason}\n' for name, reason in skipped.items()))
    else:
        path.unlink(missing_ok=True)


def _as_it_is(item: Any) -> Any:
    return item
