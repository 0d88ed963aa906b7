import io

import cv2
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from PIL import Image

from vfd.datasets import LoadImage, decode_image, read_image
from vfd.errors import BadDataError
from vfd.registry import TRANSFORMS


def photo(height=48, width=64, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 0, 255, cv2.NORM_MINMAX)


RGB = photo()
IMAGE = Image.fromarray(RGB)


def encode(image, kind, **settings):
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def cv2_encode(suffix, pixels):
    return cv2.imencode(suffix, pixels)[1].tobytes()


BLACK = Image.new('RGB', IMAGE.size)
EXIF = Image.Exif()
EXIF[0x0112] = 6  # turn by 90 degrees
HEALTHY = {
    'rgb.jpg': encode(IMAGE, 'JPEG', quality=95),
    'progressive.jpg': encode(IMAGE, 'JPEG', quality=95, progressive=True),
    'cmyk.jpg': encode(IMAGE.convert('CMYK'), 'JPEG', quality=95),
    'gray.jpg': encode(IMAGE.convert('L'), 'JPEG', quality=95),
    'rotated.jpg': encode(IMAGE, 'JPEG', exif=EXIF),
    'rgb.png': encode(IMAGE, 'PNG'),
    'gray.png': encode(IMAGE.convert('L'), 'PNG'),
    'rgba.png': encode(IMAGE.convert('RGBA'), 'PNG'),
    'gray-alpha.png': encode(IMAGE.convert('LA'), 'PNG'),
    'palette.png': encode(IMAGE.quantize(256), 'PNG'),
    'one-bit.png': encode(IMAGE.convert('1'), 'PNG'),
    'color16.png': cv2_encode('.png', RGB[:, :, ::-1].astype(np.uint16) * 257),
    'gray16.png': cv2_encode('.png', RGB[:, :, 0].astype(np.uint16) * 257),
    'gray16.tif': cv2_encode('.tif', RGB[:, :, 0].astype(np.uint16) * 257),
    'gray16.pgm': cv2_encode('.pgm', RGB[:, :, 0].astype(np.uint16) * 257),
    'cmyk.tif': encode(IMAGE.convert('CMYK'), 'TIFF'),
    'rgb.bmp': encode(IMAGE, 'BMP'),
    'rgb.webp': encode(IMAGE, 'WEBP', quality=95),
    'animated.gif': encode(IMAGE, 'GIF', save_all=True, append_images=[BLACK]),
    'animated.webp': encode(IMAGE, 'WEBP', save_all=True, append_images=[BLACK], quality=95),
    'animated.png': encode(IMAGE, 'PNG', save_all=True, append_images=[BLACK]),
    'pages.tif': encode(IMAGE, 'TIFF', save_all=True, append_images=[BLACK]),
}


@pytest.mark.parametrize('name', HEALTHY)
def test_healthy_files_are_read_as_mmcv_reads_them(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(HEALTHY[name])
    ours = LoadImage()({'img_path': str(path)})
    theirs = LoadImageFromFile()({'img_path': str(path)})
    assert ours.keys() == theirs.keys() and ours['img'].dtype == np.uint8 and ours['img'].ndim == 3
    np.testing.assert_array_equal(ours['img'], theirs['img'])
    assert ours['img_shape'] == theirs['img_shape'] and ours['ori_shape'] == theirs['ori_shape']


@pytest.mark.parametrize('name', [n for n in HEALTHY if 'rotated' not in n and 'one-bit' not in n])
def test_content_is_right_whoever_decodes(name):
    gray = 'gray16' in name
    expected = RGB[:, :, [0]].repeat(3, 2) if gray else np.array(IMAGE)
    if name.startswith('gray') and not gray:
        expected = np.array(IMAGE.convert('L').convert('RGB'))
    pixels = decode_image(HEALTHY[name], name)[:, :, ::-1]
    assert np.abs(pixels.astype(int) - expected).mean() < 6, name


def test_16_bit_is_scaled_and_alpha_is_dropped():
    np.testing.assert_array_equal(decode_image(HEALTHY['color16.png'], ''), RGB[:, :, ::-1])
    transparent = np.dstack([RGB, np.zeros(RGB.shape[:2], np.uint8)])
    png = encode(Image.fromarray(transparent), 'PNG')
    np.testing.assert_array_equal(decode_image(png, ''), RGB[:, :, ::-1])


def test_orientation_is_applied():
    assert decode_image(HEALTHY['rotated.jpg'], '').shape == (64, 48, 3)


@pytest.mark.parametrize('kind', ['ICO', 'TGA'])
def test_formats_that_only_pillow_knows(kind):
    image = IMAGE.resize((64, 64))
    expected = np.array(image)[:, :, ::-1]
    pixels = decode_image(encode(image, kind, **({'sizes': [(64, 64)]} if kind == 'ICO' else {})), '')
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize('part', [0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize(
    'name', [n for n in HEALTHY if n not in ('animated.gif', 'animated.webp', 'pages.tif')]
)
def test_truncated_files_are_named(name, part):
    data = HEALTHY[name]
    with pytest.raises(BadDataError, match=f'dir/{name}: .*(truncated|cut|cannot be read)'):
        decode_image(data[: int(len(data) * part)], f'dir/{name}')


def test_truncated_jpeg_with_a_whole_preview_inside():
    preview = encode(IMAGE.resize((16, 12)), 'JPEG')
    segment = b'\xff\xe1' + (len(preview) + 8).to_bytes(2, 'big') + b'Exif\0\0' + preview
    data = HEALTHY['rgb.jpg'][:2] + segment + HEALTHY['rgb.jpg'][2:]
    assert decode_image(data, 'x').shape == (48, 64, 3)
    with pytest.raises(BadDataError, match='truncated'):
        decode_image(data[:-200], 'x')


def test_complete_jpeg_with_bytes_behind_the_end():
    data = HEALTHY['rgb.jpg']
    np.testing.assert_array_equal(decode_image(data + b'\0' * 99, ''), decode_image(data, ''))


def test_jpeg_whose_tail_was_never_written():
    data = HEALTHY['rgb.jpg']
    with pytest.raises(BadDataError, match='truncated'):
        decode_image(data[: len(data) // 2] + bytes(len(data) // 2), 'x')


def test_damaged_png():
    data = bytearray(HEALTHY['rgb.png'])
    data[len(data) // 2] ^= 1
    with pytest.raises(BadDataError, match='damaged'):
        decode_image(bytes(data), 'x.png')


@pytest.mark.parametrize(
    ('data', 'reason'),
    [
        (b'', 'empty'),
        (b'%PDF-1.4 hello', 'not an image'),
        (b'\x89PNG\r\n\x1a\n', 'not an image'),
        (b'\xff\xd8\xff', 'not an image'),
        (cv2_encode('.tif', RGB[:, :, 0].astype(np.float32)), '32 bit'),
        (encode(Image.fromarray(RGB[:, :, 0].astype(np.int32)), 'TIFF'), '32 bit'),
    ],
)
def test_what_is_not_an_image(data, reason):
    with pytest.raises(BadDataError, match=reason) as error:
        decode_image(data, 'dir/x.bin')
    assert 'dir/x.bin' in str(error.value)


@pytest.mark.parametrize('limit', [48 * 64 - 1, 48 * 64 // 3])
def test_images_beyond_the_pixel_limit(limit, monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', limit)
    with pytest.raises(BadDataError, match=r'x.png: too large'):
        decode_image(HEALTHY['rgb.png'], 'x.png')
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 48 * 64)
    decode_image(HEALTHY['rgb.png'], 'x.png')


def test_absent_file_and_folder(tmp_path):
    with pytest.raises(BadDataError, match='no such file'):
        read_image(tmp_path / 'absent.jpg')
    with pytest.raises(BadDataError, match='is a folder'):
        read_image(tmp_path)


def test_transform_is_registered_and_gives_float(tmp_path):
    (tmp_path / 'x.png').write_bytes(HEALTHY['rgb.png'])
    transform = TRANSFORMS.build({'type': 'vfd.LoadImage', 'to_float32': True})
    image = transform({'img_path': str(tmp_path / 'x.png')})['img']
    assert image.dtype == np.float32 and image.max() > 1


def test_random_damage_never_escapes_as_another_error():
    rng = np.random.default_rng(0)
    for name, data in HEALTHY.items():
        for _ in range(6):
            damaged = bytearray(data)
            for position in rng.integers(0, len(data), 8):
                damaged[position] = rng.integers(256)
            try:
                assert decode_image(bytes(damaged), name).ndim == 3
            except BadDataError as error:
                assert name in str(error)
