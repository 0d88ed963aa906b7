"""What the tests of searches share: a folder of images, and a run of the small config."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from vfd.offline import search as api

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs/diswot/search_tiny_folder.py'


def make_folder(tmp_path: Path, monkeypatch) -> Path:
    """``data/folder`` in the current directory: twelve images of ten classes, one of them broken."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for part in ('train', 'val'):
        for number in range(12):
            target = tmp_path / f'data/folder/{part}/class{number % 10}'
            target.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(target / f'{number}.png'), rng.integers(0, 256, (48, 40, 3), dtype=np.uint8))
    (tmp_path / 'data/folder/train/class3/broken.png').write_bytes(b'no image')
    return tmp_path


def run(work_dir: Path, **options) -> api.SearchResult:
    return api.search(CONFIG, work_dir, {key.replace('__', '.'): value for key, value in options.items()})


NOISE = {'search__images': 'noise', 'search__space__input_size': 16, 'search__seeds': 1}
