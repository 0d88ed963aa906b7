"""A tiny network, data set and run, for the tests of the engine. Importing it needs mmengine and torch alone."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import signal
import socket
import time

import mmengine.runner.runner as mmrunner
import numpy as np
import torch
import torch.nn.functional as F
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement

from vfd.engine import Runner
from vfd.errors import BadDataError

SIZE = 8
mmrunner.collect_env = dict  # it starts compilers to ask for their versions
_names = itertools.count()


class ToyDataset(BaseDataset):
    """``length`` points; those in ``bad`` cannot be read. ``augment`` draws from all three generators."""

    METAINFO = {'classes': ('a', 'b', 'c')}  # noqa: RUF012

    def __init__(self, length=26, bad=(), augment=True, **kwargs):
        self.length, self.bad, self.augment = length, set(bad), augment
        super().__init__(serialize_data=False, **kwargs)

    def load_data_list(self):
        return [{'img_path': f'img_{i}.png', 'label': i % 3} for i in range(self.length)]

    def prepare_data(self, idx):
        info = self.get_data_info(idx)
        if idx in self.bad:
            raise BadDataError(f'{info["img_path"]} is truncated')
        x = torch.sin(torch.arange(SIZE) * (idx + 1.0))
        if self.augment:
            x = x * (1 + 0.1 * random.random()) + 0.1 * float(np.random.rand()) + 0.1 * torch.randn(SIZE)
        sample = BaseDataElement(metainfo={'img_path': info['img_path'], 'label': info['label']})
        return {'inputs': x, 'data_samples': sample}


class ToyNet(BaseModel):
    """Two layers with dropout. ``nan_at``: the loss of that call is NaN."""

    accumulative_counts = 1
    teacher = None

    def __init__(self, dropout=0.3, nan_at=None, queue=0.01):
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(SIZE, 16), torch.nn.ReLU(), torch.nn.Dropout(dropout), torch.nn.Linear(16, 3)
        )
        self.nan_at, self.calls = nan_at, 0
        self.queue_weight, self.queue = queue, torch.zeros(3)  # not in the state dict

    def forward(self, inputs, data_samples=None, mode='tensor'):
        inputs = torch.stack(list(inputs)) if not isinstance(inputs, torch.Tensor) else inputs
        logits = self.net(inputs)
        if mode == 'predict':
            for sample, logit in zip(data_samples, logits, strict=True):
                sample.set_field(int(logit.argmax()), 'pred', dtype=int)
            return data_samples
        labels = torch.tensor([sample.label for sample in data_samples])
        self.calls += 1
        self.queue = 0.5 * self.queue + logits.detach().mean(0)
        loss = (
            F.cross_entropy(logits, labels) + self.queue_weight * (logits.mean(0) - self.queue).square().sum()
        )
        return {'loss_ce': loss * float('nan') if self.nan_at == self.calls else loss}

    def method_state(self):
        return {'queue': self.queue}

    def load_method_state(self, state):
        self.queue = state['queue']

    def teacher_fingerprint(self):
        return self.teacher and self.teacher.fingerprint()


class ToyMetric(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results += [int(s['pred'] == s['label']) for s in data_samples]

    def compute_metrics(self, results):
        return {'acc': sum(results) / len(results), 'seen': len(results)}


class Recorder(Hook):
    """Keeps the losses and the files of every batch."""

    priority = 'LOWEST'

    def __init__(self):
        self.losses, self.files, self.validated_at = {}, {}, []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses[runner.iter] = outputs['loss'].item() if outputs else None
        self.files[runner.iter] = [s.img_path for s in data_batch['data_samples']]

    def after_val_epoch(self, runner, metrics=None):
        self.validated_at.append((runner.iter, metrics))


class KillAt(Hook):
    """kill -9 in the middle of an iteration: before its step, or after it (checkpoints of it are then written)."""

    priority = 'LOWEST'

    def __init__(self, iteration, after=False):
        self.iteration, self.after = iteration, after

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if not self.after and runner.iter == self.iteration:
            os.kill(os.getpid(), signal.SIGKILL)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if self.after and runner.iter == self.iteration:
            os.kill(os.getpid(), signal.SIGKILL)


def make_runner(
    work_dir,
    *,
    by_epoch=True,
    length=3,
    every=2,
    workers=0,
    batch_size=4,
    accumulate=1,
    optimizer='SGD',
    dropout=0.3,
    nan_at=None,
    queue=0.01,
    optim_wrapper='OptimWrapper',
    dataset=None,
    loader=None,
    sampler=None,
    val=True,
    val_interval=1,
    checkpoint=None,
    hooks=(),
    custom_hooks=(),
    ema=True,
    randomness=None,
    end=20,
    log_level='WARNING',
    **kwargs,
):
    """A Runner; ``length`` in epochs or iterations, ``every`` iterations a checkpoint."""
    torch.set_num_threads(1)
    torch.manual_seed(0)  # the first weights, the same in every run
    optimizers = {
        'SGD': {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9, 'weight_decay': 1e-3},
        'AdamW': {'type': 'AdamW', 'lr': 0.01, 'weight_decay': 0.05},
    }
    sampler = sampler or ('DefaultSampler' if by_epoch else 'InfiniteSampler')
    train = {
        'dataset': {'type': ToyDataset, **(dataset or {})},
        'sampler': {'type': sampler, 'shuffle': True},
        'batch_size': batch_size,
        'num_workers': workers,
        **(loader or {}),
    }
    validation = {
        'val_dataloader': {
            'dataset': {'type': ToyDataset, 'length': 6},
            'sampler': {'type': 'DefaultSampler', 'shuffle': False},
            'batch_size': 3,
        },
        'val_cfg': {},
        'val_evaluator': {'type': ToyMetric},
    }
    total = {'max_epochs': length} if by_epoch else {'max_iters': length}
    return Runner(
        model=ToyNet(dropout, nan_at, queue),
        work_dir=str(work_dir),
        train_dataloader=train,
        train_cfg={'by_epoch': by_epoch, 'val_interval': val_interval, **total},
        optim_wrapper={
            'type': optim_wrapper,
            'optimizer': optimizers[optimizer],
            'accumulative_counts': accumulate,
            'clip_grad': {'max_norm': 1.0},
        },
        param_scheduler=[
            {'type': 'LinearLR', 'start_factor': 0.1, 'by_epoch': False, 'begin': 0, 'end': 4},
            {'type': 'CosineAnnealingLR', 'by_epoch': False, 'begin': 4, 'end': end, 'T_max': end - 4},
        ],
        default_hooks={
            'checkpoint': {
                'type': 'CheckpointHook',
                'interval': every,
                'by_epoch': False,
                **(checkpoint or {}),
            },
            'logger': {'type': 'LoggerHook', 'interval': 3},
            **dict(hooks),
        },
        custom_hooks=[*([{'type': 'EMAHook', 'momentum': 0.1}] if ema else []), *custom_hooks],
        randomness=randomness or {'seed': 7},
        experiment_name=f'toy{os.getpid()}_{next(_names)}',
        log_level=log_level,
        **(validation if val else {}),
        **kwargs,
    )


def train(work_dir, **options):
    """Train; what is left of the run afterwards."""
    recorder = Recorder()
    runner = make_runner(work_dir, custom_hooks=(recorder, *options.pop('custom_hooks', ())), **options)
    runner.train()
    ema = [hook for hook in runner.hooks if type(hook).__name__ == 'EMAHook']
    return {
        'weights': runner.bare_model.state_dict(),
        'optimizer': runner.optim_wrapper.state_dict(),
        'ema': ema[0].ema_model.state_dict() if ema else {},
        'schedulers': [scheduler.state_dict() for scheduler in runner.param_schedulers],
        'queue': runner.bare_model.queue,
        'generators': (random.random(), float(np.random.rand()), torch.rand(2)),
        'losses': recorder.losses,
        'files': recorder.files,
        'validated_at': recorder.validated_at,
        'logged': {
            name: log.data[0].tolist()
            for name, log in runner.message_hub.log_scalars.items()
            if 'loss' in name
        },
    }


def _in_child(function, out, environment, args, kwargs):
    os.environ.update(environment)
    torch.save(function(*args, **kwargs), out)


def spawn(function, out, *args, environment=None, **kwargs):
    """Start ``function`` in a process of its own (a fork: nothing is imported again), its result going to ``out``."""
    torch.set_num_threads(1)  # a fork must not inherit a pool of threads
    context = multiprocessing.get_context('fork')
    process = context.Process(target=_in_child, args=(function, out, environment or {}, args, kwargs))
    process.start()
    return process


def wait_for(process, seconds=90):
    """The exit code of a process. (``join`` would also wait for the workers that a killed one leaves behind.)"""
    deadline = time.monotonic() + seconds
    while process.is_alive():
        assert time.monotonic() < deadline, 'the process hangs'
        time.sleep(0.02)
    return process.exitcode


def run_apart(function, out, *args, **kwargs):
    """Run ``function`` in a process of its own. Returns its exit code and its result, None if it left none."""
    return wait_for(spawn(function, out, *args, **kwargs)), torch.load(
        out, weights_only=False
    ) if out.exists() else None


def run_ranks(function, folder, world_size, *args, code=0, **kwargs):
    """Run ``function`` in ``world_size`` processes that form a process group. Returns their results."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    folder.mkdir(exist_ok=True)
    outs = [folder / f'rank{rank}.pt' for rank in range(world_size)]
    processes = []
    for rank, out in enumerate(outs):
        environment = {
            'RANK': str(rank),
            'LOCAL_RANK': str(rank),
            'WORLD_SIZE': str(world_size),
            'MASTER_ADDR': '127.0.0.1',
            'MASTER_PORT': str(port),
        }
        processes.append(spawn(function, out, *args, environment=environment, **kwargs))
    assert [wait_for(process) for process in processes] == [code] * world_size
    return [torch.load(out, weights_only=False) if out.exists() else None for out in outs]


def assert_same(one, other, path=''):
    """Nested containers of tensors and numbers are equal bit by bit."""
    assert type(one) is type(other), path
    if isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_same(one[key], other[key], f'{path}/{key}')
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), path
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f'{path}/{i}')
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    else:
        assert one == other, path


if __name__ == '__main__':  # a run in a process of its own, for signals
    import sys

    train(sys.argv[1], length=2000, every=5, workers=2, by_epoch=False, val=False)
