"""Tiny data sets on disk, in the places where the small configs look for them."""

import cv2
import numpy as np
import pytest


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current directory; mmengine's slow layout of configs in logs is switched off."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('mmengine.config.config.FormatCode', lambda text, **_: (text, False))
    return tmp_path


def _scene(rng):
    """A dark image (70, 90) with a red disc (1) and a blue box (2), BGR, and its labels; two rows have none."""
    image = rng.integers(0, 120, (70, 90, 3), dtype=np.uint8)
    label = np.zeros((70, 90), dtype=np.uint8)
    row, column = rng.integers(5, 40, 2)
    y, x = np.ogrid[:70, :90]
    disc = (y - row - 10) ** 2 + (x - column) ** 2 < 120
    image[disc], label[disc] = (60, 60, 200), 1
    box = (slice(row, row + 15), slice(column + 20, column + 40))
    image[box], label[box] = (220, 60, 60), 2
    label[:2] = 255
    return image, label


@pytest.fixture
def seg_small(here):
    """``data/seg-small``: train and val, images and labels."""
    rng = np.random.default_rng(0)
    root = here / 'data/seg-small'
    for part, count in (('train', 6), ('val', 2)):
        for kind in ('images', 'labels'):
            (root / part / kind).mkdir(parents=True)
        for number in range(count):
            image, label = _scene(rng)
            cv2.imwrite(str(root / part / f'images/{number}.png'), image)
            cv2.imwrite(str(root / part / f'labels/{number}.png'), label)
    return root


@pytest.fixture
def depth_small(here):
    """``data/depth-small``: train and val, images and depth maps in metres, one of them as .npy."""
    rng = np.random.default_rng(1)
    root = here / 'data/depth-small'
    for part, count in (('train', 4), ('val', 2)):
        for kind in ('images', 'depth'):
            (root / part / kind).mkdir(parents=True)
        for number in range(count):
            image, label = _scene(rng)
            depth = (4 - label.clip(max=2) + 0.01 * np.arange(90)).astype(np.float32)
            depth[label == 255] = 0
            cv2.imwrite(str(root / part / f'images/{number}.png'), image)
            if number == 0:
                np.save(root / part / 'depth/0.npy', depth)
            else:
                cv2.imwrite(
                    str(root / part / f'depth/{number}.png'), (1000 * depth).round().astype(np.uint16)
                )
    return root
