"""Speed of training from stored labels: the loss without dense labels, and the loader at 1, 4 and 8 crops an image.

Part of ``bench_ferkd.py``; alone: ``python benchmarks/bench_ferkd_training.py --json FILE``.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import zlib
from pathlib import Path

import numpy as np
import torch
from _common import Row, interleaved, keep_memory, parse_arguments, report
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import functional as TF

from vfd.losses import SparseLabels, label_shape, soft_cross_entropy, sparse_labels
from vfd.methods.ferkd import StoredCropDataset, crop_major_collate
from vfd.methods.ferkd.core import boxes_to_fractions
from vfd.methods.ferkd.crops import draw_crops
from vfd.methods.ferkd.stored_crops import crop_major_labels
from vfd.registry import MODELS
from vfd.stores import LabelForm, LabelledImage, LabelStoreWriter, StoredCrops

CLASSES, CROPS, K = 1000, 500, 5
LABELS = f'marginal_smoothing_k{K}'
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
PREPROCESSOR = MODELS.build(
    {
        'type': 'mmpretrain.ClsDataPreprocessor',
        'mean': [255 * value for value in MEAN],
        'std': [255 * value for value in STD],
        'to_rgb': True,
    }
)
BATCH, IMAGES = 8, 16  # samples of a batch, images of the data set


# ------------------------------------------------------------------------------------------------------ the loss


def plain_recover(stored: Tensor, classes: int = CLASSES) -> Tensor:
    """Dense labels as the formula reads: the rest for every class, then the named ones."""
    ids, values = stored[:, 0].long(), stored[:, 1]
    rest = (1 - values.sum(1, keepdim=True)) / (classes - ids.shape[1])
    return torch.ones(len(stored), classes, dtype=stored.dtype).mul_(rest).scatter_(1, ids, values)


def plain_loss(logits: Tensor, stored: Tensor) -> Tensor:
    """Soft cross-entropy with dense labels."""
    return -(plain_recover(stored) * logits.log_softmax(-1)).sum(1).mean()


def our_loss(logits: Tensor, stored: Tensor) -> Tensor:
    """The same from the stored form."""
    return soft_cross_entropy(logits, sparse_labels(stored, LABELS, CLASSES))


def random_labels(rows: int, generator: torch.Generator) -> Tensor:
    """(rows, 2, K) float64 stored labels."""
    probs = (torch.randn(rows, CLASSES, generator=generator, dtype=torch.float64) * 4).softmax(1)
    values, ids = probs.topk(K, dim=1)
    return torch.stack([ids.double(), values], dim=1)


def loss_row(repeats: int, memory: str, rows: int = 1024) -> Row:
    """Forward and backward of [1024, 1000]."""
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(rows, CLASSES, generator=generator, dtype=torch.float64) * 3
    stored = random_labels(rows, generator)

    def run(loss) -> tuple[Tensor, Tensor]:
        logits = student.clone().requires_grad_()
        value = loss(logits, stored)
        value.backward()
        return value.detach(), logits.grad

    difference = max((a - b).abs().max().item() for a, b in zip(run(our_loss), run(plain_loss), strict=True))
    assert difference < 1e-12, difference
    logits, labels = student.float().requires_grad_(), stored.float()

    def side(loss):
        def step() -> None:
            logits.grad = None
            loss(logits, labels).backward()

        return step

    ours, baseline = interleaved([side(our_loss), side(plain_loss)], repeats)
    setting = (
        f'[{rows}, {CLASSES}] float32, forward and backward, from {LABELS}, {memory}; difference in float64'
    )
    return Row.of('sparse against dense soft cross-entropy', ours, baseline, 1.3, difference, setting)


# ---------------------------------------------------------------------------------------------------- the loader


class PlainLoader(Dataset):
    """The loader as FKD describes it: a pickle an image, crops from fractions, normalised floats, dense labels."""

    def __init__(self, images: Path, labels: Path, names: list[str], num_crops: int) -> None:
        self.images, self.labels, self.names, self.num_crops = images, labels, names, num_crops

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        name = self.names[index]
        image = Image.open(self.images / name).convert('RGB')
        coords, flips, soft = torch.load(self.labels / f'{Path(name).stem}.tar', weights_only=True)
        crops, labels = [], []
        for row in torch.randperm(len(coords))[: self.num_crops]:
            top, left, height, width = (coords[row] * torch.tensor([image.height, image.width] * 2)).tolist()
            crop = image.crop((left, top, left + width, top + height)).resize((224, 224), Image.BILINEAR)
            crop = TF.hflip(crop) if flips[row] else crop
            crops.append(TF.normalize(TF.to_tensor(crop), MEAN, STD))
            labels.append(soft[row])
        return torch.stack(crops), plain_recover(torch.stack(labels))


def crop_major(samples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Batches in the released order."""
    images, labels = (torch.stack(part, dim=1).flatten(0, 1) for part in zip(*samples, strict=True))
    return images, labels


def make_data(folder: Path) -> tuple[Path, Path, Path, list[str]]:
    """JPEGs of 500 x 375, their labels as released files and as our store, both with the same numbers."""
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    images, files, store = folder / 'images', folder / 'files', folder / 'store'
    images.mkdir()
    files.mkdir()
    names = [f'{number}.jpg' for number in range(IMAGES)]
    form = LabelForm(LABELS, label_shape(LABELS, CLASSES), CLASSES, CROPS)
    with LabelStoreWriter(store, form, {'made': 'for a benchmark'}) as writer:
        for name in names:
            coarse = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)  # a smooth picture, as photographs are
            buffer = io.BytesIO()
            Image.fromarray(coarse).resize((500, 375), Image.BICUBIC).save(buffer, 'JPEG', quality=90)
            (images / name).write_bytes(buffer.getvalue())
            boxes, flips = draw_crops((375, 500), CROPS, (0.08, 1.0))
            soft = random_labels(CROPS, generator).float()
            coords = torch.from_numpy(boxes_to_fractions(boxes, (375, 500)))
            torch.save([coords, torch.from_numpy(flips), soft], files / f'{Path(name).stem}.tar')
            crc = zlib.crc32(buffer.getvalue())
            crops = StoredCrops(boxes, flips, soft.numpy())
            writer.append(LabelledImage(name, (375, 500), crops, 0, (buffer.tell(), crc)))
    return images, files, store, names


def loader_rows(repeats: int, folder: Path) -> list[Row]:
    """Batches of BATCH samples, no workers, until normalised images and labels are ready for network and loss."""
    images, files, store, names = make_data(folder)
    rows = []
    for crops in (1, 4, 8):
        ours = DataLoader(
            StoredCropDataset(store, str(images), crops),
            BATCH // crops,
            collate_fn=crop_major_collate,
        )
        plain = DataLoader(PlainLoader(images, files, names, crops), BATCH // crops, collate_fn=crop_major)
        difference = compare(ours, plain)

        def pass_ours() -> None:
            for batch in ours:  # noqa: B023
                ready(batch)

        def pass_plain() -> None:
            for _ in plain:  # noqa: B023
                pass

        times = interleaved([pass_ours, pass_plain], repeats, warmup=1)
        rate = IMAGES * crops / np.median(times[0])
        setting = (
            f'{IMAGES} JPEGs of 500 x 375, {crops} crops each to normalised 224 x 224 and labels for the loss, no '
            f'workers; ours {rate:.0f} crops/s'
        )
        rows.append(
            Row.of(f'loader, {crops} crop{"s" * (crops > 1)} an image', *times, 1.0, difference, setting)
        )
    return rows


def ready(batch: dict) -> tuple[Tensor, SparseLabels]:
    """What the model does with a batch before the network: normalise, and read the stored labels."""
    images = PREPROCESSOR({'inputs': batch['inputs']}, training=True)['inputs']
    labels = sparse_labels(crop_major_labels(batch['data_samples']), LABELS, CLASSES)
    return images, labels.to(images.device, images.dtype)


def compare(ours: DataLoader, plain: DataLoader) -> float:
    """Largest difference of normalised images and dense labels, with the same random numbers."""
    torch.manual_seed(0)
    pixels, sparse = ready(next(iter(ours)))
    torch.manual_seed(0)
    images, labels = next(iter(plain))
    dense = sparse.dense(CLASSES)
    difference = max((pixels - images).abs().max().item(), (dense - labels).abs().max().item())
    assert difference < 1e-5, difference
    return difference


def rows(quick: bool) -> list[Row]:
    """All comparisons of training."""
    silent = io.StringIO()  # the progress of the store
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(silent):
        loaders = loader_rows(5 if quick else 20, Path(scratch))
    repeats = 60 if quick else 200
    losses = [loss_row(repeats, "system's allocator")]
    keep_memory()
    return [*loaders, *losses, loss_row(repeats, 'memory kept')]


def main() -> None:
    """Run and report."""
    arguments = parse_arguments(__doc__)
    report(rows(arguments.quick), arguments, 'Training from stored labels')


if __name__ == '__main__':
    main()
