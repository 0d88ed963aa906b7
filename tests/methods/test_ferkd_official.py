"""Released layouts: FKD's file an image, SRe2L's file a batch. Nothing in such a file is run."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from ferkd_store import CLASSES, make_images, make_store
from PIL import Image

from vfd.errors import MissingFileError, UserError
from vfd.methods.ferkd import (
    batches_to_store,
    calibrate_store,
    official_to_store,
    store_to_batches,
    store_to_official,
)
from vfd.methods.ferkd.batch_records import replayed_mix
from vfd.methods.ferkd.core import boxes_to_fractions
from vfd.methods.ferkd.crops import cut_crop
from vfd.offline.convert import convert
from vfd.offline.verify import verify_store
from vfd.stores import LabelStore, Store, merge, verify_labels


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp('official')
    names = make_images(root / 'images')
    store = make_store(root / 'store', root / 'images', names)
    store_to_official(store, root / 'files')
    return root


def load(path: Path) -> list:
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize(
    'label_type', ['ori', 'hard', 'smoothing', 'marginal_smoothing_k5', 'marginal_renorm_k3']
)
def test_round_trip(tmp_path, made, label_type):
    images = made / 'images'
    names = LabelStore(made / 'store').names
    make_store(tmp_path / 'store', images, names, label_type=label_type)
    assert store_to_official(tmp_path / 'store', tmp_path / 'files') == len(names)
    coords, flips, labels = load(tmp_path / 'files/class2/2.tar')
    assert coords.dtype == torch.float32 and coords.shape == (8, 4) and flips.dtype == torch.bool
    assert labels.shape[0] == 8
    given = label_type if 'renorm' in label_type else None
    assert official_to_store(tmp_path / 'files', images, tmp_path / 'again', CLASSES, given) == []
    ours, again = LabelStore(tmp_path / 'store'), LabelStore(tmp_path / 'again')
    assert again.label_type == label_type and set(again.names) == set(names)
    for name in names:
        first, second = (store.image(store.index_of(name)) for store in (ours, again))
        assert first.size == second.size and first.file == second.file
        assert second.ground_truth == sorted({n.split('/')[0] for n in names}).index(name.split('/')[0])
        for field in ('boxes', 'flip', 'labels'):
            np.testing.assert_array_equal(getattr(first.crops, field), getattr(second.crops, field))
    store_to_official(tmp_path / 'again', tmp_path / 'files2')
    for path in (tmp_path / 'files').rglob('*.tar'):
        for one, other in zip(
            load(path), load(tmp_path / 'files2' / path.relative_to(tmp_path / 'files')), strict=True
        ):
            assert torch.equal(one, other)


def test_calibrated_store_becomes_files_with_fewer_rows_and_back(tmp_path, made):
    calibrate_store(made / 'store', tmp_path / 'new', dict(thresholds=(0.3, 0.5, 0.7)))
    baked = LabelStore(tmp_path / 'new')
    store_to_official(tmp_path / 'new', tmp_path / 'files')
    official_to_store(tmp_path / 'files', made / 'images', tmp_path / 'again', CLASSES)
    again = LabelStore(tmp_path / 'again')
    rows = [len(baked.kept(i)) for i in range(len(baked))]
    assert again.calibrated and again.crops == max(rows) and min(rows) < max(rows)
    assert verify_labels(tmp_path / 'again') == []
    for index, name in enumerate(baked.names):
        other = again.index_of(name)
        np.testing.assert_array_equal(again.kept(other), np.arange(rows[index]))
        ours, theirs = baked.read(index, baked.kept(index)), again.read(other, again.kept(other))
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        np.testing.assert_array_equal(ours.boxes, theirs.boxes)


def test_files_of_another_store_are_not_kept(tmp_path, made):
    """An interrupted conversion of the same store goes on; of another one it is refused, were it of the same images."""
    for name, low in (('one', 0.3), ('other', 0.4)):
        calibrate_store(made / 'store', tmp_path / name, dict(thresholds=(low, 0.5, 0.7)))
    store_to_official(tmp_path / 'one', tmp_path / 'files')
    gone = tmp_path / 'files/class1/1.tar'
    content = gone.read_bytes()
    gone.unlink()
    store_to_official(tmp_path / 'one', tmp_path / 'files')
    assert gone.read_bytes() == content
    with pytest.raises(
        UserError, match=r'begun with other inputs:\n  store.calibration.low: was 0.3, is 0.4'
    ):
        store_to_official(tmp_path / 'other', tmp_path / 'files')
    (tmp_path / 'files/made-of.json').unlink()
    with pytest.raises(UserError, match=r'choose another folder'):
        store_to_official(tmp_path / 'one', tmp_path / 'files')
    merge(tmp_path / 'one')  # the same records
    store_to_official(tmp_path / 'one', tmp_path / 'again')
    assert (tmp_path / 'again/class1/1.tar').read_bytes() == content


def test_lists_and_arrays_of_older_files_are_read(tmp_path, made):
    coords, flips, labels = load(made / 'files/class1/1.tar')
    path = tmp_path / 'files/class1/1.tar'
    path.parent.mkdir(parents=True)
    torch.save([list(coords.unbind()), flips.tolist(), labels.numpy()], path)
    left_out = official_to_store(tmp_path / 'files', made / 'images', tmp_path / 'store', CLASSES)
    assert len(left_out) == 5 and left_out[0] == 'class0/0.png: no label file'
    np.testing.assert_array_equal(LabelStore(tmp_path / 'store').read(0).labels, labels)


class Evil:
    def __reduce__(self):
        return (print, ('code of the file ran',))


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (lambda c, f, v: Evil(), r'1.tar .*could run code'),
        (lambda c, f, v: [c, f], r'1.tar holds 2 entries; expected the list'),
        (lambda c, f, v: [c[:3], f, v], r'1.tar: coords \(3, 4\), flip \(8,\)'),
        (lambda c, f, v: [c, f, v[:, :, :0]], r'1.tar: label type'),
        (lambda c, f, v: [c, f, v + 7], r'1.tar: crop \d: class \d\d, there are classes 0 to 9'),
        (
            lambda c, f, v: [c + torch.tensor([0, 0.9, 0, 0.9]), f, v],
            r'1.tar, row 0: the box .* leaves the image',
        ),
        (lambda c, f, v: [c, f, (v + 5000).half()], r'1.tar: class ids above 2048 as half floats'),
    ],
)
def test_files_that_are_refused(tmp_path, made, capsys, content, message):
    path = tmp_path / 'files/class1/1.tar'
    path.parent.mkdir(parents=True)
    torch.save(content(*load(made / 'files/class1/1.tar')), path)
    with pytest.raises(UserError, match=message):
        official_to_store(tmp_path / 'files', made / 'images', tmp_path / 'store', CLASSES)
    assert 'code of the file ran' not in capsys.readouterr().out


def test_wrong_classes_and_folders(tmp_path, made):
    with pytest.raises(UserError, match=r'6 folders .*there are 4 classes'):
        official_to_store(made / 'files', made / 'images', tmp_path / 'store', 4)
    with pytest.raises(UserError, match=r'0\.tar: label type .*names 11 classes, there are only 10'):
        official_to_store(
            made / 'files', made / 'images', tmp_path / 'store', CLASSES, 'marginal_smoothing_k11'
        )
    with pytest.raises(UserError, match='there are classes 0 to 5'):
        official_to_store(made / 'files', made / 'images', tmp_path / 'store', 6)
    with pytest.raises(MissingFileError, match='has no file for any of the 6 images'):
        official_to_store(made / 'images', made / 'images', tmp_path / 'store', CLASSES)


def test_ground_truth_is_the_number_of_the_class_folder(tmp_path, made):
    shutil.copytree(made / 'images', tmp_path / 'images')
    for none in ('.thumbnails/0.png', 'loose.png'):
        (tmp_path / 'images' / none).parent.mkdir(exist_ok=True)
        shutil.copy(made / 'images/class0/0.png', tmp_path / 'images' / none)
    (tmp_path / 'images/class3/3.png').unlink()  # an empty class is a class
    shutil.copytree(made / 'files', tmp_path / 'files')
    shutil.copy(made / 'files/class0/0.tar', tmp_path / 'files/loose.tar')
    official_to_store(tmp_path / 'files', tmp_path / 'images', tmp_path / 'store', CLASSES)
    store = LabelStore(tmp_path / 'store')
    truths = {name: store.ground_truth(i) for i, name in enumerate(store.names)}
    assert truths == {f'class{i}/{i}.png': i for i in (0, 1, 2, 4, 5)} | {'loose.png': -1}
    shutil.copy(tmp_path / 'images/class1/1.png', tmp_path / 'images/class1/1.jpg')
    with pytest.raises(UserError, match=r'class1/1\.jpg and class1/1\.png differ in their suffix alone'):
        official_to_store(tmp_path / 'files', tmp_path / 'images', tmp_path / 'two', CLASSES)
    (tmp_path / 'images/class1/1.jpg').unlink()
    (tmp_path / 'root').mkdir()
    (tmp_path / 'labels').mkdir()
    (tmp_path / 'images').rename(tmp_path / 'root/train')
    (tmp_path / 'files').rename(tmp_path / 'labels/train')
    with pytest.raises(UserError, match='deeper than a class folder'):
        official_to_store(tmp_path / 'labels', tmp_path / 'root', tmp_path / 'deep', CLASSES)


def test_an_image_that_is_gone_is_left_out(tmp_path, made):
    (tmp_path / 'images/class1').mkdir(parents=True)
    picture = (made / 'images/class1/1.png').read_bytes()
    (tmp_path / 'images/class1/1.png').write_bytes(picture)
    (tmp_path / 'images/class1/2.png').write_bytes(picture[:-40])
    (tmp_path / 'files/class1').mkdir(parents=True)
    for name in ('1', '2'):
        (tmp_path / f'files/class1/{name}.tar').write_bytes((made / 'files/class1/1.tar').read_bytes())
    text = convert(
        'from-official', str(tmp_path / 'files'), str(tmp_path / 'store'),
        images=str(tmp_path / 'images'), classes=CLASSES,
    )  # fmt: skip
    assert '2.png: cannot be decoded' in text and '1 images left out' in text
    assert len(LabelStore(tmp_path / 'store')) == 1


def batch(rows: int, mixed: str, seed: int = 0) -> list:
    generator = torch.Generator().manual_seed(seed)
    index = torch.randperm(rows, generator=generator) if mixed else None
    return [
        torch.rand(rows, 4, generator=generator),
        torch.rand(rows, generator=generator) < 0.5,
        index,
        0.3 if mixed else None,
        [1, 2, 5, 6] if mixed == 'cutmix' else [],
        torch.randn(rows, 7, generator=generator),
    ]


def test_batch_records_round_trip(tmp_path):
    first, second = 'epoch_0/batch_0.tar', 'epoch_0/batch_1.tar'
    contents = {first: batch(6, 'cutmix'), second: batch(4, 'mixup'), 'x.tar': batch(6, '')}
    for name, content in contents.items():
        (tmp_path / 'files' / name).parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, tmp_path / 'files' / name)
    assert batches_to_store(tmp_path / 'files', tmp_path / 'store') == 3
    for _ in range(2):
        assert store_to_batches(tmp_path / 'store', tmp_path / 'again') == 3
    (tmp_path / 'files/x.tar').rename(tmp_path / 'files/y.tar')
    batches_to_store(tmp_path / 'files', tmp_path / 'store2')
    with pytest.raises(UserError, match=r'(?s)begun with other inputs.*records: was'):
        store_to_batches(tmp_path / 'store2', tmp_path / 'again')
    for name, content in contents.items():
        for one, other in zip(load(tmp_path / 'again' / name), content, strict=True):
            assert torch.equal(one, other) if isinstance(other, torch.Tensor) else one == other
    assert verify_store(str(tmp_path / 'store')) == []
    store = Store(tmp_path / 'store')
    images = torch.rand(6, 3, 8, 8)
    mix = replayed_mix(store[first])
    wanted = images.clone()
    wanted[:, :, 1:5, 2:6] = images[contents[first][2], :, 1:5, 2:6]
    assert torch.equal(mix.images(images), wanted)
    assert len(replayed_mix(store[second]).partner) == 4
    assert replayed_mix(store['x.tar']) is None


def test_batch_records_that_are_refused(tmp_path):
    (tmp_path / 'files').mkdir()
    with pytest.raises(MissingFileError, match='no batch record'):
        batches_to_store(tmp_path / 'files', tmp_path / 'store')
    file = tmp_path / 'files/0.tar'
    for change, message in (
        (lambda b: b[:4], 'expected the list'),
        (lambda b: [b[0][:2], *b[1:]], 'do not fit together'),
        (lambda b: [*b[:2], b[2] + 3, *b[3:]], 'leaves the batch of 6 rows'),
        (lambda b: [*b[:4], [1, 2], b[5]], 'mix_bbox'),
    ):
        torch.save(change(batch(6, 'cutmix')), file)
        with pytest.raises(UserError, match=message):
            batches_to_store(tmp_path / 'files', tmp_path / 'store')
    file.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UserError):
        batches_to_store(tmp_path / 'files', tmp_path / 'store')


def test_fractions_as_half_floats_are_read_as_pillow_reads_them(tmp_path):
    """In large images they move edges, some of them out of the image: what training sees is what it always saw."""
    rng = np.random.default_rng(0)
    size = (64, 4100)
    (tmp_path / 'images/a').mkdir(parents=True)
    image = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    image.save(tmp_path / 'images/a/0.jpg')
    corner = rng.integers(0, (54, 4090), (300, 2))
    boxes = np.concatenate([corner, np.array(size) - corner], axis=1)  # all end at the image's edge
    coords = torch.from_numpy(boxes_to_fractions(boxes, size)).half()
    (tmp_path / 'files/a').mkdir(parents=True)
    labels = torch.tensor([[3.0], [0.5]]).repeat(300, 1, 1)
    torch.save([coords, torch.zeros(300, dtype=torch.bool), labels], tmp_path / 'files/a/0.tar')
    assert official_to_store(tmp_path / 'files', tmp_path / 'images', tmp_path / 'store', CLASSES) == []
    stored = LabelStore(tmp_path / 'store').read(0).boxes
    moved = (stored != boxes).any(axis=1)
    assert 0 < moved.mean() < 1 and (stored[:, 1] + stored[:, 3]).max() > 4100
    for row in np.flatnonzero(moved)[:5]:
        top, left, height, width = (
            float(v) * s for v, s in zip(coords[row].float(), (*size, *size), strict=True)
        )
        crop = image.crop((left, top, left + width, top + height)).resize((16, 16), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(cut_crop(image, stored[row], False, 16, 'bilinear'), np.asarray(crop))
    assert verify_labels(tmp_path / 'store') == []
