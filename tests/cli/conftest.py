"""A folder data set as the small configs want it, and the command line in this process."""

import logging
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
TINY = ROOT / 'configs/ssld/ssld-stage1_tiny_1xb8-coslr-4e_folder.py'


@pytest.fixture(scope='session')
def folder_data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('folder_data')
    rng = np.random.default_rng(0)
    for part, names in (('train', 'abcdefghij'), ('val', 'abcdefghij'), ('unlabelled', '')):
        for name in names or ['']:
            folder = root / 'data/folder' / part / name
            folder.mkdir(parents=True)
            for i in range(2 if names else 12):
                cv2.imwrite(str(folder / f'{i}.png'), rng.integers(0, 256, (70, 80, 3), dtype=np.uint8))
    return root


@pytest.fixture
def vfd_command(folder_data, tmp_path, monkeypatch, capfd):
    """Run a command of vfd in this process, beside the data: returns exit code, output and errors."""
    from vfd.cli.main import main

    monkeypatch.chdir(folder_data)
    monkeypatch.setattr(logging, 'raiseExceptions', False)  # loggers of earlier tests hold closed streams
    monkeypatch.setenv('LOCAL_RANK', os.environ.get('LOCAL_RANK', '0'))

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main([str(a) for a in arguments])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run
