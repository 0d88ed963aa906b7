"""Speed and size of stored labels: reading, generation, loss, loader.

python benchmarks/bench_ferkd.py --json benchmarks/results/bench_ferkd.json

The baseline is what FKD describes and its released code does: one file of ``torch.save`` an image, with numpy arrays in
it, read whole; crops as normalised floats, all of an image at once; a sort of every crop's classes. Loss and loader are
in ``bench_ferkd_training.py``.
"""

from __future__ import annotations

import dataclasses
import io
import json
import multiprocessing
import tempfile
from pathlib import Path
from typing import Any

import bench_ferkd_training
import numpy as np
import torch
from _common import Row, interleaved, parse_arguments, peak_mb, report
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import functional as TF

from vfd.losses import label_shape
from vfd.methods.ferkd import LiveCalibration, build_calibration
from vfd.methods.ferkd.core import (
    boxes_to_fractions,
    calibrated_labels,
    categories_of,
    compress,
    fractions_to_boxes,
)
from vfd.methods.ferkd.crops import draw_crops
from vfd.registry import MODELS
from vfd.stores import LabelForm, LabelledImage, LabelStore, LabelStoreWriter, StoredCrops
from vfd.teachers import Normalization

CLASSES, CROPS, K, SIZE = 1000, 500, 5, 224
LABELS = f'marginal_smoothing_k{K}'
AIM_BYTES = 19_000  # of an image
HEIGHT, WIDTH = 375, 500  # ImageNet's usual image
NORMALIZE = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def probabilities(rows: int, seed: int) -> Tensor:
    """(rows, CLASSES) float32, as peaked as a teacher's."""
    generator = torch.Generator().manual_seed(seed)
    return (4 * torch.randn(rows, CLASSES, generator=generator)).softmax(dim=1)


# ------------------------------------------------------------------------------------------------- reading, size


def make_labels(folder: Path, images: int) -> tuple[LabelStore, list[Path]]:
    """The same labels as a store and as released files."""
    torch.manual_seed(0)
    form = LabelForm(LABELS, label_shape(LABELS, CLASSES), CLASSES, CROPS)
    files = []
    with LabelStoreWriter(folder / 'store', form, {'made': 'for a benchmark'}) as writer:
        for number in range(images):
            boxes, flips = draw_crops((HEIGHT, WIDTH), CROPS, (0.08, 1.0))
            labels = compress(probabilities(CROPS, number), LABELS).numpy()
            writer.append(
                LabelledImage(f'{number}.jpg', (HEIGHT, WIDTH), StoredCrops(boxes, flips, labels), 0)
            )
            files.append(folder / f'{number}.tar')
            torch.save([boxes_to_fractions(boxes, (HEIGHT, WIDTH)), flips, labels], files[-1])
    return LabelStore(folder / 'store'), files


def reading_rows(quick: bool) -> tuple[list[Row], dict[str, float]]:
    """Four crops of an image, and bytes an image."""
    images = 40 if quick else 200
    with tempfile.TemporaryDirectory() as scratch:
        store, files = make_labels(Path(scratch), images)
        rng = np.random.default_rng(0)
        picks = [(i, rng.permutation(CROPS)[:4]) for i in rng.permutation(images).tolist()]

        def ours() -> list[tuple]:
            crops = [store.read(index, rows) for index, rows in picks]
            return [(one.boxes, one.flip, one.labels) for one in crops]

        def plain() -> list[tuple]:
            found = []
            for index, rows in picks:
                coords, flips, labels = torch.load(files[index], weights_only=False)
                boxes = fractions_to_boxes(coords[rows], (HEIGHT, WIDTH))
                found.append((boxes, flips[rows], labels[rows]))
            return found

        difference = max(
            float(np.abs(a.astype(float) - b.astype(float)).max())
            for own, baseline in zip(ours(), plain(), strict=True)
            for a, b in zip(own, baseline, strict=True)
        )
        assert difference == 0.0, difference
        times = interleaved([ours, plain], 10 if quick else 50)
        calibrated = calibrated_row(store, picks, 10 if quick else 50)
        record = sum(file.stat().st_size for file in (Path(scratch) / 'store').iterdir()) / images
        file = sum(file.stat().st_size for file in files) / images
    setting = f'{images} images x 4 of {CROPS} crops, {LABELS} float32, images visited before'
    reading = Row.of('reading', *times, 10.0, difference, setting)
    return [reading, calibrated], {'ours': record, 'released file': file}


def calibrated_row(store: LabelStore, picks: list[tuple[int, np.ndarray]], repeats: int) -> Row:
    """Four crops of an image, calibrated while they are read: categories kept against worked out at every visit."""
    live = LiveCalibration(store, build_calibration(store, thresholds=(0.05, 0.3, 0.99)))

    def ours() -> list[np.ndarray]:
        return [live.read(index, live.kept(index)[rows % 4]).labels for index, rows in picks]

    def plain() -> list[np.ndarray]:
        found = []
        for index, rows in picks:
            stored, truth = store.read(index).labels, store.ground_truth(index)
            category = categories_of(stored, LABELS, CLASSES, truth, live.rule)
            labels = calibrated_labels(stored, LABELS, CLASSES, truth, category, live.rule.epsilon)
            found.append(labels[np.flatnonzero(category)[rows % 4]])
        return found

    difference = max(float(np.abs(a - b).max()) for a, b in zip(ours(), plain(), strict=True))
    assert difference == 0.0, difference
    setting = f'{len(picks)} images x 4 of {CROPS} crops, visited before, thresholds 0.05, 0.30, 0.99'
    times = interleaved([ours, plain], repeats)
    return Row.of('reading, calibrated on the way', *times, 1.0, difference, setting)


# ----------------------------------------------------------------------------------------------------- generation


def plain_compress(probs: Tensor) -> Tensor:
    """Crop by crop, with a sort of all classes."""
    rows = []
    for row in probs.numpy():
        order = np.argsort(row)[::-1][:K]
        rows.append(np.stack([order.astype(np.float32), row[order]]))
    return torch.from_numpy(np.stack(rows))


def compress_row(repeats: int) -> Row:
    """Labels of one image."""
    probs = probabilities(CROPS, 0)
    difference = (compress(probs, LABELS) - plain_compress(probs)).abs().max().item()
    assert difference == 0.0, difference
    times = interleaved([lambda: compress(probs, LABELS), lambda: plain_compress(probs)], repeats)
    return Row.of('compression', *times, 10.0, difference, f'[{CROPS}, {CLASSES}] float32 to {LABELS}')


class Generation:
    """One image through both generators, with the same teacher and crops."""

    def __init__(self, folder: Path, crops: int, chunk: int, model: str) -> None:
        coarse = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        self.path = folder / 'image.jpg'
        Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(self.path, quality=90)
        if model == 'none':
            source: dict[str, Any] = {'type': Mean}
        else:
            source = {'type': 'vfd.TimmSource', 'model_name': model}
        teacher = {'type': 'vfd.Teacher', 'source': source, 'checkpoint': 'random', 'input_size': SIZE}
        self.labeller: Any = MODELS.build(
            {'type': 'vfd.RegionLabeller', 'teacher': teacher, 'crops': crops, 'chunk': chunk}
        )

    def ours(self) -> Tensor:
        """Chunk by chunk, bytes until the device."""
        chunks = self.labeller.dataset([('image', self.path)])
        return torch.from_numpy(np.concatenate([self.labeller.label(chunk.pixels) for chunk in chunks]))

    def plain(self) -> Tensor:
        """All crops as normalised floats, then chunks through the teacher, then labels crop by crop."""
        image = Image.open(io.BytesIO(self.path.read_bytes())).convert('RGB')
        boxes, flips = self.labeller.drawer.draw('image', (image.height, image.width))
        crops = []
        for box, flip in zip(boxes.tolist(), flips, strict=True):
            crop = TF.resized_crop(image, *box, (SIZE, SIZE), TF.InterpolationMode.BICUBIC)
            crops.append(NORMALIZE(TF.to_tensor(TF.hflip(crop) if flip else crop)))
        images = torch.stack(crops)
        teacher = self.labeller.teachers[0]
        parts = [teacher(part)['logits'].softmax(dim=1) for part in images.split(self.labeller.chunk)]
        return plain_compress(torch.cat(parts))


class Mean:
    """In place of a network, where the time of everything else is wanted: classes by the mean of a channel."""

    name = 'mean'
    num_classes = CLASSES

    def __init__(self, taps: tuple = (), pretrained: bool = False) -> None:
        self.normalization = Normalization.from_unit(NORMALIZE.mean, NORMALIZE.std)
        self.network = torch.nn.Linear(3, CLASSES)

    def forward_taps(self, images: Tensor, taps: tuple) -> dict[str, Tensor]:
        """Logits."""
        return {'logits': self.network(images.mean((2, 3)))}


def peak_alone(side: str, crops: int) -> float:
    """Measure the peak memory in MiB of a process that labels one image."""

    def work(sender: Any) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            getattr(Generation(Path(scratch), crops, 50, 'none'), side)()
        sender.send(peak_mb())

    context = multiprocessing.get_context('fork')
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(sender,))
    process.start()
    peak = receiver.recv()
    process.join()
    return peak


def generation_rows(quick: bool) -> list[Row]:
    """With a network, and without one."""
    rows = []
    settings = [('resnet18', 20, 20, 1.0, 3 if quick else 15), ('none', 100, 50, 1.1, 5 if quick else 20)]
    peaks = {} if quick else {side: peak_alone(side, CROPS) for side in ('ours', 'plain')}
    for model, crops, chunk, aim, repeats in settings:
        with tempfile.TemporaryDirectory() as scratch:
            generation = Generation(Path(scratch), crops, chunk, model)
            own, baseline = generation.ours(), generation.plain()
            difference = (own[:, 1] - baseline[:, 1]).abs().max().item()
            assert difference < 1e-6 and torch.equal(own[:, 0], baseline[:, 0]), difference
            times = interleaved([generation.ours, generation.plain], repeats, warmup=1)
        rate = crops / np.median(times[0])
        what = 'ResNet-18, random weights' if model != 'none' else 'no network'
        setting = f'{crops} crops of a {WIDTH} x {HEIGHT} JPEG at {SIZE} px, {what}; ours {rate:.0f} crops/s'
        if model == 'none' and peaks:
            setting += (
                f'; peak of each side alone with {CROPS} crops: ours {peaks["ours"]:.0f}, '
                f'baseline {peaks["plain"]:.0f} MiB'
            )
        name = 'generation' if model != 'none' else 'generation, all but the network'
        row = Row.of(name, *times, aim, difference, setting)
        rows.append(dataclasses.replace(row, peak_mb=peaks['ours']) if model == 'none' and peaks else row)
    return rows


def add_sizes(sizes: dict[str, float], file: Path | None) -> None:
    """Print bytes an image, and add them to the table and the rows."""
    ratio = sizes['released file'] / sizes['ours']
    text = (
        f'Bytes an image ({CROPS} crops, {LABELS}): ours {sizes["ours"]:.0f} with float32 values and index, the '
        f'released file {sizes["released file"]:.0f}: {ratio:.2f} times as many. Aim: at most {AIM_BYTES}'
        + (', missed.' if sizes['ours'] > AIM_BYTES else '.')
    )
    print(text)
    if file is not None:
        page = file.with_suffix('.md')
        page.write_text(f'{page.read_text()}\n{text}\n')
        rows = json.loads(file.read_text())
        size = {
            **dict.fromkeys(rows[0]),
            'name': 'bytes an image',
            'ratio': ratio,
            'aim': sizes['released file'] / AIM_BYTES,
            'setting': text,
        }
        file.write_text(json.dumps([*rows, size], indent=2) + '\n')


def main() -> None:
    """Run and report."""
    arguments = parse_arguments(__doc__ or '')
    generation = generation_rows(arguments.quick)  # first: it forks
    compression = compress_row(10 if arguments.quick else 50)
    reading, sizes = reading_rows(arguments.quick)
    rows = [*reading, *generation, compression, *bench_ferkd_training.rows(arguments.quick)]
    report(rows, arguments, 'Stored labels: speed and size')
    add_sizes(sizes, arguments.json)


if __name__ == '__main__':
    main()
