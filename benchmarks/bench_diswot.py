"""Speed of a DisWOT score against the loop of the paper, a candidate at a time.

python benchmarks/bench_diswot.py --json benchmarks/results/bench_diswot.json

The baseline does for every candidate what the released loop does: the teacher runs forward and backward again, the
student runs forward and backward, the classifier's gradients come from autograd, and the semantic metric is made of K
matrices of C x C, a block of classes at a time. Ours runs the teacher once and the student forward, in torch's
channels-last layout; the baseline runs in the ordinary layout and in that one. Both build the student and draw its
weights. The scores of ``StudentScorer`` are compared with the baseline's in float64, on the same weights.
"""

from __future__ import annotations

import random
import time
from functools import partial
from typing import Any

import timm
import torch
import torch.nn.functional as F
from _common import Row, keep_memory, parse_arguments, report
from torch import Tensor, nn

import vfd.backbones  # noqa: F401  (registers the networks)
from vfd.engine.seeding import seeded
from vfd.methods.diswot import core
from vfd.methods.diswot.networks import gaussian_init
from vfd.methods.diswot.scoring import StudentScorer
from vfd.methods.diswot.spaces import CifarResNetSpace, NASBench201Space, StudentSpace

BATCH, CLASSES, SIZE = 64, 100, 32
BEST_CELL = '|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|'
TEACHERS: dict[str, dict[str, Any]] = {
    'NAS-Bench-201': {'model_name': 'nas_bench_201', 'cell': BEST_CELL, 'num_classes': CLASSES},
    'S0': {'model_name': 'cifar_resnet110', 'num_classes': CLASSES},
}
SPACES: dict[str, StudentSpace] = {'NAS-Bench-201': NASBench201Space(CLASSES), 'S0': CifarResNetSpace()}
AIMS = {'NAS-Bench-201': 5.8, 'S0': 13.0}
LEAST = 4.0  # whatever the layout
LAYOUTS = (torch.contiguous_format, torch.channels_last)
BLOCK = 32  # classes


def batch(dtype: torch.dtype = torch.float32, size: int = BATCH) -> tuple[Tensor, Tensor]:
    """Images and labels."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(size, 3, SIZE, SIZE, generator=generator, dtype=dtype)
    return images, torch.randint(CLASSES, (size,), generator=generator)


def untrained(config: dict[str, Any], seed: int) -> nn.Module:
    """A network with the Gaussian weights that ``StudentScorer`` draws from the seed, in training mode."""
    with seeded(seed):
        network = timm.create_model(**{k: v for k, v in config.items() if k != 'type'})
        gaussian_init(network)
    return network.train()


def matrix_semantic(student: Tensor, teacher: Tensor) -> Tensor:
    """M_s as it is written: K matrices of C x C, in blocks that stay in the cache."""
    total = student.new_zeros(())
    for blocks in zip(student.split(BLOCK), teacher.split(BLOCK), strict=True):
        student_rows, teacher_rows = (F.normalize(g[:, :, None] * g[:, None, :], dim=2) for g in blocks)
        total += (teacher_rows - student_rows).square().sum()
    return total / student.numel()


def plain_outputs(network: Any, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Last map and gradient of the classifier, by a backward pass through everything."""
    network.zero_grad()
    features = network.forward_features(images)
    F.cross_entropy(network.forward_head(features), labels).backward()
    return features.detach(), network.get_classifier().weight.grad


def plain_score(teacher: nn.Module, student: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The loop of the paper for one candidate."""
    t_map, t_grad = plain_outputs(teacher, images, labels)
    s_map, s_grad = plain_outputs(student, images, labels)
    t_gram, s_gram = (F.normalize(f.flatten(1) @ f.flatten(1).T, dim=1) for f in (t_map, s_map))
    relation = (t_gram - s_gram).square().sum() / len(images) ** 2
    return -float(matrix_semantic(s_grad, t_grad) + relation)


def largest_difference(name: str, students: list[dict[str, Any]]) -> float:
    """Of the scorer's own values, relative, over the students, both sides in float64."""
    torch.set_default_dtype(torch.float64)
    try:
        images, labels = batch(torch.float64, size=8)
        scorer = StudentScorer({'type': 'vfd.TimmSource', **TEACHERS[name]}, ['sum'], [(images, labels)], [0])
        teacher, worst = untrained(TEACHERS[name], 0), 0.0
        for config in students:
            baseline = plain_score(teacher, untrained(config, 1), images, labels)
            worst = max(worst, abs(scorer.scores(config)['sum'][0] - baseline) / abs(baseline))
    finally:
        torch.set_default_dtype(torch.float32)
    assert worst < 1e-6, worst
    return worst


def rows(name: str, candidates: int, repeats: int) -> list[Row]:
    """Seconds a candidate, means over a sample of the space: against the ordinary layout and against channels last."""
    space, rng = SPACES[name], random.Random(0)
    students: list[dict[str, Any]] = []
    while len(students) < candidates:
        drawn = space.random(rng)  # type: ignore[attr-defined]
        if not space.invalid_reason(drawn):
            students.append(space.student(drawn))
    difference = largest_difference(name, students[:2])  # which also warms both sides up
    images, labels = batch()
    scorer = StudentScorer({'type': 'vfd.TimmSource', **TEACHERS[name]}, ['sum'], [(images, labels)], [0])
    teachers = [untrained(TEACHERS[name], 0).to(memory_format=layout) for layout in LAYOUTS]  # type: ignore[call-overload]
    seen = [images.to(memory_format=layout) for layout in LAYOUTS]

    def plain(side: int, config: dict[str, Any]) -> None:
        student = untrained(config, 1).to(memory_format=LAYOUTS[side])  # type: ignore[call-overload]
        plain_score(teachers[side], student, seen[side], labels)

    sides = [scorer.scores, partial(plain, 0), partial(plain, 1)]
    seconds: list[list[float]] = [[], [], []]
    for _ in range(repeats):
        spent = [0.0] * len(sides)
        for config in students:
            for number, side in enumerate(sides):
                begun = time.process_time()
                side(config)
                spent[number] += time.process_time() - begun
        for times, value in zip(seconds, spent, strict=True):
            times.append(value / candidates)
    setting = (
        f'batch {BATCH}, {SIZE} px, {CLASSES} classes, {candidates} students, CPU seconds a student; difference '
        'relative, in float64'
    )
    return [
        Row.of(name, seconds[0], seconds[1], AIMS[name], difference, setting),
        Row.of(f'{name}, both channels-last', seconds[0], seconds[2], LEAST, difference, setting),
    ]


def semantic_row(repeats: int) -> Row:
    """M_s alone at ImageNet's number of classes."""
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(1000, 128, generator=generator, dtype=torch.float64) for _ in range(2)]
    seconds: list[list[float]] = [[], []]
    values = [0.0, 0.0]
    for repeat in range(repeats + 1):
        for side, metric in enumerate((core.semantic_distance, matrix_semantic)):
            begun = time.process_time()
            values[side] = float(metric(*gradients))
            if repeat:
                seconds[side].append(time.process_time() - begun)
    difference = abs(values[0] / values[1] - 1)
    assert difference < 1e-6, difference
    return Row.of('M_s alone', seconds[0], seconds[1], 1.0, difference, '1000 classes, 128 channels, float64')


def main() -> None:
    """Both spaces."""
    arguments = parse_arguments(__doc__ or '')
    keep_memory()
    candidates, repeats = (1, 2) if arguments.quick else (8, 6)
    found = [row for name in SPACES for row in rows(name, candidates, repeats)]
    report([*found, semantic_row(repeats)], arguments, 'DisWOT: seconds a score')


if __name__ == '__main__':
    main()
