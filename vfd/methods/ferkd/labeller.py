"""The model of a relabelling config: teachers, and how their labels for random crops are made and stored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vfd.errors import UserError
from vfd.losses import label_shape
from vfd.registry import MODELS
from vfd.stores import LabelForm, LabelStore
from vfd.teachers import Normalization, Teacher

from .core import compress
from .crop_chunks import CropChunks, CropDrawer
from .crops import RATIO, is_wide, seeded


@MODELS.register_module()
class RegionLabeller:
    """Labels random crops of images with one teacher, or with the mean of several (arXiv 2112.01528, section 3).

    Args:
        teacher: config of a ``vfd.Teacher`` with logits, or a list of them, whose probabilities are averaged. Crops are
            resized (bicubic) to the teacher's ``input_size``, 224 where it has none.
        crops: crops of an image M.
        label_type: how labels are stored, see :func:`vfd.losses.sparse_labels`.
        scale: smallest and largest part of an image's area that a crop covers.
        ratio: smallest and largest width / height of a crop.
        temperature: divides the logits.
        chunk: crops in a batch of the teacher, all of one image; it bounds the memory.
        values: ``float32`` or ``float16`` probabilities on disk. Half values are off by up to 2.3e-4.
        seed: of boxes and flips. Those of an image depend on it and on the image's name alone.
        reference: a label store whose boxes and flips are taken instead of drawing new ones.

    Raises:
        UserError: a teacher without logits, teachers of different classes, an unknown label type or one that names more
            classes than there are, or a reference with another number of crops.
    """

    def __init__(
        self,
        teacher: dict | Sequence[dict],
        crops: int = 500,
        label_type: str = 'marginal_smoothing_k5',
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = RATIO,
        temperature: float = 1.0,
        chunk: int = 50,
        values: str = 'float32',
        seed: int = 0,
        reference: str | None = None,
    ) -> None:
        if crops < 1 or chunk < 1 or temperature <= 0:
            raise UserError(
                f'crops={crops}, chunk={chunk}, temperature={temperature}: all three have to be positive'
            )
        if not 0 < scale[0] <= scale[1] <= 1 or not 0 < ratio[0] <= ratio[1]:
            raise UserError(
                f'scale={scale}, ratio={ratio}: expected 0 < lowest <= highest, and scale up to 1'
            )
        if values not in ('float32', 'float16'):
            raise UserError(f'values="{values}": use "float32" or "float16"')
        with seeded(seed, 'teacher'):  # a random teacher, of an example, is the same when the step goes on
            self.teachers = [
                _build_teacher(config) for config in ([teacher] if isinstance(teacher, dict) else teacher)
            ]
        classes = {one.num_classes for one in self.teachers}
        if len(classes) != 1:
            raise UserError(
                f'the teachers have {sorted(map(str, classes))} classes; expected as many of each'
            )
        self.classes: int = classes.pop()  # type: ignore[assignment]
        self.crops, self.chunk, self.temperature = crops, chunk, temperature
        self.label_type, self.values = label_type, values
        try:
            self.label_shape = label_shape(label_type, self.classes)
        except UserError as error:
            raise UserError(f'{error} (classes of the teacher)') from None
        known = LabelStore(reference) if reference is not None else None
        if known is not None and known.crops != crops:
            raise UserError(f'crops={crops}, but the reference {reference} has {known.crops} an image')
        self.drawer = CropDrawer(crops, (scale[0], scale[1]), (ratio[0], ratio[1]), seed, known)
        self.device = torch.device('cpu')

    @property
    def sizes(self) -> list[int]:
        """Side of every teacher's input in pixels."""
        return [one.input_size or 224 for one in self.teachers]

    @property
    def chunks(self) -> int:
        """Forward passes an image."""
        return -(-self.crops // self.chunk)

    def form(self, paths: Iterable[Path]) -> LabelForm:
        """Return the form of a store of these images: boxes take 32 bits if a side exceeds 65535 pixels."""
        wide = any(is_wide(path) for path in paths)
        return LabelForm(self.label_type, self.label_shape, self.classes, self.crops, self.values, wide)

    def origin(self) -> dict[str, Any]:
        """Return plain values that decide what the labels are."""
        return {
            'teachers': [one.fingerprint() for one in self.teachers],
            'sizes': self.sizes,
            'temperature': self.temperature,
            'chunk': self.chunk,
            **self.drawer.origin(),
        }

    def to(self, device: torch.device) -> RegionLabeller:
        """Move the teachers."""
        self.device = device
        for one in self.teachers:
            one.apply_to_tensors(lambda tensor: tensor.to(device))
        return self

    def check_names(self, names: Sequence[str]) -> None:
        """Raise UserError when the reference, if there is one, has none of the images."""
        reference = self.drawer.reference
        if reference is not None and names and not any(name in reference for name in names):
            reference.index_of(names[0])

    def dataset(self, files: Sequence[tuple[str, Path]]) -> CropChunks:
        """Return the crops of ``files`` (name, path), chunk by chunk, for loader processes."""
        return CropChunks(files, self.drawer, self.sizes, self.chunk)

    def probabilities(self, pixels: Sequence[Tensor]) -> Tensor:
        """Compute the mean over the teachers of softmax(logits / T).

        Args:
            pixels: for every teacher (N, S, S, 3) uint8 RGB.

        Returns:
            (N, C) float32 on the labeller's device.

        Raises:
            UserError: an output is not finite.
        """
        total: Tensor | None = None
        for one, crops in zip(self.teachers, pixels, strict=True):
            images = normalized(crops.to(self.device), one.normalization)
            probs = (one(images)['logits'] / self.temperature).softmax(dim=1)
            total = probs if total is None else total + probs
        assert total is not None
        if not bool(torch.isfinite(total).all()):
            raise UserError(
                'the teacher outputs NaN: is this the right checkpoint, and is dtype wide enough?'
            )
        return total / len(self.teachers) if len(self.teachers) > 1 else total

    def label(self, pixels: Sequence[Tensor]) -> np.ndarray:
        """Compute the stored labels (N, *label_shape) of crops; see :meth:`probabilities`."""
        return compress(self.probabilities(pixels), self.label_type).cpu().numpy()


def normalized(pixels: Tensor, normalization: Normalization) -> Tensor:
    """Normalise pixels as torchvision's ``ToTensor`` and ``Normalize`` do, bit for bit, on the device of ``pixels``.

    Args:
        pixels: (N, H, W, 3) uint8 RGB.
        normalization: what the network was trained on.

    Returns:
        (N, 3, H, W) float32.
    """
    # By a tensor on the device: CUDA multiplies by the reciprocal of a Python number, which is off in the last digit.
    images = pixels.permute(0, 3, 1, 2).float().contiguous().div_(torch.full((), 255.0, device=pixels.device))
    if not normalization.rgb:
        images = images.flip(1)
    # Statistics are kept for pixels in 0..255; seven digits give back the published decimals.
    mean, std = (
        torch.tensor([float(f'{v / 255:.7g}') for v in values], device=images.device).view(3, 1, 1)
        for values in (normalization.mean, normalization.std)
    )
    return images.sub_(mean).div_(std)


def _build_teacher(config: dict) -> Teacher:
    if config.get('type') != 'vfd.Teacher':
        raise UserError(f'relabelling needs live teachers (vfd.Teacher), got {config.get("type")}')
    teacher: Teacher = MODELS.build({**config, 'taps': ['logits'], 'bn': 'eval'})
    if not teacher.num_classes:
        raise UserError(f'relabelling needs a teacher with classes, {teacher.source.name} has none')
    return teacher
