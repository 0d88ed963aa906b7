"""Make a teacher for your classes: a classifier on the frozen features of a network, measured on held-out images.

    vfd fit-teacher --images DIR --model timm:convnext_tiny.in12k --checkpoint pretrained --out teacher.safetensors

The file holds the whole network, and in its metadata how it has to be run (:class:`vfd.teachers.TeacherCard`): input
size, batch norm, normalisation, classes, and the accuracy that it has then. :class:`vfd.Teacher` reads them back.

N images, C classes, D features.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from vfd.apis.config import load_config
from vfd.apis.device import choose_device
from vfd.datasets.image_lists import list_images
from vfd.datasets.image_scan import ImageScan, scan_batches
from vfd.errors import UserError
from vfd.evaluation.linear_probe import fit_linear_probe
from vfd.registry import DATASETS, MODELS
from vfd.stores import Plan, Progress, Store, StoreWriter, atomic_write, fingerprint_files
from vfd.teachers import Normalization, Teacher, TeacherCard

AGREEMENT = 1e-3  # of the written teacher with the fitted head, as a fraction of the largest logit
PROBE_IMAGES = 20_000  # up to so many the head is fitted exactly, with cross-validation
LIBRARIES = {'timm': 'vfd.TimmSource', 'open_clip': 'vfd.OpenCLIPSource', 'hf': 'vfd.HuggingFaceSource'}


@dataclass(frozen=True)
class Labelled:
    """Images with labels.

    Attributes:
        files: N.
        labels: (N,) in 0..C-1.
        classes: C names.
    """

    files: list[Path]
    labels: np.ndarray
    classes: list[str]

    def some(self, rows: Sequence[int] | np.ndarray) -> Labelled:
        """Return some of the images."""
        return Labelled([self.files[row] for row in rows], self.labels[np.asarray(rows)], self.classes)


@dataclass(frozen=True)
class Fitted:
    """A written teacher.

    Attributes:
        out: the file.
        card: its metadata.
        config: of a :class:`vfd.Teacher` that uses it.
        skipped: number of images that could not be read.
    """

    out: Path
    card: TeacherCard
    config: dict[str, Any]
    skipped: int


def fit_teacher(
    teacher: dict[str, Any],
    train: Labelled,
    out: str | Path,
    val: Labelled | None = None,
    val_fraction: float = 0.2,
    image_size: int | None = None,
    batch_size: int = 64,
    workers: int = 2,
    device: str | None = None,
    seed: int = 0,
) -> Fitted:
    """Fit a classifier to the frozen features of a network, measure it, and write both as one teacher.

    Args:
        teacher: config of a :class:`vfd.Teacher`: ``source``, ``checkpoint``, and perhaps ``input_size`` (else the
            network's own) and ``dtype``. Its own classifier, if it has one, is not used.
        train: labelled images. Features are kept in the store ``OUT.features``, so that a run that was interrupted goes
            on, and another fit needs no further pass.
        out: ``.safetensors`` file to write.
        val: held-out images of the same classes; None holds out ``val_fraction`` of every class.
        val_fraction: 0 to 1.
        image_size: side to which images are cut before they are resized to ``input_size``; give the size of the
            student's images if they are smaller, so that the classifier is fitted to what it will see. None takes
            ``input_size``.
        batch_size: images a pass.
        workers: loader processes.
        device: where the network runs; default: the GPU if there is one.
        seed: of the split.

    Returns:
        What was written, with the accuracy on the held-out images.

    Raises:
        UserError: too few images of a class, no pooled features, or a file that is no ``.safetensors``.
    """
    out = Path(out)
    if out.suffix != '.safetensors':
        raise UserError(
            f'{out}: a teacher is written as .safetensors, whose metadata hold how it has to be run'
        )
    if val is not None and val.classes != train.classes:
        raise UserError(
            f'the held-out images have the classes {val.classes[:5]}, the others {train.classes[:5]}'
        )
    config = {**teacher, 'type': 'vfd.Teacher', 'taps': ['pooled'], 'bn': 'eval'}
    config['source'] = {name: value for name, value in teacher['source'].items() if name != 'num_classes'}
    network: Teacher = MODELS.build(config)
    network.input_size = network.input_size or own_size(network)
    network.apply_to_tensors(lambda tensor: tensor.to(choose_device(device)))
    files = train.files + (val.files if val else [])
    if twice := [path for path, count in Counter(files).items() if count > 1]:
        raise UserError(f'{len(twice)} images are named twice, or are held out and not, first {twice[0]}')
    side = image_size or network.input_size
    features = pooled_features(network, files, Path(f'{out}.features'), side, batch_size, workers)
    train, val, skipped = (
        _readable(train, features),
        val and _readable(val, features),
        len(files) - len(features),
    )
    if val is None:
        train, val = split(train, val_fraction, seed)
    weight, bias = fit_head(_matrix(features, train), train.labels, len(train.classes), seed)
    logits = _matrix(features, val) @ weight.T + bias
    card = TeacherCard(
        source={'num_classes': len(train.classes)},
        input_size=network.input_size,
        bn='eval',
        normalization=network.normalization,
        classes=tuple(train.classes),
        accuracy=float((logits.argmax(1) == val.labels).mean()),
        held_out=len(val.files),
    )
    source, state, card = whole_network(network, config['source'], weight, bias, card)
    state = {name: tensor.detach().float().cpu().contiguous() for name, tensor in state.items()}
    atomic_write(out, safetensors.torch.save(state, {**card.metadata(), 'format': 'pt'}))
    made = {'type': 'vfd.Teacher', 'source': source, 'checkpoint': str(out)}
    some = val.some(range(min(batch_size, len(val.files))))
    _check_equal(MODELS.build(made), some, logits[: len(some.files)], side)
    return Fitted(out, card, made, skipped)


# --- data


def class_folders(folder: str | Path) -> Labelled:
    """List images in one folder a class, ``FOLDER/CLASS/*``; classes in the order of their names.

    Raises:
        UserError: an image lies in no class, or there are fewer than two classes.
    """
    names = list_images(str(folder))
    if loose := [name for name in names if '/' not in name]:
        raise UserError(f'{folder}: {loose[0]} lies in no class; expected {folder}/<class>/<image>')
    classes = sorted({name.partition('/')[0] for name in names})
    if len(classes) < 2:
        raise UserError(
            f'{folder} has {len(classes)} class folders ({", ".join(classes)}), at least two are needed'
        )
    labels = np.array([classes.index(name.partition('/')[0]) for name in names])
    return Labelled([Path(folder, name) for name in names], labels, classes)


def labelled_of_config(config: Any, loader: str) -> Labelled:
    """Return images and labels of a data set of a config, without its pipeline.

    Args:
        config: read by :func:`vfd.apis.config.load_config`.
        loader: ``train_dataloader`` or ``val_dataloader``.

    Raises:
        UserError: the config has no such data set, or it has no labels or class names.
    """
    from mmengine.registry import DefaultScope

    if not config.get(loader):
        raise UserError(f'{config.filename} has no {loader}: give the images with --images')
    with DefaultScope.overwrite_default_scope(config.get('default_scope') or 'mmpretrain'):
        dataset: Any = DATASETS.build({**config[loader].dataset, 'pipeline': []})
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    classes = dataset.metainfo.get('classes')
    if not classes or any('gt_label' not in info or info.get('has_label') is False for info in infos):
        raise UserError(
            f'{config.filename}: {loader} has images without labels, or no class names (metainfo)'
        )
    labels = np.array([int(info['gt_label']) for info in infos])
    return Labelled([Path(info['img_path']) for info in infos], labels, list(map(str, classes)))


def split(images: Labelled, fraction: float, seed: int) -> tuple[Labelled, Labelled]:
    """Hold out a part of every class: (the rest, the held-out ones).

    Raises:
        UserError: a class has too few images.
    """
    try:
        rows = train_test_split(
            np.arange(len(images.files)), test_size=fraction, stratify=images.labels, random_state=seed
        )
    except ValueError as error:
        counts = np.bincount(images.labels, minlength=len(images.classes))
        few = images.classes[int(counts.argmin())]
        raise UserError(
            f'cannot hold out {fraction:g} of {len(images.files)} images ({error}); the class "{few}" has '
            f'{counts.min()} images. Give more images, or held-out ones with --val'
        ) from None
    return images.some(rows[0]), images.some(rows[1])


# --- features and head


def own_size(teacher: Teacher) -> int:
    """Return the side in pixels of the images that a network was built for.

    Raises:
        UserError: it is not known.
    """
    network: Any = teacher.network
    grid = getattr(getattr(network, 'patch_embed', None), 'img_size', None)  # built for another size, perhaps
    visual = network['visual'] if isinstance(network, nn.ModuleDict) and 'visual' in network else network
    cfg = getattr(network, 'pretrained_cfg', None) or {}
    config = getattr(network, 'config', None)
    for size in (
        grid,
        cfg.get('input_size'),
        *(getattr(one, 'image_size', None) for one in (visual, config)),
    ):
        if size is not None:
            return int(size) if isinstance(size, int) else int(size[-1])
    raise UserError(f'{teacher.source.name}: its image size is not known; give --input-size')


def pooled_features(
    teacher: Teacher, files: Sequence[Path], folder: Path, side: int, batch_size: int, workers: int
) -> Store:
    """Compute the pooled features (N, D) of all images that can be read; a finished store is reused."""
    names = [path.as_posix() for path in files]
    inputs = {'images': fingerprint_files(names), 'teacher': teacher.fingerprint(), 'side': side}
    width = teacher(torch.zeros(1, 3, side, side, device=_device(teacher)))['pooled']
    if width.ndim != 2:
        raise UserError(
            f'{teacher.source.name}: its pooled features are {tuple(width.shape)}; a linear classifier needs (B, D)'
        )
    with StoreWriter(folder, {'pooled': ('float32', (width.shape[1],))}, inputs) as writer:
        todo = [path for path, name in zip(files, names, strict=True) if name not in writer.done]
        print(Plan('features', len(files), len(files) - len(todo), writer.meta.dtype.itemsize))
        with Progress('features', len(files), len(files) - len(todo)) as progress:
            for batch in scan_batches(ImageScan(todo, side, 1.0), batch_size, 0, workers):
                good = [item for item in batch if item.pixels is not None]
                for item in batch:
                    if item.pixels is None:
                        progress.console.print(f'skipped: {item.fault}', highlight=False)
                if good:
                    pixels = torch.stack([item.pixels for item in good])
                    pooled = teacher(as_input(pixels, teacher))['pooled'].cpu().numpy()
                    writer.append([todo[item.number].as_posix() for item in good], pooled=pooled)
                progress.advance(len(batch))
    return Store(folder)


def as_input(pixels: Tensor, teacher: Teacher) -> Tensor:
    """Convert BGR uint8 images (B, 3, H, W) to the network's input."""
    return Normalization(rgb=False).convert(pixels.to(_device(teacher)).float(), teacher.normalization)


def fit_head(
    features: np.ndarray, labels: np.ndarray, classes: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a linear classifier: weight (C, D) and bias (C,).

    Up to :data:`PROBE_IMAGES` images a logistic regression whose strength is chosen by cross-validation
    (:func:`vfd.evaluation.linear_probe.fit_linear_probe`); above, the same loss by AdamW in batches.
    """
    missing = sorted(set(range(classes)) - set(labels.tolist()))
    if missing:
        raise UserError(f'no image of the classes number {missing[:10]} is left to fit the classifier to')
    if len(features) <= PROBE_IMAGES:
        probe = fit_linear_probe(features, labels)
        return probe.weight, probe.bias
    return _trained_head(features, labels, classes, seed)


def _trained_head(
    features: np.ndarray,
    labels: np.ndarray,
    classes: int,
    seed: int,
    epochs: int = 30,
    batch_size: int = 1024,
) -> tuple[np.ndarray, np.ndarray]:
    scale = float(np.linalg.norm(features, axis=1).mean()) or 1.0
    inputs, targets = torch.from_numpy(features).float() / scale, torch.from_numpy(labels)
    head = nn.Linear(inputs.shape[1], classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.03, weight_decay=1e-4)
    steps = epochs * -(-len(inputs) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs), generator=generator).split(batch_size):
            optimizer.zero_grad()
            F.cross_entropy(head(inputs[rows]), targets[rows]).backward()
            optimizer.step()
            schedule.step()
    return head.weight.detach().double().numpy() / scale, head.bias.detach().double().numpy()


# --- the file


def whole_network(
    teacher: Teacher, source: dict[str, Any], weight: np.ndarray, bias: np.ndarray, card: TeacherCard
) -> tuple[dict[str, Any], dict[str, Tensor], TeacherCard]:
    """Put the classifier into the network: (config of the source, tensors, card).

    A timm network gets it in the place of its own classifier, so that its file is one of timm's; any other, and a timm
    network whose classifier is more than a linear layer, becomes a :class:`~vfd.teachers.sources.LinearHeadSource`.
    """
    head = {'weight': torch.from_numpy(weight), 'bias': torch.from_numpy(bias)}
    body = teacher.network.state_dict()
    if str(source['type']).rpartition('.')[2] == 'TimmSource':
        complete = {**source, 'num_classes': len(bias)}
        network: Any = Teacher(complete, 'random').network
        names = [name for name, part in network.named_modules() if part is network.get_classifier()]
        if len(names) == 1 and isinstance(network.get_classifier(), nn.Linear):
            state = {**body, **{f'{names[0]}.{name}': value for name, value in head.items()}}
            shapes = {name: value.shape for name, value in network.state_dict().items()}
            if {name: value.shape for name, value in state.items()} == shapes:
                return source, state, card
    fields = {name: getattr(card, name) for name in card.__dataclass_fields__}
    fields['source'] = {'num_classes': len(bias), 'feature_dim': weight.shape[1]}
    state = {f'body.{name}': value for name, value in body.items()}
    state |= {f'head.{name}': value for name, value in head.items()}
    return {'type': 'vfd.LinearHeadSource', 'source': source}, state, TeacherCard(**fields)


def _check_equal(teacher: Teacher, images: Labelled, logits: np.ndarray, side: int) -> None:
    """Check that the written teacher, built as a user will, has the logits of the head on the features."""
    pixels = [
        item.pixels for item in map(ImageScan(images.files, side, 1.0).__getitem__, range(len(images.files)))
    ]
    outputs = teacher(as_input(torch.stack([one for one in pixels if one is not None]), teacher))[
        'logits'
    ].numpy()
    error, largest = np.abs(outputs - logits).max(), max(1.0, np.abs(logits).max())
    assert error <= AGREEMENT * largest, (
        f'the written teacher differs from its classifier by {error} (logits to {largest})'
    )


def _readable(images: Labelled, features: Store) -> Labelled:
    return images.some([row for row, path in enumerate(images.files) if path.as_posix() in features])


def _matrix(features: Store, images: Labelled) -> np.ndarray:
    return features.read([path.as_posix() for path in images.files])['pooled']


def _device(teacher: Teacher) -> torch.device:
    return next(teacher.network.parameters()).device


# --- the command


def teacher_of(config: Any | None, model: str | None, checkpoint: str | None) -> dict[str, Any]:
    """Return the network that the command line names.

    Args:
        config: with ``model.teacher``, which is taken where no ``model`` is given.
        model: ``LIBRARY:NAME`` with a library of :data:`LIBRARIES`, or timm's name alone; ``open_clip:NAME@TAG`` for
            published weights.
        checkpoint: weight file, ``pretrained`` or ``random``; default ``pretrained``, or that of the config.

    Raises:
        UserError: no network is named, or none of these libraries.
    """
    if model is None:
        named = (config.get('model') or {}).get('teacher') if config is not None else None
        if not named or not named.get('source'):
            raise UserError(
                'name the network with --model, or give a --config whose model.teacher has a source'
            )
        kept = {
            name: named[name] for name in ('source', 'checkpoint', 'input_size', 'dtype') if name in named
        }
        return {**kept, 'checkpoint': checkpoint or named.get('checkpoint', 'pretrained')}
    library, _, name = model.rpartition(':')
    if (library or 'timm') not in LIBRARIES:
        raise UserError(f'--model {model}: libraries are {", ".join(LIBRARIES)}')
    name, _, tag = name.partition('@')
    source = {'type': LIBRARIES[library or 'timm'], 'model_name': name, **({'tag': tag} if tag else {})}
    return {'source': source, 'checkpoint': checkpoint or 'pretrained'}


def fit_from_command(
    out: str,
    images: str | None = None,
    config: str | None = None,
    model: str | None = None,
    checkpoint: str | None = None,
    val: str | None = None,
    input_size: int | None = None,
    **options: Any,
) -> Fitted:
    """Run ``vfd fit-teacher``, print the result and return it; arguments as in its help."""
    if images is None and config is None:
        raise UserError('give the labelled images with --images DIR (one folder a class) or with --config')
    cfg = load_config(config) if config else None
    teacher = teacher_of(cfg, model, checkpoint)
    if input_size is not None:
        teacher['input_size'] = input_size
    held_out = class_folders(val) if val else None
    if images is not None:
        train = class_folders(images)
    else:
        train = labelled_of_config(cfg, 'train_dataloader')
        if held_out is None and cfg is not None and cfg.get('val_dataloader'):
            held_out = labelled_of_config(cfg, 'val_dataloader')
    made = fit_teacher(teacher, train, out, held_out, **options)
    card = made.card
    print(
        f'{made.out}: accuracy {card.accuracy:.3f} on {card.held_out} held-out images, {len(train.classes)} classes'
    )
    if made.skipped:
        print(f'{made.skipped} images could not be read')
    print(f'in a config: teacher={made.config}')
    return made
