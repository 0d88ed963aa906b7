"""kill -9 during ``tools/train.py configs/quickstart/...``, then ``--resume``: the same weights, bit by bit."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from vfd.stores import StoreWriter

ROOT = Path(__file__).parents[2]
CONFIG = next((ROOT / 'configs/quickstart').glob('ssld_*_fashion-mnist.py'))
OPTIONS = [
    '--cfg-options',
    'train_cfg.max_iters=24',
    'train_cfg.val_interval=24',
    'param_scheduler.warmup=4',
    'default_hooks.checkpoint.interval=5',
    'default_hooks.logger.interval=1',
    'train_dataloader.batch_size=16',
]


@pytest.fixture(scope='module')
def place(tmp_path_factory) -> Path:
    """A folder with a small data set and stored outputs, laid out as the quickstart makes them."""
    root = tmp_path_factory.mktemp('quickstart')
    rng = np.random.default_rng(0)
    data = root / 'data/quickstart/fashion-mnist'
    names = [f'{i:04d}.png' for i in range(60)]
    (data / 'unlabelled').mkdir(parents=True)
    for name in names:
        cv2.imwrite(str(data / 'unlabelled' / name), rng.integers(0, 256, (28, 28), dtype=np.uint8))
    for label in range(10):
        (data / f'test/{label}').mkdir(parents=True)
        cv2.imwrite(str(data / f'test/{label}/0.png'), rng.integers(0, 256, (28, 28), dtype=np.uint8))
    # Keys are relative to the data set's folder.
    writer = StoreWriter(
        root / 'work_dirs/quickstart/fashion-mnist/targets', {'logits': ('float32', (10,))}, {}
    )
    writer.append([f'unlabelled/{n}' for n in names], logits=rng.normal(size=(60, 10)).astype(np.float32))
    writer.close()
    return root


def start(place: Path, work_dir: Path, *more: str) -> subprocess.Popen:
    command = [sys.executable, ROOT / 'tools/train.py', CONFIG, '--work-dir', work_dir, *more, *OPTIONS]
    log = (place / f'{work_dir.name}.log').open('a')
    return subprocess.Popen(
        command, cwd=place, stdout=log, stderr=log, env={**os.environ, 'OMP_NUM_THREADS': '1'}
    )


def weights(work_dir: Path) -> dict[str, torch.Tensor]:
    return torch.load(work_dir / 'iter_24.pth', map_location='cpu', weights_only=True)['state_dict']


def test_killed_and_resumed_equals_uninterrupted(place):
    whole = start(place, place / 'whole')
    assert whole.wait() == 0, (place / 'whole.log').read_text()[-2000:]

    killed = start(place, place / 'killed')
    log = place / 'killed.log'
    moment = random.randint(6, 20)
    while f'Iter(train) [{moment:2d}/24]' not in log.read_text():
        assert killed.poll() is None, log.read_text()[-2000:]
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (place / 'killed/iter_24.pth').exists()

    resumed = start(place, place / 'killed', '--resume')
    assert resumed.wait() == 0, log.read_text()[-2000:]
    assert 'resumed epoch: 0, iter: ' in log.read_text()
    expected, got = weights(place / 'whole'), weights(place / 'killed')
    assert expected.keys() == got.keys()
    different = [name for name in expected if not torch.equal(expected[name], got[name])]
    assert not different, f'killed at iteration {moment}: {different}'
