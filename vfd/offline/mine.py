"""Mine unlabelled images for distillation: score a pool with the teacher, drop copies of validation images,
keep the best k of every class.

The slow part, scoring, is stored as it goes: a killed run goes on where it stopped, and several ranks share
the work. What is stored of an image is its predicted class, that class's probability and a perceptual hash
(16 bytes), so that another ``k`` or other thresholds need no second look at the pool.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vfd.apis.config import load_config
from vfd.apis.device import choose_device
from vfd.datasets.image_io import read_image
from vfd.datasets.image_lists import list_images, read_image_list
from vfd.datasets.image_scan import ImageScan, Scanned, scan_batches
from vfd.datasets.mining import TopKMiner
from vfd.datasets.near_duplicates import HashIndex, SiftComparison
from vfd.errors import BadDataError, MissingFileError, UserError
from vfd.offline.step import Step
from vfd.registry import MODELS
from vfd.stores import (
    Progress,
    Store,
    StoreWriter,
    UnfinishedStoreError,
    atomic_write,
    fingerprint_files,
    verify,
)
from vfd.teachers import Teacher
from vfd.teachers.normalization import Normalization

BAD = -1  # predicted class of a file that cannot be read
FIELDS: dict[str, tuple[str, tuple[int, ...]]] = {
    'predicted': ('int32', ()),
    'score': ('float32', ()),
    'hash': ('uint64', ()),
}


@dataclass(frozen=True)
class MiningSettings:
    """Settings of :func:`mine_unlabeled`.

    Attributes:
        images: the pool: a folder, or a text list (``path`` or ``path label`` a line).
        out: the list to write; the report goes beside it (``.json``), the scores too unless ``store`` is
            set.
        k: images to keep of a class.
        min_score: probability below which an image is left out, however few a class has.
        root: folder of a list's paths.
        exclude: validation images whose copies leave the pool: a folder or a text list.
        exclude_root: folder of that list's paths.
        store: folder for the scores.
        input_size: side of the teacher's input in pixels, default the teacher's own ``input_size``, else 224.
        crop_pct: side divided by the length of the resized shorter side.
        batch_size: images in a batch of the teacher.
        workers: loader processes.
        launcher: ``none``, or ``pytorch`` (torchrun) or ``slurm`` (srun): the ranks then share the pool.
        device: default: this process's GPU, or the CPU.
        max_hash_distance: differing bits of 64 up to which a pair is compared by SIFT (project default).
        min_matches: agreeing SIFT matches that make a pair the same picture (project default).
    """

    images: str
    out: str
    k: int
    min_score: float = 0.0
    root: str = ''
    exclude: str | None = None
    exclude_root: str = ''
    store: str | None = None
    input_size: int | None = None
    crop_pct: float = 0.875
    batch_size: int = 64
    workers: int = 2
    launcher: str = 'none'
    device: str | None = None
    max_hash_distance: int = 8
    min_matches: int = 12

    @property
    def store_path(self) -> Path:
        """Folder of the scores."""
        return Path(self.store or f'{self.out}.scores')

    @property
    def report_path(self) -> Path:
        """File of the report."""
        return Path(f'{self.out}.json')


@dataclass(frozen=True)
class ImageSet:
    """Images under one root; ``names`` are relative to it and distinct."""

    names: list[str]
    root: Path
    repeated: int

    @classmethod
    def read(cls, source: str, root: str) -> ImageSet:
        """Read a folder or a text list."""
        if Path(source).is_dir():
            return cls(list_images(source), Path(source), 0)
        if not Path(source).exists():
            raise MissingFileError(f'{source} is neither a folder of images nor an image list')
        names = [image.path for image in read_image_list(source)]
        distinct = list(dict.fromkeys(names))
        return cls(distinct, Path(root), len(names) - len(distinct))

    def file(self, number: int) -> Path:
        """Return the path of an image."""
        return self.root / self.names[number]


def mine_unlabeled(teacher: dict, settings: MiningSettings) -> dict[str, Any] | None:
    """Write the list of mined images, one ``path class score`` a line, class by class, best first.

    Class and score are the teacher's prediction and its probability.

    Args:
        teacher: config of a ``vfd.Teacher`` with logits.
        settings: see :class:`MiningSettings`.

    Returns:
        The report that is also written beside the list; None when other ranks are still scoring (the last one
        writes the list).

    Raises:
        UserError: inputs that are absent or that changed since the scores were begun, or a teacher without
            logits.
    """
    _check(settings)
    pool = ImageSet.read(settings.images, settings.root)
    excluded = ImageSet.read(settings.exclude, settings.exclude_root) if settings.exclude else None
    scorer = _Scorer(teacher, settings)
    step = Step.launched('scoring the pool', settings.launcher)
    print(
        f'mining {settings.k} images of each of {scorer.teacher.num_classes} classes; scores: {settings.store_path}'
    )
    _scan(step, pool, settings.store_path / 'pool', scorer, settings)
    if excluded is not None:
        hashing = replace(step, title='hashing the excluded images')
        _scan(hashing, excluded, settings.store_path / 'excluded', None, settings)
    try:
        scores = Store(settings.store_path / 'pool')
        hashes = Store(settings.store_path / 'excluded') if excluded is not None else None
    except UnfinishedStoreError:
        print(f'rank {step.rank} is done; the rank that ends last writes the list')
        return None
    return _select(pool, excluded, scores, hashes, scorer, settings)


def teacher_config(
    config: str | None, model: str | None, checkpoint: str | None, num_classes: int | None = None
) -> dict:
    """Return the teacher that the command line names: that of a training config, or a timm model.

    Args:
        config: a training config with ``model.teacher``.
        model: instead: timm's name of a network.
        checkpoint: with ``model``: a file, ``pretrained`` or ``random``.
        num_classes: with ``model``: classes of the checkpoint, if they differ from timm's.
    """
    if (config is None) == (model is None):
        raise UserError('name the teacher by a training config or by --model, and not by both')
    if config is not None:
        if checkpoint is not None or num_classes is not None:
            raise UserError('--checkpoint and --num-classes go with --model; a config names its own')
        teacher = load_config(config).get('model', {}).get('teacher')
        if teacher is None:
            raise UserError(f'{config} has no model.teacher')
        return dict(teacher)
    if checkpoint is None:
        raise UserError('--model needs --checkpoint: a file, "pretrained" or "random"')
    source: dict[str, Any] = {'type': 'vfd.TimmSource', 'model_name': model}
    if num_classes is not None:
        source['num_classes'] = num_classes
    return {'type': 'vfd.Teacher', 'source': source, 'checkpoint': checkpoint}


def verify_mining(settings: MiningSettings) -> list[str]:
    """Check what an earlier run wrote.

    Returns:
        One line a fault: records of the store that differ from their checksums, a list that is not the one
        in the report.
    """
    faults = verify(settings.store_path / 'pool')
    if (settings.store_path / 'excluded').exists():
        faults += verify(settings.store_path / 'excluded')
    if not settings.report_path.exists() or not Path(settings.out).exists():
        return [*faults, f'{settings.out} and its report {settings.report_path} are not both there']
    report = json.loads(settings.report_path.read_text(encoding='utf-8'))
    if hashlib.sha256(Path(settings.out).read_bytes()).hexdigest() != report['list_sha256']:
        faults.append(f'{settings.out} is not the list that {settings.report_path} describes')
    return faults


class _Scorer:
    """The teacher, ready to score raw pixels."""

    def __init__(self, config: dict, settings: MiningSettings) -> None:
        if config.get('type') != 'vfd.Teacher':
            raise UserError(f'mining needs a live teacher (vfd.Teacher), got {config.get("type")}')
        teacher: Teacher = MODELS.build({**config, 'taps': ['logits'], 'bn': 'eval'})
        if not teacher.num_classes:
            raise UserError(f'mining needs a teacher with classes, {teacher.source.name} has none')
        self.teacher = teacher
        self.input_size = settings.input_size or teacher.input_size or 224
        self.device = choose_device(settings.device)
        teacher.apply_to_tensors(lambda tensor: tensor.to(self.device))

    def __call__(self, batch: list[Scanned]) -> tuple[np.ndarray, np.ndarray]:
        """Predict class and probability, (B,) each; class ``BAD`` for files without pixels."""
        predicted = np.full(len(batch), BAD)
        score = np.zeros(len(batch), np.float32)
        usable = [row for row, item in enumerate(batch) if item.pixels is not None]
        if usable:
            pixels = torch.stack([item.pixels for item in batch if item.pixels is not None])
            raw = Normalization(rgb=False)  # pixels are BGR, 0..255
            images = raw.convert(pixels.to(self.device).float(), self.teacher.normalization)
            probabilities = self.teacher(images)['logits'].softmax(dim=1).cpu().numpy()  # (U, C)
            if not np.isfinite(probabilities).all():
                raise UserError(
                    'the teacher outputs NaN: is this the right checkpoint, and is dtype wide enough?'
                )
            predicted[usable] = probabilities.argmax(axis=1)  # numpy takes the first of equals
            score[usable] = probabilities.max(axis=1)
        return predicted, score


def _scan(step: Step, images: ImageSet, path: Path, scorer: _Scorer | None, settings: MiningSettings) -> None:
    """Read this rank's images and store what is needed of each. Without a scorer only hashes are made."""
    size = scorer.input_size if scorer else None
    fingerprint: dict[str, Any] = {'images': fingerprint_files(images.names, images.root)}
    if scorer:
        fingerprint.update(teacher=scorer.teacher.fingerprint(), input_size=size, crop_pct=settings.crop_pct)
    names = step.share(images.names)
    scan = ImageScan([images.root / name for name in names], size, settings.crop_pct)
    with StoreWriter(path, FIELDS, fingerprint, step.rank, step.world_size) as writer:
        first = len(writer.done)
        assert writer.done == set(names[:first]) or writer.done >= set(names)
        first = min(first, len(names))
        seconds = _measure(scan, scorer, first)
        with step.run(len(names), first, writer.meta.dtype.itemsize, seconds) as progress:
            if first == len(names):
                return
            for batch in scan_batches(scan, settings.batch_size, first, settings.workers):
                if scorer:
                    predicted, score = scorer(batch)
                else:
                    predicted = np.array([BAD if item.fault else 0 for item in batch])
                    score = np.zeros(len(batch))
                new = [row for row, item in enumerate(batch) if item.number >= first]
                writer.append(
                    [names[batch[row].number] for row in new],
                    predicted=predicted[new],
                    score=score[new],
                    hash=np.array([batch[row].hash for row in new], np.uint64),
                )
                progress.advance(len(new))


def _measure(scan: ImageScan, scorer: _Scorer | None, first: int) -> float | None:
    """Measure the seconds an image takes, from a few images."""
    numbers = range(first, min(first + 8, len(scan)))
    if not numbers:
        return None
    if scorer:
        scorer([scan[first]])  # the first call of a network is slow
    begin = time.perf_counter()
    batch = [scan[number] for number in numbers]
    if scorer:
        scorer(batch)
    return (time.perf_counter() - begin) / len(numbers)


def _select(
    pool: ImageSet,
    excluded: ImageSet | None,
    scores: Store,
    hashes: Store | None,
    scorer: _Scorer,
    settings: MiningSettings,
) -> dict[str, Any]:
    """Drop bad files and copies, rank the rest, write list and report."""
    records = scores.read(pool.names)  # in the order of the pool
    keep = records['predicted'] != BAD
    bad = [
        {'image': str(pool.file(i)), 'reason': _reason(pool.file(i))} for i in np.flatnonzero(~keep).tolist()
    ]
    unsure = keep & (records['score'] < settings.min_score)
    keep &= ~unsure
    copies: list[dict[str, Any]] = []
    if excluded is not None and hashes is not None:
        copies = _find_copies(pool, excluded, records['hash'], keep, hashes.read(excluded.names), settings)
        keep[[copy['number'] for copy in copies]] = False
    num_classes = scorer.teacher.num_classes
    assert num_classes is not None
    miner = TopKMiner(num_classes, settings.k)
    kept = np.flatnonzero(keep)
    miner.add(records['predicted'][kept], records['score'][kept], kept)
    selected, counts = miner.result()
    rows = zip(selected.tolist(), records['predicted'][selected], records['score'][selected], strict=True)
    text = ''.join(f'{pool.names[number]} {predicted} {score:.6f}\n' for number, predicted, score in rows)
    report = {
        'settings': asdict(settings),
        'teacher': scorer.teacher.fingerprint(),
        'images': len(pool.names),
        'repeated_lines': pool.repeated,
        'bad': bad,
        'below_min_score': int(unsure.sum()),
        'removed_copies': copies,
        'selected': len(selected),
        'selected_of_class': counts.tolist(),
        'list_sha256': hashlib.sha256(text.encode()).hexdigest(),
    }
    atomic_write(settings.out, text)
    atomic_write(settings.report_path, json.dumps(report, indent=1, ensure_ascii=False) + '\n')
    print(
        f'{settings.out}: {len(selected)} of {len(pool.names)} images; left out: {len(copies)} copies of excluded '
        f'images and {len(bad)} bad files, {int(unsure.sum())} with a probability below {settings.min_score:g}; '
        f'{int((counts < settings.k).sum())} classes have fewer than {settings.k}'
    )
    return report


def _find_copies(
    pool: ImageSet,
    excluded: ImageSet,
    pool_hashes: np.ndarray,
    usable: np.ndarray,
    excluded_records: dict[str, np.ndarray],
    settings: MiningSettings,
) -> list[dict[str, Any]]:
    """Find pool images that show the same picture as an excluded one."""
    readable = np.flatnonzero(excluded_records['predicted'] != BAD)
    index = HashIndex(excluded_records['hash'][readable], settings.max_hash_distance)
    comparison = SiftComparison(settings.min_matches)
    copies = []
    with Progress('comparing with the excluded images', len(pool.names)) as progress:
        for number, value in enumerate(pool_hashes.tolist()):
            for distance, row in index.near(value) if usable[number] else ():
                original = excluded.file(int(readable[row]))
                if comparison.same(original, pool.file(number)):
                    copies.append(
                        {
                            'number': number,
                            'image': str(pool.file(number)),
                            'copy_of': str(original),
                            'hash_distance': distance,
                        }
                    )
                    break
            progress.advance(1)
    return copies


def _reason(file: Path) -> str:
    try:
        read_image(file)
    except BadDataError as error:
        return str(error)
    return f'{file}: could not be read when the pool was scored'


def _check(settings: MiningSettings) -> None:
    for name in ('k', 'batch_size', 'min_matches'):
        if getattr(settings, name) < 1:
            raise UserError(f'mining: {name} is {getattr(settings, name)}, expected 1 or more')
    if not 0 < settings.crop_pct <= 1:
        raise UserError(f'mining: crop_pct is {settings.crop_pct}, expected more than 0 and at most 1')
    if not 0 <= settings.min_score <= 1:
        raise UserError(f'mining: min_score is {settings.min_score}, expected a probability, 0 to 1')
    if not 0 <= settings.max_hash_distance < 64:
        raise UserError(f'mining: max_hash_distance is {settings.max_hash_distance}, expected 0 to 63')
