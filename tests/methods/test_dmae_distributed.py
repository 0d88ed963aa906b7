"""DMAE in two processes: the steps of one process with the doubled batch."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest
import torch
from distributed_toy import Photos, engine_toy
from mae_toy import PATCHES, build, images
from mmengine.hooks import Hook

from vfd.backbones import make_mask
from vfd.engine import Runner


class Losses(Hook):
    """Keeps the terms of every step."""

    def __init__(self) -> None:
        self.terms: list[dict[str, float]] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.terms.append({name: value.item() for name, value in outputs.items()})


def train(work_dir: Path, batch_size: int, optimizer: dict, launcher: str = 'none') -> dict:
    """Three steps; what they left."""
    torch.set_num_threads(1)
    model = build(align=[dict(student=1, teacher=2), dict(student=2, teacher=0)], norm_pix=True)

    def draw_mask(inputs):
        """The same mask for the same image, whichever process has it."""
        seeds = [zlib.crc32(image.numpy().tobytes()) for image in inputs]
        noise = [torch.rand(PATCHES, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return make_mask(torch.stack(noise), model.mask_ratio)

    model.draw_mask = draw_mask
    taught = {name: value.clone() for name, value in model.teacher.network.state_dict().items()}
    losses = Losses()
    runner = Runner(
        model=model,
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=Photos(images(12)),
            batch_size=batch_size,
            sampler=dict(type='DefaultSampler', shuffle=True, seed=1),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=optimizer),
        custom_hooks=[losses],
        default_scope='mmpretrain',
        launcher=launcher,
        log_level='ERROR',
        experiment_name=f'dmae_{launcher}_{optimizer["type"]}',
    )
    runner.train()
    wrapped = [name for name, _ in runner.model.named_parameters()]
    return {
        'iterations': runner.iter,
        'terms': losses.terms,
        'weights': runner.bare_model.state_dict(),
        'wrapped': type(runner.model).__name__,
        'teacher in the wrapper': [name for name in wrapped if 'teacher' in name],
        'teacher unchanged': all(
            torch.equal(value, taught[name]) for name, value in model.teacher.network.state_dict().items()
        ),
    }


@pytest.mark.parametrize(
    'optimizer',
    [dict(type='SGD', lr=0.1, momentum=0.9), dict(type='AdamW', lr=1e-3, betas=(0.9, 0.95), eps=1e-6)],
    ids=['sgd', 'adamw'],
)
def test_two_processes_equal_one_with_the_doubled_batch(optimizer, tmp_path):
    one = train(tmp_path / 'one', 4, optimizer)
    ranks = engine_toy().run_ranks(
        train, tmp_path / 'out', 2, tmp_path / 'two', 2, optimizer, launcher='pytorch'
    )
    start = build(align=[dict(student=1, teacher=2), dict(student=2, teacher=0)], norm_pix=True).state_dict()
    for rank in ranks:
        assert rank['iterations'] == one['iterations'] == 3
        assert rank['wrapped'].endswith('DistributedDataParallel') and rank['teacher unchanged']
        assert rank['teacher in the wrapper'] == []
    for step, (theirs, *ours) in enumerate(
        zip(one['terms'], *(rank['terms'] for rank in ranks), strict=True)
    ):
        assert set(theirs) == {'loss', 'loss_pixel', 'loss_distill_s1_t2', 'loss_distill_s2_t0'}
        for name, value in theirs.items():
            mean = sum(terms[name] for terms in ours) / 2
            assert mean == pytest.approx(value, rel=1e-5), (step, name)
    largest = 0.0
    for name, value in one['weights'].items():
        assert torch.equal(ranks[0]['weights'][name], ranks[1]['weights'][name])
        torch.testing.assert_close(ranks[0]['weights'][name], value, rtol=1e-4, atol=1e-5)
        largest = max(largest, (value - start[name]).abs().max().item())
    assert largest > 1e-3  # the tolerance is small beside what three steps moved
