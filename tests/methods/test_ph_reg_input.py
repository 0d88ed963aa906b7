"""PH-Reg's photos as they come: odd sizes and formats are prepared, broken files are skipped and counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from ph_reg_toy import photos
from PIL import Image

from vfd.apis.config import load_config
from vfd.apis.training import train
from vfd.registry import DATASETS

CONFIG = Path(__file__).parents[2] / 'configs/ph_reg/ph-reg_dinov2-tiny_1xb4-explr-2e_folder-56px.py'
PIXELS = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)


def exif_rotated(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(path, exif=exif, quality=100)


WRITERS = {
    'gray.png': lambda path: Image.fromarray(PIXELS[..., 0]).save(path),
    'rgba.png': lambda path: Image.fromarray(np.dstack([PIXELS, PIXELS[..., :1]])).save(path),
    'deep.png': lambda path: Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257).save(path),
    'palette.gif': lambda path: Image.fromarray(PIXELS).quantize(32).save(path),
    'rotated.jpg': exif_rotated,
    'small.png': lambda path: Image.fromarray(PIXELS[:5, :9]).save(path),  # smaller than the crop
    'thin.png': lambda path: Image.fromarray(PIXELS[:, :2]).save(path),
    'exact.png': lambda path: Image.fromarray(PIXELS[:56, :56]).save(path),
}


def pipeline() -> Compose:
    """The transforms of the small config."""
    steps = load_config(CONFIG).to_dict()['train_dataloader']['dataset']['pipeline']
    dataset = dict(type='vfd.ImageFolderDataset', data_root='.', pipeline=steps, lazy_init=True)
    return DATASETS.build(dataset).pipeline


@pytest.mark.parametrize('name', WRITERS)
def test_odd_files_become_square_colour_images(name, tmp_path):
    WRITERS[name](tmp_path / name)
    sample = pipeline()({'img_path': str(tmp_path / name)})
    assert sample['inputs'].shape == (3, 56, 56) and sample['inputs'].dtype == torch.uint8
    assert sample['inputs'].float().std() > 0


def test_the_crop_moves_along_the_long_side_only(tmp_path):
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (56, 200, 3))
    Image.fromarray(np.ascontiguousarray(ramp)).save(tmp_path / 'wide.png')
    steps = pipeline()
    np.random.seed(0)
    first = [int(steps({'img_path': str(tmp_path / 'wide.png')})['inputs'][0, 0, 0]) for _ in range(60)]
    assert len(set(first)) > 20 and min(first) < 20 and max(first) > 120 and max(first) <= 144


def test_a_run_skips_and_counts_what_it_cannot_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = photos(tmp_path / 'data/folder/unlabelled', 6)
    for name, write in WRITERS.items():
        write(folder / name)
    (folder / 'notes.txt').write_text('not an image')
    (folder / 'broken.png').write_bytes((folder / '0.png').read_bytes()[:200])
    (folder / 'empty.jpg').write_bytes(b'')
    options = {'train_cfg.max_epochs': 1, 'visualizer.vis_backends': [], 'randomness.seed': 1}
    runner = train(CONFIG, tmp_path / 'run', options=options)
    assert {Path(name).name for name in runner.bad_data.counts} == {'broken.png', 'empty.jpg'}
    assert all(torch.isfinite(value).all() for value in runner.bare_model.state_dict().values())
