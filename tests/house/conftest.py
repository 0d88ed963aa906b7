"""A user's folder, as the README describes it."""

import logging
import os
import runpy
import shlex
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
import torch
from house_pages import ROOT, blocks, is_config

CLASSES = ('cat', 'dog')


@pytest.fixture(scope='module')
def user_folder(tmp_path_factory) -> Path:
    """Images of two classes, a teacher file, ``configs/mine.py`` from the README, and the repository's tools."""
    root = tmp_path_factory.mktemp('user')
    rng = np.random.default_rng(0)
    for part in ('unlabelled', *(f'{part}/{name}' for part in ('train', 'val') for name in CLASSES)):
        folder = root / 'data/mine' / part
        folder.mkdir(parents=True)
        for i in range(3):
            cv2.imwrite(str(folder / f'{i}.png'), rng.integers(0, 256, (90, 80, 3), dtype=np.uint8))
    (root / 'configs').mkdir()
    (root / 'configs/_base_').symlink_to(ROOT / 'configs/_base_')
    (root / 'tools').symlink_to(ROOT / 'tools')
    (config,) = (block for block in blocks(ROOT / 'README.md', 'python') if is_config(block))
    assert config.startswith('# configs/mine.py\n')
    (root / 'configs/mine.py').write_text(config)
    (root / 'checkpoints').mkdir()
    torch.save(
        timm.create_model('resnet50', num_classes=len(CLASSES)).state_dict(), root / 'checkpoints/teacher.pth'
    )
    return root


@pytest.fixture
def user_command(user_folder, monkeypatch, capfd):
    """Run ``vfd ...`` or ``python tools/....py ...`` in this process, in the user's folder: exit code and output."""
    from vfd.cli.main import main

    monkeypatch.chdir(user_folder)
    monkeypatch.setattr(logging, 'raiseExceptions', False)  # loggers of earlier tests hold closed streams
    monkeypatch.setenv('LOCAL_RANK', os.environ.get('LOCAL_RANK', '0'))
    monkeypatch.setattr(sys, 'path', [*sys.path])

    def run(command: str, *more: str) -> tuple[int, str]:
        program, *arguments = [*shlex.split(command), *more]
        if program == 'vfd':
            code = main(arguments)
        else:
            assert program == 'python', command
            monkeypatch.setattr(sys, 'argv', arguments)
            with pytest.raises(SystemExit) as leave:
                runpy.run_path(arguments[0], run_name='__main__')
            code = leave.value.code or 0
        captured = capfd.readouterr()
        return code, captured.out + captured.err

    return run
