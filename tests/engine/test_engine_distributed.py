"""Processes of a group, on the CPU."""

import os
import signal

import pytest
import torch
from mmengine.hooks import Hook

from vfd.engine import NonFiniteHook
from vfd.engine.distributed import _environment_from_slurm

PLAIN = {'dropout': 0.0, 'queue': 0.0, 'val': False}


@pytest.mark.parametrize('loop', [{}, {'by_epoch': False, 'length': 12}], ids=['epoch', 'iterations'])
def test_two_processes_equal_one_with_the_doubled_batch(loop, toy, tmp_path):
    one = toy.train(tmp_path / 'one', batch_size=4, **PLAIN, **loop)
    ranks = toy.run_ranks(
        toy.train, tmp_path / 'out', 2, tmp_path / 'two', batch_size=2, launcher='pytorch', **PLAIN, **loop
    )
    assert ranks[0]['losses'].keys() == one['losses'].keys()
    for iteration, loss in one['losses'].items():
        assert {*ranks[0]['files'][iteration], *ranks[1]['files'][iteration]} == set(one['files'][iteration])
        mean = sum(rank['losses'][iteration] for rank in ranks) / 2
        assert mean == pytest.approx(loss, abs=1e-6)
    for name, value in one['weights'].items():
        torch.testing.assert_close(ranks[0]['weights'][name], value, rtol=1e-5, atol=1e-6)
        assert torch.equal(ranks[0]['weights'][name], ranks[1]['weights'][name])
    for draws in zip(
        *(rank['generators'] for rank in ranks), strict=True
    ):  # each draws masks and views of its own
        assert not torch.equal(*(torch.as_tensor(draw) for draw in draws))


def test_killed_processes_continue_exactly(toy, tmp_path):
    """Killed in the middle of an accumulation: every rank has gradients, generators and a queue of its own."""
    options = {
        'batch_size': 2,
        'launcher': 'pytorch',
        'accumulate': 3,
        'by_epoch': False,
        'length': 12,
        'every': 4,
    }
    options |= {'val_interval': 6, 'randomness': {'seed': 7, 'diff_rank_seed': True}}
    whole = toy.run_ranks(toy.train, tmp_path / 'out', 2, tmp_path / 'whole', **options)
    assert whole[0]['generators'][0] != whole[1]['generators'][0]
    killed = toy.KillAt(9)
    toy.run_ranks(
        toy.train,
        tmp_path / 'no',
        2,
        tmp_path / 'run',
        code=-signal.SIGKILL,
        custom_hooks=[killed],
        **options,
    )
    rest = toy.run_ranks(toy.train, tmp_path / 'rest', 2, tmp_path / 'run', resume=True, **options)
    for before, after in zip(whole, rest, strict=True):
        assert sorted(after['losses']) == [8, 9, 10, 11]
        toy.assert_same({i: before['losses'][i] for i in after['losses']}, after['losses'])
        for key in ('weights', 'optimizer', 'ema', 'queue', 'generators'):
            toy.assert_same(before[key], after[key], key)


class SignalOneRank(Hook):
    """Interrupts only the second process."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 2 and runner.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def test_interrupted_processes_stop_at_the_same_step(toy, tmp_path):
    options = {
        'batch_size': 2,
        'launcher': 'pytorch',
        'by_epoch': False,
        'every': 100,
        'length': 12,
        'val': False,
    }
    whole = toy.run_ranks(toy.train, tmp_path / 'out', 2, tmp_path / 'whole', **options)
    toy.run_ranks(
        toy.train, tmp_path / 'no', 2, tmp_path / 'run', code=130, custom_hooks=[SignalOneRank()], **options
    )
    rest = toy.run_ranks(toy.train, tmp_path / 'rest', 2, tmp_path / 'run', resume=True, **options)
    for before, after in zip(whole, rest, strict=True):
        assert sorted(after['losses']) == [10, 11]
        toy.assert_same(before['weights'], after['weights'])


def test_a_bad_loss_of_one_process_skips_the_step_of_all(toy, tmp_path):
    ranks = toy.run_ranks(_train_with_one_nan, tmp_path / 'out', 2, toy, tmp_path / 'run')
    for rank in ranks:
        assert [iteration for iteration, loss in rank['losses'].items() if loss is None] == [3]
    toy.assert_same(ranks[0]['weights'], ranks[1]['weights'])


def _train_with_one_nan(toy, work_dir):
    nan_at = 4 if os.environ['RANK'] == '1' else None
    hooks = {'non_finite': {'type': NonFiniteHook, 'action': 'skip'}}
    return toy.train(
        work_dir, length=1, nan_at=nan_at, hooks=hooks, batch_size=2, launcher='pytorch', **PLAIN
    )


def test_slurm_variables(monkeypatch):
    for name in ('WORLD_SIZE', 'RANK', 'LOCAL_RANK', 'MASTER_PORT'):
        monkeypatch.setenv(name, '')  # what is set below goes away again only if it was set before
        monkeypatch.delenv(name)
    for name, value in {'NTASKS': '4', 'PROCID': '3', 'LOCALID': '1', 'NODELIST': 'node[1-2]'}.items():
        monkeypatch.setenv(f'SLURM_{name}', value)
    monkeypatch.setenv('MASTER_ADDR', 'node1')
    _environment_from_slurm()
    found = {name: os.environ[name] for name in ('WORLD_SIZE', 'RANK', 'LOCAL_RANK', 'MASTER_PORT')}
    assert found == {'WORLD_SIZE': '4', 'RANK': '3', 'LOCAL_RANK': '1', 'MASTER_PORT': '29500'}
