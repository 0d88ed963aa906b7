"""Scores of a student for a teacher: both untrained, one batch, one pass of the teacher.

    scorer = StudentScorer(teacher=dict(type='vfd.TimmSource', model_name='cifar_resnet110', num_classes=100),
                           scorers=['sum', 'nwot'], batches=[(images, labels)])
    scorer.scores(dict(type='mmpretrain.TimmClassifier', model_name='cifar_resnet20', num_classes=100))

Weights are drawn anew for every seed, from that seed alone, so that neither the order of the candidates nor an
interruption changes a score.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from vfd.engine.quiet import quiet_init_weights
from vfd.engine.seeding import seeded
from vfd.errors import UserError, did_you_mean
from vfd.losses import feature_maps, sample_relations
from vfd.losses.soft_label import kl
from vfd.methods.diswot import core
from vfd.methods.diswot.listed_spaces import build_student
from vfd.methods.diswot.networks import (
    NetworkOutputs,
    batch_statistics,
    compute_outputs,
    gaussian_init,
    linear_classifier,
    plain_network,
)
from vfd.methods.diswot.zero_cost import GAUSSIAN, ZERO_COST, zero_cost
from vfd.registry import MODELS

Init = Literal['gaussian', 'default']

# Minus a distillation loss between both untrained networks: on logits, pooled vectors, all stages, the last map.
KD_LOSSES: dict[str, tuple[str, Callable[..., Tensor]]] = {
    'kd': ('logits', kl),
    'fitnet': ('pooled', F.mse_loss),
    'rkd': ('pooled', sample_relations.rkd),
    'pkt': ('pooled', sample_relations.pkt),
    'cc': ('pooled', sample_relations.correlation_congruence),
    'at': ('stages', feature_maps.attention_transfer),
    'nst': ('stages', feature_maps.neuron_selectivity),
    'kdsvd': ('stages', feature_maps.singular_vectors),
    'sp': ('features', sample_relations.similarity_preserving),
    'ickd': ('features', feature_maps.channel_correlation),
}
SAME_WIDTH = ('fitnet', 'cc', 'kdsvd')  # compare number by number; ickd raises by itself
QUIRKS = ('quirk_first_sample_map', 'quirk_first_sample_pooled', 'quirk_benchmark_script')
METRICS = ('semantic', 'relation', 'sum')
SCORERS = (*METRICS, *QUIRKS, *KD_LOSSES, *ZERO_COST)
SEMANTIC = ('semantic', 'sum', 'quirk_benchmark_script')


@dataclass(frozen=True)
class TeacherView:
    """The teacher's values for one seed, in float64."""

    outputs: NetworkOutputs
    gradient: Tensor | None  # (K, C) of the classifier, where the semantic metric is wanted
    gram: Tensor  # (B, B) of the samples


class StudentScorer:
    """See the module.

    Args:
        teacher: config of a source of :mod:`vfd.teachers.sources`: the network, not its weights.
        scorers: names out of ``SCORERS``. ``sum`` is -(M_s + M_r), the published score; ``semantic`` and ``relation``
            are its parts; then minus the losses of knowledge distillation, and the zero-cost proxies, which do not
            look at the teacher. ``quirk_*`` reproduce the released scripts.
        batches: (images (B, 3, H, W), labels (B,)) for every seed; fewer are used in turn.
        seeds: of the weights.
        init: ``gaussian`` draws every weight from N(0, 1), as published; ``default`` leaves the libraries' own
            initialisation, which ranks NAS-Bench-201 better.
        device: where the networks run.

    Raises:
        UserError: an unknown scorer, no batch or seed, a network that gives no map or classifier, a label that is
            no class.
    """

    def __init__(
        self,
        teacher: Mapping[str, Any],
        scorers: Sequence[str],
        batches: Sequence[tuple[Tensor, Tensor]],
        seeds: Sequence[int] = (0, 1, 2),
        init: Init = 'gaussian',
        device: str = 'cpu',
    ) -> None:
        for name in scorers:
            if name not in SCORERS:
                raise UserError(
                    f'scorer "{name}" is unknown{did_you_mean(name, SCORERS)}; there are: {", ".join(SCORERS)}'
                )
        if init not in ('gaussian', 'default'):
            raise UserError(f'init={init!r} is not one of "gaussian", "default"')
        if not batches or not seeds:
            raise UserError('scoring needs at least one batch and one seed')
        self.scorers = tuple(dict.fromkeys(scorers))
        self.seeds = tuple(seeds)
        self.init = init
        self.device = torch.device(device)
        self._batches = [
            (x.to(self.device, memory_format=torch.channels_last), y.to(self.device)) for x, y in batches
        ]
        self._proxies = [name for name in self.scorers if name in ZERO_COST]
        self._compared = [name for name in self.scorers if name not in ZERO_COST]
        self._stages = any(KD_LOSSES.get(name, ('',))[0] == 'stages' for name in self._compared)
        self._views = [self._view(dict(teacher), n) for n in range(len(seeds))] if self._compared else []

    def batch(self, number: int) -> tuple[Tensor, Tensor]:
        """Return images and labels of a seed."""
        return self._batches[number % len(self._batches)]

    def scores(self, student: Mapping[str, Any]) -> dict[str, list[float]]:
        """Score a student's config, larger is better: name -> one value a seed.

        Raises:
            UserError: the student cannot be compared with the teacher, or gives NaN.
            Exception: whatever its library raises for a config that it cannot build.
        """
        found: dict[str, list[float]] = {name: [] for name in self.scorers}
        for number, seed in enumerate(self.seeds if self.scorers else ()):
            with seeded(2 * seed + 1):
                network = self._untrained(build_student(student))
                for name, value in self._scores(network, number).items():
                    if not math.isfinite(value):
                        raise UserError(f'{name} of the untrained network is {value}')
                    found[name].append(value)
        return found

    def latency(self, student: Mapping[str, Any], repeats: int = 10) -> float:
        """Measure milliseconds for one image on this device: the median of some passes."""
        network = plain_network(build_student(student)).eval().to(self.device)
        image = self._batches[0][0][:1]
        seconds = []
        with torch.inference_mode():
            for _ in range(repeats + 2):
                begun = time.perf_counter()
                network(image)
                if self.device.type == 'cuda':
                    torch.cuda.synchronize()
                seconds.append(time.perf_counter() - begun)
        return 1000 * median(seconds[2:])

    def _untrained(self, network: nn.Module) -> nn.Module:
        if self.init == 'default' and isinstance(network, BaseModule):
            with quiet_init_weights(network):  # two lines a parameter and candidate otherwise
                network.init_weights()  # OpenMMLab's networks are initialised only by this call; timm's are when built
        network = plain_network(network)
        if self.init == 'gaussian':
            gaussian_init(network)
        # Channels last: the same numbers up to rounding, and on a CPU nearly twice as fast.
        return network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _view(self, source: dict[str, Any], number: int) -> TeacherView:
        with seeded(2 * self.seeds[number]):
            built = MODELS.build(source, default_args={'taps': ('logits',), 'pretrained': False})
            network = self._untrained(built.network)
        images, labels = self.batch(number)
        outputs = self._compute_outputs(network, images)
        gradient = None
        if set(SEMANTIC) & set(self._compared):
            linear_classifier(network)
            gradient = core.classifier_gradient(outputs.logits, outputs.pooled, labels)
        return TeacherView(outputs, gradient, sample_relations.sample_gram(outputs.features))

    def _compute_outputs(self, network: nn.Module, images: Tensor) -> NetworkOutputs:
        with torch.inference_mode(), batch_statistics(network):
            outputs = compute_outputs(network, images, self._stages)
        if not outputs.finite:
            raise UserError('the untrained network outputs NaN or infinity')
        return outputs.double()

    def _scores(self, network: nn.Module, number: int) -> dict[str, float]:
        images, labels = self.batch(number)
        values: dict[str, float] = {}
        if self._compared:
            values |= self._compare(network, images, labels, self._views[number])
        if self._proxies:  # they run backwards, which torch does not do for every network in that layout
            network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
            images = images.contiguous()
        plain = [name for name in self._proxies if name not in GAUSSIAN]
        gaussian = [name for name in self._proxies if name in GAUSSIAN]
        if plain:
            values |= zero_cost(network, images, labels, plain)[0]
        if gaussian:
            gaussian_init(network)
            noise = (torch.randn_like(images), torch.randn_like(images))
            values |= zero_cost(network, images, labels, gaussian, noise)[0]
        return values

    def _compare(
        self, network: nn.Module, images: Tensor, labels: Tensor, teacher: TeacherView
    ) -> dict[str, float]:
        names = set(self._compared)
        student, values = self._compute_outputs(network, images), {}
        with torch.inference_mode():
            semantic = relation = torch.zeros(())
            if names & set(SEMANTIC):
                linear_classifier(network)
                assert teacher.gradient is not None
                gradient = core.classifier_gradient(student.logits, student.pooled, labels)
                semantic = core.semantic_distance(gradient, teacher.gradient)
                values['semantic'] = -float(semantic)
            if names & {'relation', 'sum'}:
                gram = sample_relations.sample_gram(student.features)
                relation = (teacher.gram - gram).square().sum() / len(gram) ** 2
                values['relation'] = -float(relation)
            values['sum'] = float(core.score(semantic, relation))
            for name in names & set(QUIRKS):
                part = 'features' if name == 'quirk_first_sample_map' else 'pooled'
                _check_comparable(name, part, student, teacher.outputs)
                distance = core.first_sample_distance(getattr(student, part), getattr(teacher.outputs, part))
                values[name] = -float(distance + (semantic if name == 'quirk_benchmark_script' else 0))
            for name in names & set(KD_LOSSES):
                part, loss = KD_LOSSES[name]
                _check_comparable(name, part, student, teacher.outputs)
                values[name] = -float(loss(getattr(student, part), getattr(teacher.outputs, part)))
        return {name: values[name] for name in self._compared}


def _check_comparable(name: str, part: str, student: NetworkOutputs, teacher: NetworkOutputs) -> None:
    """Raise where a distance of two networks' maps or vectors has no meaning."""
    pairs = [(getattr(student, part), getattr(teacher, part))]
    if part == 'stages':
        student_map, teacher_map = pairs[0]
        if len(student_map) != len(teacher_map):
            raise UserError(
                f'{name} compares stage by stage: the student has {len(student_map)}, the teacher {len(teacher_map)}'
            )
        pairs = list(zip(student_map, teacher_map, strict=True))
    smallest = {'stages': 4, 'features': 2 if name == 'sp' else 3}.get(part, 2)
    for student_map, teacher_map in pairs:
        shapes = f'student {tuple(student_map.shape)}, teacher {tuple(teacher_map.shape)}'
        if min(student_map.ndim, teacher_map.ndim) < smallest:
            raise UserError(f'{name} needs maps with positions: {shapes}. Score with "relation".')
        if name in SAME_WIDTH and student_map.shape[1] != teacher_map.shape[1]:
            raise UserError(f'{name} needs equal widths: {shapes}. Score with "relation".')
