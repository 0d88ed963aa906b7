"""mmengine's checkpoints load with ``weights_only=True``, and code in a pickle does not run."""

import os
import pickle

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import Runner

from vfd.compat.checkpoint_globals import statistic_of

needs_weights_only = pytest.mark.skipif(torch.__version__ < '2.6', reason='older torch reads everything')


class Tiny(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def forward(self, inputs, mode='tensor'):
        out = self.layer(torch.stack(list(inputs)))
        return {'loss': out.square().mean()} if mode == 'loss' else out


def runner(folder, iterations, resume=False):
    points = [{'inputs': torch.ones(2) * i} for i in range(8)]
    return Runner(
        Tiny(),
        work_dir=str(folder),
        train_dataloader={
            'dataset': points,
            'batch_size': 2,
            'sampler': {'type': 'InfiniteSampler', 'shuffle': True},
        },
        train_cfg={'by_epoch': False, 'max_iters': iterations},
        optim_wrapper={'optimizer': {'type': 'AdamW', 'lr': 0.1}},
        param_scheduler={'type': 'CosineAnnealingLR', 'by_epoch': False, 'T_max': 4},
        default_hooks={
            'checkpoint': {'type': 'CheckpointHook', 'interval': 2, 'by_epoch': False},
            'logger': {'type': 'LoggerHook', 'interval': 1},
        },
        log_processor={'by_epoch': False},
        resume=resume,
        randomness={'seed': 0},
        log_level='WARNING',
        default_scope='mmengine',
        experiment_name=f'tiny_{folder.name}_{iterations}',
    )


def test_the_runner_resumes_from_its_own_checkpoint(tmp_path):
    runner(tmp_path, 2).train()
    content = torch.load(tmp_path / 'iter_2.pth', weights_only=False)
    assert any(isinstance(v, HistoryBuffer) for v in content['message_hub']['log_scalars'].values())

    resumed = runner(tmp_path, 4, resume=True)
    resumed.train()
    assert resumed.iter == 4
    assert len(resumed.message_hub.get_scalar('train/loss').data[0]) == 4  # the history came along


def test_history_and_numpy_values_survive(tmp_path):
    history = HistoryBuffer([1.0, 3.0], [1, 1])
    content = {
        'history': history,
        'array': np.arange(4, dtype=np.uint32),
        'flags': np.array([True, False]),
        'scalar': np.float32(2.5),
    }
    torch.save(content, tmp_path / 'state.pth')
    loaded = torch.load(tmp_path / 'state.pth', weights_only=True)
    assert loaded['history'].mean() == 2 and loaded['history'].statistics('max') == 3
    assert loaded['array'].dtype == np.uint32 and loaded['array'].tolist() == [0, 1, 2, 3]
    assert loaded['flags'].tolist() == [True, False] and loaded['scalar'] == np.float32(2.5)


@needs_weights_only
def test_file_written_with_numpy_1(tmp_path):
    path = tmp_path / 'old.pth'
    torch.save({'array': np.arange(3.0), 'value': np.float64(7)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes().replace(b'numpy._core.multiarray', b'numpy.core.multiarray')
    assert b'numpy.core.multiarray' in content
    path.write_bytes(content)
    loaded = torch.load(path, weights_only=True)
    assert loaded['array'].tolist() == [0, 1, 2] and loaded['value'] == 7


@needs_weights_only
def test_declarations_outlive_those_of_others(tmp_path):
    torch.save(HistoryBuffer([1.0], [1]), tmp_path / 'history.pth')
    with torch.serialization.safe_globals([HistoryBuffer, np.ndarray, np.dtype]):  # as the forks' loader does
        pass
    assert torch.load(tmp_path / 'history.pth', weights_only=True).mean() == 1


class RunsACommand:
    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return os.mkdir, (str(self.victim),)


class TakesAnAttribute:
    """Asks for ``getattr``, which the repair had to allow in some form."""

    def __init__(self, owner, name):
        self.arguments = owner, name

    def __reduce__(self):
        return getattr, self.arguments


def test_code_is_refused_and_does_not_run(tmp_path):
    victim = tmp_path / 'made by the pickle'
    torch.save({'state_dict': RunsACommand(victim)}, tmp_path / 'evil.pth')
    with pytest.raises(pickle.UnpicklingError, match='mkdir'):
        torch.load(tmp_path / 'evil.pth', weights_only=True)
    assert not victim.exists()
    torch.load(tmp_path / 'evil.pth', weights_only=False)  # the file would have done it
    assert victim.exists()


@pytest.mark.parametrize('owner', [HistoryBuffer, np.ndarray])
def test_getattr_reaches_nothing_else(owner, tmp_path):
    torch.save(TakesAnAttribute(owner, '__init__'), tmp_path / 'evil.pth')
    with pytest.raises(pickle.UnpicklingError, match='may not access'):
        torch.load(tmp_path / 'evil.pth', weights_only=True)


def test_statistics_only():
    assert statistic_of(HistoryBuffer, 'mean') is HistoryBuffer.mean
    for owner, name in [(HistoryBuffer, '__class__'), (HistoryBuffer, 'update'), (np, 'mean'), (int, 'min')]:
        with pytest.raises(pickle.UnpicklingError, match='may not access'):
            statistic_of(owner, name)
