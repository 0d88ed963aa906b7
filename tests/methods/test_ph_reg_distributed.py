"""PH-Reg in two processes: the steps of one process with the doubled batch, and no parameter without a gradient."""

from __future__ import annotations

import zlib
from pathlib import Path

import engine_toy
import torch
from distributed_toy import Photos
from ph_reg_toy import build, images

from vfd.engine import Runner


def train(work_dir: Path, batch_size: int, launcher: str = 'none') -> dict:
    """Two steps; what they left."""
    torch.set_num_threads(1)
    model = build('clip')
    ask = model.teacher.__class__.__call__

    class SameViews(type(model.teacher)):
        """The same views for the same image, whichever process has it."""

        def __call__(self, batch, data_samples=None, seed=None):
            seeds = [[zlib.crc32(image.numpy().tobytes()) + k for k in range(3)] for image in batch]
            return ask(self, batch, seed=torch.tensor(seeds))

    model.teacher.__class__ = SameViews
    runner = Runner(
        model=model,
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=Photos(images(8)),
            batch_size=batch_size,
            sampler=dict(type='DefaultSampler', shuffle=True, seed=1),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.01)),
        default_scope='mmpretrain',
        launcher=launcher,
        log_level='ERROR',
        experiment_name=f'ph_reg_{launcher}',
    )
    runner.train()
    return {'iterations': runner.iter, 'weights': runner.bare_model.state_dict()}


def test_two_processes_equal_one_with_the_doubled_batch(tmp_path):
    one = train(tmp_path / 'one', 4)
    ranks = engine_toy.run_ranks(train, tmp_path / 'out', 2, tmp_path / 'two', 2, launcher='pytorch')
    start = build('clip').state_dict()
    assert {rank['iterations'] for rank in ranks} == {one['iterations']} == {2}
    largest = 0.0
    for name, value in one['weights'].items():
        assert torch.equal(ranks[0]['weights'][name], ranks[1]['weights'][name])
        torch.testing.assert_close(ranks[0]['weights'][name], value, rtol=1e-4, atol=1e-5)
        largest = max(largest, (value - start[name]).abs().max().item())
    assert largest > 1e-3  # the tolerance is small beside what two steps moved
