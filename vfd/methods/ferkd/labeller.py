"""What a relabelling config builds: teachers, and how their answers for random crops are made and stored."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from vfd.errors import BadDataError, UserError
from vfd.losses import label_shape
from vfd.registry import MODELS
from vfd.stores import LabelForm, LabelStore
from vfd.teachers import Normalization, Teacher

from .core import compress
from .crops import RATIO, cut_crop, draw_crops, is_wide, read_rgb, seeded


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
        chunk: crops that the teacher sees at once, all of one image; it bounds the memory.
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
        self.scale, self.ratio, self.seed = (scale[0], scale[1]), (ratio[0], ratio[1]), seed
        self.label_type, self.values = label_type, values
        try:
            self.label_shape = label_shape(label_type, self.classes)
        except UserError as error:
            raise UserError(f'{error} (classes of the teacher)') from None
        self.reference = LabelStore(reference) if reference is not None else None
        if self.reference is not None and self.reference.crops != crops:
            raise UserError(
                f'crops={crops}, but the reference {reference} has {self.reference.crops} an image'
            )
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
        """Form of a store of these images: boxes take 32 bits if a side exceeds 65535 pixels."""
        wide = any(is_wide(path) for path in paths)
        return LabelForm(self.label_type, self.label_shape, self.classes, self.crops, self.values, wide)

    def origin(self) -> dict[str, Any]:
        """Plain values that decide what the labels are."""
        drawn = {'scale': list(self.scale), 'ratio': list(self.ratio), 'seed': self.seed}
        if self.reference is not None:
            drawn = {'reference': self.reference.origin}
        return {
            'teachers': [one.fingerprint() for one in self.teachers],
            'sizes': self.sizes,
            'temperature': self.temperature,
            'chunk': self.chunk,
            **drawn,
        }

    def to(self, device: torch.device) -> RegionLabeller:
        """Move the teachers."""
        self.device = device
        for one in self.teachers:
            one.apply_to_tensors(lambda tensor: tensor.to(device))
        return self

    def check_names(self, names: Sequence[str]) -> None:
        """Raise UserError when the reference, if there is one, knows none of the images."""
        if self.reference is not None and names and not any(name in self.reference for name in names):
            self.reference.index_of(names[0])

    def dataset(self, files: Sequence[tuple[str, Path]]) -> CropChunks:
        """Crops of ``files`` (name, path), chunk by chunk, for loader processes."""
        return CropChunks(files, self)

    def draw(self, name: str, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (M, 4) and flips (M,) of an image.

        Raises:
            BadDataError: the reference does not know the image, or knows another size.
            UserError: its record is damaged.
        """
        if self.reference is None:
            with seeded(self.seed, name):
                return draw_crops(size, self.crops, self.scale, self.ratio)
        if name not in self.reference:
            raise BadDataError(f'{name}: the reference {self.reference.folder} has no crops of it')
        index = self.reference.index_of(name)
        if self.reference.image_size(index) != size:
            height, width = self.reference.image_size(index)
            raise BadDataError(
                f'{name}: {size[1]} x {size[0]} pixels, the reference {self.reference.folder} (record {index}) knows '
                f'{width} x {height}: the image changed'
            )
        stored = self.reference.read(index)
        return stored.boxes, stored.flip

    def probabilities(self, pixels: Sequence[Tensor]) -> Tensor:
        """Mean over the teachers of softmax(logits / T).

        Args:
            pixels: for every teacher (N, S, S, 3) uint8 RGB.

        Returns:
            (N, C) float32 on the labeller's device.

        Raises:
            UserError: an answer is not finite.
        """
        total: Tensor | None = None
        for one, crops in zip(self.teachers, pixels, strict=True):
            images = normalized(crops.to(self.device), one.normalization)
            probs = (one(images)['logits'] / self.temperature).softmax(dim=1)
            total = probs if total is None else total + probs
        assert total is not None
        if not bool(torch.isfinite(total).all()):
            raise UserError(
                'the teacher answers with NaN: is this the right checkpoint, and is dtype wide enough?'
            )
        return total / len(self.teachers) if len(self.teachers) > 1 else total

    def label(self, pixels: Sequence[Tensor]) -> np.ndarray:
        """Stored labels (N, *label_shape) of crops; see :meth:`probabilities`."""
        return compress(self.probabilities(pixels), self.label_type).cpu().numpy()


@dataclass(frozen=True)
class CropChunk:
    """Some crops of an image, or why there are none.

    Attributes:
        name: of the image.
        boxes: of ALL crops of the image, (M, 4).
        flips: of all crops, (M,).
        pixels: for every teacher (N, S, S, 3) uint8 RGB: this chunk's crops.
        size: (H, W) of the image.
        file: size of the file in bytes and CRC-32 of its content.
        fault: why the file cannot be used.
    """

    name: str
    boxes: np.ndarray | None = None
    flips: np.ndarray | None = None
    pixels: tuple[Tensor, ...] = ()
    size: tuple[int, int] = (0, 0)
    file: tuple[int, int] = (0, 0)
    fault: str | None = None


class CropChunks(Dataset):
    """Crops of images in chunks: item ``i`` is chunk ``i % chunks`` of image ``i // chunks``.

    A process decodes an image again only if another one came between. Chunks keep the memory of a loader process and
    what it ships independent of the number of crops.
    """

    def __init__(self, files: Sequence[tuple[str, Path]], labeller: RegionLabeller) -> None:
        self.files = files
        self.draw, self.sizes = labeller.draw, labeller.sizes
        self.chunk, self.chunks = labeller.chunk, labeller.chunks
        self._last: tuple[int, CropChunk, Image.Image | None] | None = None

    def __len__(self) -> int:
        return len(self.files) * self.chunks

    def __getitem__(self, item: int) -> CropChunk:
        number, part = divmod(item, self.chunks)
        if self._last is None or self._last[0] != number:
            self._last = (number, *self._open(*self.files[number]))
        _, whole, image = self._last
        if image is None:
            return whole
        assert whole.boxes is not None and whole.flips is not None
        rows = range(part * self.chunk, min((part + 1) * self.chunk, len(whole.boxes)))
        cut = {
            size: np.stack([cut_crop(image, whole.boxes[r], whole.flips[r], size, 'bicubic') for r in rows])
            for size in set(self.sizes)
        }
        pixels = tuple(torch.from_numpy(cut[size]) for size in self.sizes)
        return CropChunk(whole.name, whole.boxes, whole.flips, pixels, whole.size, whole.file)

    def _open(self, name: str, path: Path) -> tuple[CropChunk, Image.Image | None]:
        try:
            data = path.read_bytes()
            image = read_rgb(data, str(path))
        except OSError as error:
            return CropChunk(name, fault=f'{path}: {error.strerror}'), None
        except BadDataError as error:
            return CropChunk(name, fault=str(error)), None
        size = (image.height, image.width)
        try:
            boxes, flips = self.draw(name, size)
        except BadDataError as error:
            return CropChunk(name, fault=str(error)), None
        return CropChunk(name, boxes, flips, size=size, file=(len(data), zlib.crc32(data))), image


def normalized(pixels: Tensor, normalization: Normalization) -> Tensor:
    """Pixels as torchvision's ``ToTensor`` and ``Normalize`` make them, bit for bit, on the device of ``pixels``.

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
