"""Speed and memory of DMAE and of G2SD's generic stage against a step written straight from the papers.

python benchmarks/bench_mae.py --json benchmarks/results/bench_mae.json

A step is forward, backward and AdamW, in the published networks: ViT-B/16 with a decoder of 8 blocks of width 512
is distilled into ViT-S/16 with a decoder of 8 x 512 (DMAE) or 4 x 256 (G2SD). The weights are random.
The baseline does what the papers and their released code do, see ``plain_mae``: DMAE's teacher runs to its end, G2SD's
as far as it is needed, and G2SD copies all queries, keys and values and keeps a head whose loss has weight 0.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import multiprocessing
import time
from typing import Any

import plain_mae
import torch
from _common import Row, keep_memory, parse_arguments, peak_mb, report
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from torch import Tensor, nn

from vfd.backbones import MaskedAutoencoder, make_mask
from vfd.checkpoints import load_into
from vfd.methods.g2sd.generic import Predictor
from vfd.registry import MODELS

SIZE, PATCHES = 224, 196
TAP, LAYER = 8, 4  # the aligned block of both networks; decoder blocks of the teacher
BASELINES = {
    'DMAE': 'baseline runs the whole teacher and its decoder',
    'G2SD generic': 'baseline with the unused copies of q, k, v and the head of weight 0 of the released code',
}
AIMS = {'DMAE': 1.35, 'G2SD generic': 1.1}
HEADS = {'student': 6, 'teacher': 12, 'decoder': 16, 'student_decoder': 8}
LR, BETAS, DECAY = 1e-4, (0.9, 0.95), 0.05
PREPROCESSOR = {
    'type': 'mmpretrain.ClsDataPreprocessor',
    'mean': [123.675, 116.28, 103.53],
    'std': [58.395, 57.12, 57.375],
    'to_rgb': True,
}
TEACHER = {'arch': 'base', 'decoder_embed_dim': 512, 'decoder_depth': 8, 'decoder_num_heads': 16}


@functools.cache
def whole_teacher() -> dict[str, Tensor]:
    """Return all tensors of the teacher, encoder and decoder."""
    torch.manual_seed(0)
    return MaskedAutoencoder(**TEACHER).state_dict()


def build(method: str, ratio: float) -> Any:
    """Build the method as users have it; it builds only those parts of the teacher that it needs."""
    torch.manual_seed(1)
    source = {'type': 'vfd.MAESource', **TEACHER}
    student: dict[str, Any] = {'type': 'vfd.MaskedAutoencoder', 'arch': 'small'}
    settings: dict[str, Any] = {'type': 'vfd.DMAE', 'align': [{'student': TAP, 'teacher': TAP}]}
    if method == 'G2SD generic':
        student |= {'decoder_embed_dim': 256, 'decoder_depth': 4, 'decoder_num_heads': 8}
        settings = {'type': 'vfd.G2SDGeneric', 'teacher_layer': LAYER}
    settings |= {'student': student, 'mask_ratio': ratio, 'data_preprocessor': PREPROCESSOR}
    settings['teacher'] = {'type': 'vfd.Teacher', 'source': source, 'checkpoint': 'random'}
    model = MODELS.build(settings).train()
    load_into(model.teacher.network, whole_teacher())
    return model


class Ours:
    """The method, its optimizer as the configs build it, and the noise of the masks given from outside."""

    def __init__(self, model: Any) -> None:
        self.model = model
        model.draw_mask = lambda inputs: make_mask(self.noise, model.mask_ratio)
        optimizer = {'type': 'AdamW', 'lr': LR, 'betas': BETAS, 'weight_decay': DECAY, 'fused': True}
        no_decay = {'flat_decay_mult': 0.0, 'bias_decay_mult': 0.0, 'norm_decay_mult': 0.0}
        self.wrapper = build_optim_wrapper(model, {'optimizer': optimizer, 'paramwise_cfg': no_decay})

    def losses(self, images: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """The terms of a batch."""
        self.noise = noise
        return self.model(images, None, mode='loss')

    def step(self, images: Tensor, noise: Tensor) -> None:
        """Forward, backward, update."""
        self.wrapper.update_params(sum(self.losses(images, noise).values()))


class Plain:
    """The same networks as dictionaries of tensors, through ``plain_mae``."""

    def __init__(self, method: str, ratio: float, model: nn.Module) -> None:
        self.method, self.ratio = method, ratio
        dtype = next(model.parameters()).dtype
        self.teacher = {name: tensor.to(dtype) for name, tensor in whole_teacher().items()}
        self.student = {
            name.removeprefix('student.'): parameter.detach().clone().requires_grad_(parameter.requires_grad)
            for name, parameter in model.named_parameters()
        }
        if method == 'G2SD generic':
            unused = Predictor(model.student.embed_dim, self.teacher['norm.weight'].numel()).to(dtype)
            self.student |= {f'encoder_predictor.{k}': v for k, v in unused.named_parameters()}
        learnt = {name: tensor for name, tensor in self.student.items() if tensor.requires_grad}
        flat = [t for name, t in learnt.items() if t.ndim <= 1 or name.endswith('.bias')]
        rest = [t for name, t in learnt.items() if not (t.ndim <= 1 or name.endswith('.bias'))]
        groups = [{'params': flat, 'weight_decay': 0.0}, {'params': rest, 'weight_decay': DECAY}]
        self.optimizer = torch.optim.AdamW(groups, lr=LR, betas=BETAS, fused=False, foreach=False)

    def losses(self, images: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """The terms of a batch."""
        common = (images, noise, self.ratio, self.student, self.teacher, HEADS)
        if self.method == 'DMAE':
            return plain_mae.dmae_loss(*common, TAP)
        return plain_mae.g2sd_loss(*common, LAYER)

    def step(self, images: Tensor, noise: Tensor) -> None:
        """Forward, backward, update."""
        losses = self.losses(images, noise)
        loss = sum(losses.values())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.logged = {name: value.item() for name, value in losses.items()}


def batches(batch: int, seed: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Draw images and the noise of their masks."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(batch, 3, SIZE, SIZE, generator=generator, dtype=dtype)
    return images, torch.rand(batch, PATCHES, generator=generator, dtype=dtype)


def largest_difference(method: str, ratio: float, model: Any, batch: int) -> float:
    """Over the losses and all gradients, in float64; each gradient in units of the largest of its tensor."""
    model.double()
    plain = Plain(method, ratio, model)
    images, noise = batches(batch, seed=1, dtype=torch.float64)
    own, baseline = (list(side.losses(images, noise).values()) for side in (Ours(model), plain))
    sum(own).backward()
    sum(baseline).backward()
    differences = [abs(a.item() - b.item()) for a, b in zip(own, baseline, strict=True)]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            reference = plain.student[name.removeprefix('student.')].grad
            assert parameter.grad is not None and reference is not None, name
            scale = reference.abs().max().clamp_min(1e-6)
            differences.append(((parameter.grad - reference).abs().max() / scale).item())
    model.float().zero_grad()
    assert max(differences) < 1e-9, max(differences)
    return max(differences)


def take_turns(sides: list[Any], batch: int, repeats: int, warmup: int = 1) -> list[list[float]]:
    """CPU seconds of every step of every side: other programs on the machine count less than on the wall clock."""
    seconds: list[list[float]] = [[] for _ in sides]
    for repeat in range(warmup + repeats):
        images, noise = batches(batch, seed=repeat)
        for side, times in zip(sides, seconds, strict=True):
            begun = time.process_time()
            side.step(images, noise)
            if repeat >= warmup:
                times.append(time.process_time() - begun)
    return seconds


def peak_alone(which: str, method: str, ratio: float, batch: int) -> float:
    """Measure the peak memory in MiB of a process that takes two steps of one side."""

    def work(sender: Any) -> None:
        model = build(method, ratio)
        if which == 'ours':
            whole_teacher.cache_clear()
            side: Any = Ours(model)
        else:
            side = Plain(method, ratio, model)
            del model
        for seed in range(2):
            side.step(*batches(batch, seed))
        sender.send(peak_mb())

    context = multiprocessing.get_context('fork')
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(sender,))
    process.start()
    peak = receiver.recv()
    process.join()
    return peak


def row(method: str, ratio: float, batch: int, repeats: int, peaks: dict[str, float] | None) -> Row:
    """One line of the table; ``peaks`` are those of each side, None if they were not taken."""
    model = build(method, ratio)
    difference = largest_difference(method, ratio, model, min(batch, 2))
    ours, baseline = take_turns([Ours(model), Plain(method, ratio, model)], batch, repeats)
    setting = (
        f'ViT-B/16 -> ViT-S/16 at {SIZE} px, batch {batch}, float32, random weights, CPU time, memory kept; '
        f'{BASELINES[method]}; differences of losses and all gradients in float64'
    )
    if peaks is not None:
        setting += f'; peak of each side in a process of its own, baseline {peaks["plain"]:.0f} MiB'
    made = Row.of(f'{method}, {ratio:.0%} hidden', ours, baseline, AIMS[method], difference, setting)
    return made if peaks is None else dataclasses.replace(made, peak_mb=peaks['ours'])


def main() -> None:
    arguments = parse_arguments(__doc__ or '')
    MMLogger.get_instance('bench_mae', log_level=logging.ERROR)
    batch, repeats, ratios = (1, 3, (0.75,)) if arguments.quick else (8, 24, (0.75, 0.95))
    cases = [(method, ratio) for method in AIMS for ratio in ratios]
    peaks: dict[tuple, dict[str, float]] = {}
    if not arguments.quick:  # in processes that are forked before this one has built anything
        for case in cases:
            peaks[case] = {side: peak_alone(side, *case, batch) for side in ('ours', 'plain')}
    keep_memory()
    rows = [row(*case, batch, repeats, peaks.get(case)) for case in cases]
    report(rows, arguments, 'Masked autoencoders: speed and memory')


if __name__ == '__main__':
    main()
