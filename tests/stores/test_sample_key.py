from types import SimpleNamespace

import pytest
from mmengine.structures import BaseDataElement

from vfd.errors import UserError
from vfd.stores.sample_key import common_folder, find_key, sample_key


@pytest.mark.parametrize(
    ('sample', 'root', 'key'),
    [
        ({'img_path': 'data/set/a/1.png'}, 'data/set', 'a/1.png'),
        ({'img_path': 'data/set/a/1.png'}, 'data/set/', 'a/1.png'),
        ({'img_path': 'data/./set/b/../a/1.png'}, 'data/set', 'a/1.png'),
        ({'img_path': '/abs/set/1.png'}, '/abs/set', '1.png'),
        (
            {'img_path': '/abs/setting/1.png'},
            '/abs/set',
            '/abs/setting/1.png',
        ),  # a name that only begins alike
        ({'img_path': 'elsewhere/1.png'}, 'data/set', 'elsewhere/1.png'),
        ({'img_path': 'data/set/1.png'}, '', 'data/set/1.png'),
        ({'img_path': 's3://bucket/set/a/1.png'}, 's3://bucket/set', 'a/1.png'),
        ({'path': 'clouds/7.bin'}, 'clouds', '7.bin'),
        ({'sample_key': 'scene-1/frame-7', 'img_path': 'data/set/1.png'}, 'data/set', 'scene-1/frame-7'),
        ({'sample_key': 7}, '', '7'),
    ],
)
def test_keys(sample, root, key):
    assert sample_key(sample, root) == key
    assert sample_key(BaseDataElement(metainfo=sample), root) == key


def test_symbolic_links_are_not_resolved(tmp_path):
    (tmp_path / 'disk').mkdir()
    (tmp_path / 'disk' / '1.png').touch()
    (tmp_path / 'set').mkdir()
    (tmp_path / 'set/cat').symlink_to(tmp_path / 'disk')
    assert sample_key({'img_path': tmp_path / 'set/cat/1.png'}, tmp_path / 'set') == 'cat/1.png'


def test_a_sample_without_a_key():
    assert find_key({'label': 1}) is None and find_key(SimpleNamespace()) is None
    with pytest.raises(UserError) as error:
        sample_key({'label': 1})
    assert all(fact in str(error.value) for fact in ('sample_key', 'img_path', 'meta_keys'))


def test_the_common_folder():
    assert common_folder(['/a/b/1.png', '/a/c/2.png']) == '/a'
    assert common_folder(['/a/b/1.png']) == '/a/b'
    assert common_folder([]) == common_folder(['s3://a/b', 's3://a/c']) == ''
