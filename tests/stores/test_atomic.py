import numpy as np
import pytest

from vfd.stores import atomic_path, atomic_write


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_writes_text_and_bytes(tmp_path):
    atomic_write(tmp_path / 'a' / 'text.txt', 'grün\n')
    atomic_write(tmp_path / 'a' / 'data.bin', b'\0\1')
    assert (tmp_path / 'a' / 'text.txt').read_bytes() == 'grün\n'.encode()
    assert names(tmp_path / 'a') == ['data.bin', 'text.txt']


def test_old_file_survives_a_failure(tmp_path):
    target = tmp_path / 'file.txt'
    atomic_write(target, 'old')
    with pytest.raises(OSError, match='disk full'), atomic_path(target) as temporary:
        temporary.write_text('half')
        raise OSError('disk full')
    assert target.read_text() == 'old' and names(tmp_path) == ['file.txt']


def test_old_content_is_there_until_the_end(tmp_path):
    target = tmp_path / 'file.txt'
    atomic_write(target, 'old')
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent
        temporary.write_text('new')
        assert target.read_text() == 'old'
    assert target.read_text() == 'new'


def test_interrupt_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / 'x') as temporary:
        temporary.write_text('half')
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_suffix_is_kept_for_writers_that_look_at_it(tmp_path):
    with atomic_path(tmp_path / 'x.npz') as temporary:
        np.savez(temporary, a=np.arange(3))
    assert np.load(tmp_path / 'x.npz')['a'].tolist() == [0, 1, 2]


def test_nothing_written_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / 'x'):
        pass
