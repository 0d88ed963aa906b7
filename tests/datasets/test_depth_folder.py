"""Folders of images with depth: pairing, scales, bad files, transforms."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from mmengine.registry import DefaultScope

from vfd.datasets import DepthFolderDataset, LoadDepth, RandomGammaBrightnessColour
from vfd.errors import BadDataError, MissingFileError, UserError


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in ('images/a', 'depth/a'):
        (tmp_path / name).mkdir(parents=True)
    for name in ('a/0', '1'):
        cv2.imwrite(str(tmp_path / f'images/{name}.jpg'), rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    depth = rng.uniform(0.5, 9, (6, 8)).astype(np.float32)
    np.save(tmp_path / 'depth/a/0.npy', depth)
    cv2.imwrite(str(tmp_path / 'depth/1.png'), (depth * 1000).round().astype(np.uint16))
    return tmp_path, depth


def test_images_and_depth_are_paired_and_in_metres(folder):
    root, depth = folder
    pipeline = [dict(type='vfd.LoadImage'), dict(type='vfd.LoadDepth')]
    dataset = DepthFolderDataset(str(root), pipeline=pipeline)
    assert [item['img_path'] for item in (dataset[0], dataset[1])] == [
        str(root / f'images/{n}.jpg') for n in ('1', 'a/0')
    ]
    for item in (dataset[0], dataset[1]):
        assert item['gt_depth_map'].dtype == np.float32 and item['seg_fields'] == ['gt_depth_map']
        np.testing.assert_allclose(item['gt_depth_map'], depth, atol=6e-4)
    assert dataset[0]['seg_fields'] == ['gt_depth_map']  # nothing piles up over the epochs


def test_mistakes(folder):
    root, _ = folder
    with pytest.raises(MissingFileError, match='nowhere'):
        DepthFolderDataset(str(root), data_prefix=dict(depth_map_path='nowhere'))
    with pytest.raises(MissingFileError, match='nowhere'):
        DepthFolderDataset(str(root), data_prefix=dict(img_path='nowhere'))
    (root / 'depth/1.png').unlink()
    with pytest.raises(UserError, match=r'1\.jpg has no depth map'):
        DepthFolderDataset(str(root))
    with pytest.raises(UserError, match='png_scale'):
        LoadDepth(png_scale=0)


def _nan(depth):
    depth[2, 3] = np.nan
    return depth


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        (_nan, 'NaN'),
        (lambda d: -d, 'negative'),
        (lambda d: d * np.inf, 'infinite'),
        (lambda d: 0 * d, 'no pixel'),
        (lambda d: d[:4], r'\(4, 8\), image of \(6, 8\)'),
        (lambda d: d[None], r'shape \(1, 6, 8\)'),
        (lambda d: d.astype(np.int64), 'int64'),
        (lambda d: np.array([d, None], dtype=object), 'cannot be read'),
    ],
)
def test_bad_arrays(folder, change, text):
    root, depth = folder
    np.save(root / 'depth/a/0.npy', change(depth.copy()))
    with pytest.raises(BadDataError, match=text):
        LoadDepth()({'depth_map_path': str(root / 'depth/a/0.npy'), 'ori_shape': (6, 8)})


@pytest.mark.parametrize('content', [b'', b'\x89PNG\r\n\x1a\n' + b'0' * 30, None])
def test_bad_png(folder, content):
    root, _ = folder
    path = root / 'depth/1.png'
    path.write_bytes(content) if content is not None else path.unlink()
    with pytest.raises(BadDataError, match=r'1\.png'):
        LoadDepth()({'depth_map_path': str(path)})


def test_eight_bits_are_no_depth(folder):
    root, _ = folder
    cv2.imwrite(str(root / 'depth/1.png'), np.full((6, 8), 9, np.uint8))
    with pytest.raises(BadDataError, match='16-bit'):
        LoadDepth()({'depth_map_path': str(root / 'depth/1.png')})


def test_colours_change_within_their_ranges_and_depth_does_not():
    image = np.full((4, 5, 3), 100, np.uint8)
    same = RandomGammaBrightnessColour(prob=0)({'img': image})
    assert same['img'] is image
    np.random.seed(0)
    results = [RandomGammaBrightnessColour(prob=1)({'img': image})['img'] for _ in range(50)]
    values = np.stack([result[0, 0] for result in results]).astype(float)
    assert all(result.dtype == np.uint8 and (result == result[0, 0]).all() for result in results)
    low, high = (
        255 * (100 / 255) ** gamma * factor for gamma, factor in ((1.1, 0.75 * 0.9), (0.9, 1.25 * 1.1))
    )
    assert values.min() >= low - 1 and values.max() <= high + 1 and values.std(axis=0).min() > 5
    off = RandomGammaBrightnessColour(1, (1, 1), (1, 1), (1, 1))
    every = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, 2)
    assert (off({'img': every})['img'] == every).all()


def test_geometry_moves_depth_with_the_image(folder):
    """mmseg's transforms on both: a map that holds the image's own values still does."""
    from mmcv.transforms import Compose

    root, _ = folder
    ramp = np.add.outer(np.arange(40), np.arange(50)).astype(np.uint8) + 20
    cv2.imwrite(str(root / 'images/1.jpg'), ramp)
    with DefaultScope.overwrite_default_scope('mmseg'):
        steps = Compose(
            [
                dict(type='RandomRotate', prob=1.0, degree=2.5, seg_pad_val=0),
                dict(type='RandomCrop', crop_size=(30, 36)),
                dict(type='RandomFlip', prob=1.0),
                dict(type='PackSegInputs'),
            ]
        )
    image = ramp[..., None].repeat(3, 2)
    packed = steps(
        {
            'img': image,
            'gt_depth_map': ramp.astype(np.float32),
            'seg_fields': ['gt_depth_map'],
            'img_path': 'a',
        }
    )
    depth = packed['data_samples'].gt_depth_map.data
    assert depth.shape == (1, 30, 36) and packed['inputs'].shape == (3, 30, 36)
    inside = depth[0] > 0
    assert inside.float().mean() > 0.9
    assert (packed['inputs'][0].float() - depth[0])[inside].abs().mean() < 1.5
