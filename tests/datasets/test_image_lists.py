import logging
import pickle

import cv2
import numpy as np
import pytest
from mmengine.logging import MMLogger

from vfd.datasets import list_images, read_image_list
from vfd.errors import BadDataError, MissingFileError, UserError
from vfd.registry import DATASETS


def save(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((8, 8, 3), value, np.uint8))


@pytest.fixture
def roots(tmp_path):
    for name in ('cat/1.png', 'dog/2.png', 'my dog.png'):
        save(tmp_path / 'labelled' / name, 10)
    for name in ('a.png', 'b.png'):
        save(tmp_path / 'pool' / name, 20)
    (tmp_path / 'train.txt').write_text('# made by hand\n\ncat/1.png 3\ndog/2.png\t1\nmy dog.png 2\n')
    (tmp_path / 'pool.txt').write_text('a.png\nb.png 0\r\n')
    return tmp_path


def list_dataset(**settings):
    return DATASETS.build({'type': 'vfd.ImageListDataset', **settings})


def test_several_lists_with_several_roots(roots):
    dataset = list_dataset(
        ann_file=['train.txt', 'pool.txt'],
        data_root=str(roots),
        data_prefix=['labelled', 'pool'],
        metainfo={'classes': ['a', 'b', 'c', 'd']},
        pipeline=[{'type': 'vfd.LoadImage'}],
    )
    assert [dataset.get_data_info(i)['gt_label'] for i in range(5)] == [3, 1, 2, 0, 0]
    assert [dataset.get_data_info(i)['has_label'] for i in range(5)] == [True, True, True, False, True]
    assert [int(dataset[i]['img'][0, 0, 0]) for i in range(5)] == [10, 10, 10, 20, 20]
    assert dataset[3]['img_path'] == str(roots / 'pool' / 'a.png')
    assert dataset.metainfo['classes'] == ['a', 'b', 'c', 'd']
    assert len(pickle.loads(pickle.dumps(dataset))) == 5


def test_one_list_absolute_paths_and_subset(roots):
    (roots / 'absolute.txt').write_text(f'{roots}/pool/a.png\n{roots}/pool/b.png\n')
    assert list_dataset(ann_file=str(roots / 'absolute.txt'))[1]['img_path'] == str(roots / 'pool' / 'b.png')
    assert (
        len(list_dataset(ann_file=str(roots / 'pool.txt'), data_prefix=str(roots / 'pool'), indices=1)) == 1
    )


def test_lazy_init(roots):
    dataset = list_dataset(ann_file=str(roots / 'absent.txt'), lazy_init=True)
    with pytest.raises(MissingFileError, match=r'absent\.txt'):
        dataset.full_init()


@pytest.mark.parametrize(
    ('line', 'reason'),
    [
        ('cat/1.png three', r'list\.txt:2: expected'),
        ('cat/1.png -1', r'list\.txt:2: expected'),
        ('cat/1.png 1.5', r'list\.txt:2: expected'),
        ('cat/1.png 1 2.5', r'list\.txt:2: expected'),
        ('cat/1.png -1 0.5', r'list\.txt:2: expected'),
        ('12', r'list\.txt:2: expected'),
        ('cat/1.png 4', r'list\.txt:2: there are only 4 classes'),
    ],
)
def test_bad_lines_are_named(tmp_path, line, reason):
    file = tmp_path / 'list.txt'
    file.write_text(f'a.png 1\n{line}\n')
    with pytest.raises(UserError, match=reason):
        read_image_list(str(file), num_classes=4)


def test_byte_order_mark_and_spaces(tmp_path):
    file = tmp_path / 'list.txt'
    file.write_bytes('\ufeffbär 1.jpg  2\n  x y.png  \n'.encode())
    assert read_image_list(str(file)) == [('bär 1.jpg', 2, None), ('x y.png', -1, None)]


def test_mined_lists_have_class_and_score(roots):
    (roots / 'mined.txt').write_text('a.png 3 0.912345\nb.png\t1 1.000000\n1 0.5 x.png 2\n')
    rows = read_image_list(str(roots / 'mined.txt'))
    assert rows == [('a.png', 3, 0.912345), ('b.png', 1, 1.0), ('1 0.5 x.png', 2, None)]
    dataset = list_dataset(ann_file='mined.txt', data_root=str(roots), data_prefix='pool')
    samples = [dataset.get_data_info(i) for i in range(3)]
    assert [s['gt_label'] for s in samples] == [3, 1, 2]
    assert [s['has_label'] for s in samples] == [False, False, True]  # a prediction is no label
    assert [s.get('score') for s in samples] == [0.912345, 1.0, None]
    with pytest.raises(UserError, match=r'mined\.txt:1: there are only 3 classes'):
        read_image_list(str(roots / 'mined.txt'), num_classes=3)


def test_empty_list(tmp_path):
    (tmp_path / 'list.txt').write_text('# nothing\n\n')
    with pytest.raises(UserError, match='names no image'):
        read_image_list(str(tmp_path / 'list.txt'))


def test_wrong_root_is_noticed_at_once(roots):
    with pytest.raises(
        MissingFileError, match=r'labelled/a\.png, the first image of .*pool\.txt.*data_prefix'
    ):
        list_dataset(ann_file=str(roots / 'pool.txt'), data_prefix=str(roots / 'labelled'))
    with pytest.raises(UserError, match='2 ann_file and 3 data_prefix'):
        list_dataset(ann_file=['a', 'b'], data_prefix=['a', 'b', 'c'])


def test_image_that_vanished_is_bad_data(roots):
    dataset = list_dataset(
        ann_file=str(roots / 'pool.txt'),
        data_prefix=str(roots / 'pool'),
        pipeline=[{'type': 'vfd.LoadImage'}],
    )
    (roots / 'pool' / 'b.png').unlink()
    with pytest.raises(BadDataError, match=r'b\.png: no such file'):
        dataset[1]


def test_folder_with_other_files(roots, caplog):
    folder = roots / 'labelled'
    (folder / 'notes.txt').write_text('x')
    (folder / 'cat' / 'Thumbs.db').write_text('x')
    (folder / '.hidden.png').write_text('x')
    logger = MMLogger.get_instance('folder-test')
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.WARNING):
        dataset = DATASETS.build(
            {
                'type': 'vfd.ImageFolderDataset',
                'data_root': str(folder),
                'pipeline': [{'type': 'vfd.LoadImage'}],
            }
        )
    assert [dataset[i]['img_path'] for i in range(len(dataset))] == [
        str(folder / name) for name in ('cat/1.png', 'dog/2.png', 'my dog.png')
    ]
    assert 'gt_label' not in dataset[0]
    assert '3 images; 2 other files skipped, first cat/Thumbs.db' in caplog.text


def test_folder_without_images(tmp_path):
    (tmp_path / 'notes.txt').write_text('x')
    with pytest.raises(UserError, match='has no image: 1 files'):
        list_images(str(tmp_path))
    with pytest.raises(MissingFileError, match='is not there'):
        list_images(str(tmp_path / 'absent'))
