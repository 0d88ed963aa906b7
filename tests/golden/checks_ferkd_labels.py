"""FKD and FerKD, labels: stored forms, generation, calibration and batch records on the released code's numbers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from checks_ferkd_training import check_loader
from golden_tools import close, equal
from PIL import Image
from torch import nn

from vfd.checkpoints import load_into
from vfd.losses import dense_labels
from vfd.methods.ferkd.batch_records import batch_content, batches_to_store, replayed_mix
from vfd.methods.ferkd.core import (
    DISCARD,
    RegionCalibration,
    boxes_to_fractions,
    calibrated_labels,
    categories_of,
    compress,
    confidences_of,
    fractions_to_boxes,
)
from vfd.methods.ferkd.crops import RATIO, draw_crops
from vfd.methods.ferkd.labeller import normalized
from vfd.methods.ferkd.mixing import draw_box
from vfd.methods.ferkd.official import official_to_store, store_to_official
from vfd.registry import MODELS
from vfd.stores import LabelledImage, LabelStoreWriter, Store, StoredCrops
from vfd.teachers import Normalization

SCALES = ((0.08, 0.936), (0.08, 1.0))  # both are published
IMAGENET = Normalization.from_unit((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def check_label_types(case) -> None:
    probs = torch.from_numpy(case['probs'])
    classes = probs.shape[1]
    np.testing.assert_allclose(torch.from_numpy(case['logits']).softmax(dim=1), probs, rtol=0, atol=1e-6)
    names = [key.removeprefix('q_') for key in case if key.startswith('q_')]
    assert names
    for name in names:
        stored = compress(probs, name)
        reference = case[f'q_{name}']
        if name == 'hard':
            equal(stored, reference)
        else:
            equal(stored[:, 0], reference[:, 0])
            np.testing.assert_allclose(stored[:, 1], reference[:, 1], rtol=0, atol=1e-7)
        np.testing.assert_allclose(dense_labels(stored, name, classes), case[f'r_{name}'], rtol=0, atol=1e-6)
        half = torch.from_numpy(case[f'fp16_q_{name}'])
        equal(stored.half(), half)
        # The released recovery fails on half labels, with a message of torch; ours reads them as float32.
        assert f'fp16_official_error_{name}' not in case or 'Error' in str(
            case[f'fp16_official_error_{name}']
        )
        recovered = dense_labels(half, name, classes)
        if f'fp16_cast_r_{name}' in case:
            np.testing.assert_allclose(recovered, case[f'fp16_cast_r_{name}'], rtol=0, atol=1e-6)
    # The released loader knows this type under another name than its training script. Ours has one name.
    assert bool(case['official_result_for_flag_marginal_renorm_k5_is_none'])


def check_region_calibration(case) -> None:
    probs, truths = case['probs'], case['gt'].tolist()
    classes = probs.shape[-1]
    settings = [float(case[key]) for key in ('T_L', 'T_M', 'T_T', 'epsilon')]
    for confidence in ('max', 'gt'):
        k = case[f'baked_k5_{confidence}'].shape[-1]
        kind = f'marginal_smoothing_k{k}'
        rule = RegionCalibration(*settings, confidence, min_keep=0)
        for i, truth in enumerate(truths):
            raw = probs[i]
            close(
                confidences_of(raw, 'ori', classes, confidence, truth), case[f'conf_{confidence}'][i], 1e-12
            )
            category = categories_of(raw, 'ori', classes, truth, rule)
            labels = calibrated_labels(raw, 'ori', classes, truth, category, rule.epsilon)
            equal(category, case[f'category_{confidence}'][i])
            kept = category != DISCARD
            equal(kept, case[f'keep_{confidence}'][i])
            dense = labels * kept[:, None]
            np.testing.assert_allclose(dense, case[f'calibrated_{confidence}'][i], rtol=0, atol=1e-7)

            stored = compress(torch.from_numpy(raw), kind).numpy()
            baked = calibrated_labels(stored, kind, classes, truth, category, rule.epsilon)
            equal(baked[:, 0], case[f'baked_k5_{confidence}'][i][:, 0])
            np.testing.assert_allclose(
                baked[:, 1], case[f'baked_k5_{confidence}'][i][:, 1], rtol=0, atol=1e-7
            )
            dense = dense_labels(torch.from_numpy(baked), kind, classes).numpy() * kept[:, None]
            np.testing.assert_allclose(dense, case[f'calibrated_k5_{confidence}'][i], rtol=0, atol=1e-7)
            if confidence == 'max':  # what a k5 store knows is enough
                equal(categories_of(stored, kind, classes, truth, rule), category)


class TinySource:
    """The teacher of the generation's case: convolution, ReLU, mean, linear, scaled logits."""

    name = 'tiny'
    normalization = IMAGENET

    def __init__(self, width: int, kernel: int, num_classes: int, scale: float, taps=(), pretrained=False):
        self.network = nn.ModuleDict(
            {'conv': nn.Conv2d(3, width, kernel, stride=3), 'fc': nn.Linear(width, num_classes)}
        )
        self.num_classes, self.scale = num_classes, scale

    def forward_taps(self, images, taps):
        features = F.relu(self.network['conv'](images)).mean((2, 3))
        return {'logits': self.network['fc'](features) * self.scale}


def build_labeller(case, label_type: str):
    width, _, kernel, _ = case['teacher_conv_w'].shape
    source = dict(
        type=TinySource,
        width=width,
        kernel=kernel,
        num_classes=int(case['num_classes']),
        scale=float(case['logit_scale']),
    )
    labeller = MODELS.build(
        dict(
            type='vfd.RegionLabeller',
            teacher=dict(
                type='vfd.Teacher', source=source, checkpoint='random', input_size=int(case['teacher_size'])
            ),
            crops=int(case['num_crops']),
            label_type=label_type,
            chunk=int(case['num_seg']),
        )
    )
    names = {'conv.weight': 'conv_w', 'conv.bias': 'conv_b', 'fc.weight': 'fc_w', 'fc.bias': 'fc_b'}
    tensors = {ours: torch.from_numpy(case[f'teacher_{theirs}']) for ours, theirs in names.items()}
    load_into(labeller.teachers[0].network, tensors)
    return labeller


def official_draws(case, sizes: list[tuple[int, int]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Boxes and flips as the released generator draws them; the file does not say which published scale it used."""
    for scale in SCALES:
        torch.manual_seed(int(case['seed_generate']))
        torch.empty((), dtype=torch.int64).random_()  # a DataLoader begins with a number for its workers
        draws = [draw_crops(size, int(case['num_crops']), scale, RATIO) for size in sizes]
        if np.array_equal(boxes_to_fractions(draws[0][0], sizes[0]), case['coords0_fp32']):
            return draws
    raise AssertionError('the boxes are those of no published scale')


def check_slg_and_loader(case) -> None:
    count = sum(key.startswith('image') and key[5:].isdigit() for key in case)
    pictures = [case[f'image{i}'] for i in range(count)]
    sizes = [picture.shape[:2] for picture in pictures]
    label_type = f'marginal_smoothing_k{case["soft0_fp32"].shape[-1]}'
    draws = official_draws(case, sizes)
    labeller = build_labeller(case, label_type)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, 'images')
        names = [f'{i}/{i}.png' for i in range(count)]
        for name, picture in zip(names, pictures, strict=True):
            (folder / name).parent.mkdir(parents=True)
            Image.fromarray(picture).save(folder / name)
        files = [(name, folder / name) for name in names]
        labeller.drawer = SimpleNamespace(
            crops=labeller.crops, draw=lambda name, size: draws[names.index(name)]
        )
        chunks = list(labeller.dataset(files))
        first = normalized(chunks[0].pixels[0], IMAGENET)
        wanted = case['teacher_crops0']
        np.testing.assert_allclose(first[: len(wanted)], wanted[: len(first)], rtol=0, atol=1e-5)

        with LabelStoreWriter(f'{scratch}/fp32', labeller.form(path for _, path in files), {}) as writer:
            for i, name in enumerate(names):
                parts = [chunks[i * labeller.chunks + part] for part in range(labeller.chunks)]
                labels = np.concatenate([labeller.label(part.pixels) for part in parts])
                boxes, flips = draws[i]
                crops = StoredCrops(boxes, flips, labels)
                writer.append(LabelledImage(name, sizes[i], crops, i, parts[0].file))
                equal(boxes_to_fractions(boxes, sizes[i]), case[f'coords{i}_fp32'])
                equal(fractions_to_boxes(case[f'coords{i}_fp32'], sizes[i]), boxes)
                for kind in ('fp32', 'fp16'):
                    soft = case[f'soft{i}_{kind}'].astype(np.float32)
                    equal(flips, case[f'flip{i}_{kind}'])
                    equal(labels[:, 0], soft[:, 0])
                    slack = 1e-5 if kind == 'fp32' else 5e-4  # half of a half float's last digit, and 1e-5
                    np.testing.assert_allclose(labels[:, 1], soft[:, 1], rtol=0, atol=slack)
        check_loader(case, folder, f'{scratch}/fp32', 'fp32')

        for kind in ('fp32', 'fp16'):  # the released files themselves
            for i, name in enumerate(names):
                path = Path(scratch, f'files_{kind}', name).with_suffix('.tar')
                path.parent.mkdir(parents=True)
                parts = [torch.from_numpy(case[f'{key}{i}_{kind}']) for key in ('coords', 'flip', 'soft')]
                torch.save(parts, path)
            store = f'{scratch}/converted_{kind}'
            classes = int(case['num_classes'])
            assert official_to_store(f'{scratch}/files_{kind}', folder, store, classes) == []
            check_loader(case, folder, store, kind)
        store_to_official(f'{scratch}/converted_fp32', f'{scratch}/again')
        for path in Path(scratch, 'files_fp32').rglob('*.tar'):
            again = torch.load(Path(scratch, 'again', path.relative_to(f'{scratch}/files_fp32')))
            for ours, theirs in zip(again, torch.load(path), strict=True):
                equal(ours, theirs)


def check_batch_config(case) -> None:
    images, seed, box = torch.from_numpy(case['images']), int(case['seed']), case['mix_bbox']
    rows, size = len(images), tuple(images.shape[-2:])
    torch.manual_seed(seed)
    random = np.random.RandomState(seed)
    alpha = 1.0 if box.size else 0.8  # CutMix and Mixup as published
    share = random.beta(alpha, alpha)
    partner = torch.randperm(rows)
    equal(partner, case['mix_index'])
    close(share, case['mix_lam'], 1e-12)
    if box.size:
        equal(draw_box(size, share, random), box)

    with tempfile.TemporaryDirectory() as scratch:
        content = [
            torch.rand(rows, 4),
            torch.rand(rows) < 0.5,
            partner,
            share,
            box.tolist(),
            torch.rand(rows, 3),
        ]
        torch.save(content, f'{scratch}/batch_0.tar')
        assert batches_to_store(scratch, f'{scratch}/store') == 1
        record = Store(f'{scratch}/store')['batch_0.tar']
        for ours, given in zip(batch_content(record), content, strict=True):
            equal(ours, given)
        mixed = replayed_mix(record).images(images)
    for key in ('mixed_save', 'mixed_load'):
        np.testing.assert_allclose(mixed, case[key], rtol=0, atol=1e-6)


CHECKS = {
    'label_types': check_label_types,
    'region_calibration': check_region_calibration,
    'slg_and_loader': check_slg_and_loader,
    'batch_config': check_batch_config,
}
