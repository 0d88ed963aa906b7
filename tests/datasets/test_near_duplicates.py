import cv2
import numpy as np
import pytest

from vfd.datasets.near_duplicates import HashIndex, SiftComparison, perceptual_hash
from vfd.errors import BadDataError


def picture(seed, side=96):
    rng = np.random.default_rng(seed)
    image = np.full((side, side, 3), rng.integers(0, 256, 3), np.uint8)
    for _ in range(25):
        corners = rng.integers(0, side, (rng.integers(3, 6), 2)).astype(np.int32)
        cv2.fillPoly(image, [corners], rng.integers(0, 256, 3).tolist())
    return image


def jpeg(image, quality=60):
    return cv2.imdecode(cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def distance(a, b):
    return (perceptual_hash(a) ^ perceptual_hash(b)).bit_count()


def test_hash_of_copies_is_near_and_of_other_pictures_far():
    for seed in range(10):
        image = picture(seed)
        for copy in (
            jpeg(image),
            cv2.resize(image, (61, 70)),
            cv2.convertScaleAbs(image, alpha=0.8, beta=20),
        ):
            assert distance(image, copy) <= 8
        assert distance(image, picture(seed + 100)) > 12
        assert 0 <= perceptual_hash(image) < 2**64


def test_hash_against_the_written_out_cosine_transform():
    gray = cv2.resize(
        cv2.cvtColor(picture(0), cv2.COLOR_BGR2GRAY), (32, 32), interpolation=cv2.INTER_AREA
    ).astype(float)
    n = np.arange(32)
    basis = np.cos(np.pi * np.arange(1, 9)[:, None] * (2 * n + 1) / 64)  # frequencies 1 to 8
    low = (basis @ gray @ basis.T).ravel()
    bits = ''.join('1' if value > np.median(low) else '0' for value in low)
    assert perceptual_hash(picture(0)) == int(bits, 2)


def test_plain_images_have_one_hash():
    hashes = {perceptual_hash(np.full((50, 40, 3), value, np.uint8)) for value in (0, 90, 255)}
    assert hashes == {0}


@pytest.mark.parametrize('max_distance', [0, 1, 8, 20, 63])
def test_index_finds_exactly_what_comparing_all_finds(max_distance):
    rng = np.random.default_rng(max_distance)
    hashes = rng.integers(0, 2**64, 60, dtype=np.uint64)
    for start in range(0, 40, 2):  # neighbours at every distance
        flips = rng.choice(64, size=start // 2, replace=False)
        hashes[start] = hashes[start + 1] ^ np.uint64(sum(1 << int(f) for f in flips))
    index = HashIndex(hashes, max_distance)
    for value in hashes.tolist():
        everything = [((value ^ other).bit_count(), row) for row, other in enumerate(hashes.tolist())]
        assert index.near(value) == sorted(pair for pair in everything if pair[0] <= max_distance)


def test_empty_index():
    assert HashIndex(np.zeros(0, np.uint64), 8).near(5) == []


def test_sift_tells_copies_from_others(tmp_path):
    def save(name, image):
        cv2.imwrite(str(tmp_path / name), image)
        return tmp_path / name

    comparison = SiftComparison(min_matches=12)
    image = picture(1)
    original = save('original.png', image)
    for name, copy in {
        'jpeg.png': jpeg(image),
        'small.png': cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA),
        'cropped.png': image[4:, 6:],
        'bright.png': cv2.convertScaleAbs(image, alpha=0.8, beta=20),
    }.items():
        assert comparison.same(original, save(name, copy)), name
    for seed in range(2, 8):
        assert not comparison.same(original, save(f'{seed}.png', picture(seed)))


def test_plain_images_are_compared_by_their_grey_values(tmp_path):
    for name, value in {'a': 50, 'b': 51, 'c': 120}.items():
        cv2.imwrite(str(tmp_path / f'{name}.png'), np.full((40, 40, 3), value, np.uint8))
    comparison = SiftComparison(min_matches=12)
    assert comparison.same(tmp_path / 'a.png', tmp_path / 'b.png')
    assert not comparison.same(tmp_path / 'a.png', tmp_path / 'c.png')
    with pytest.raises(BadDataError):
        comparison.same(tmp_path / 'a.png', tmp_path / 'absent.png')
