"""Checkpoint files: complete or absent, and the right one is found again."""

import errno
import os
import signal
from pathlib import Path

import pytest
import torch

from vfd import compat
from vfd.engine.resume import newest_checkpoint, read_checkpoint
from vfd.errors import MissingFileError, UserError


def names(folder):
    """Everything there that belongs to checkpoints."""
    return sorted(path.name for path in folder.iterdir() if '.pth' in path.name or 'last' in path.name)


def test_a_checkpoint_is_plain(toy, tmp_path):
    """It is read without any class being declared, also in the middle of an accumulation."""
    toy.train(tmp_path, length=1, accumulate=4)
    torch.serialization.clear_safe_globals()
    try:
        checkpoint = torch.load(tmp_path / 'iter_6.pth', weights_only=True)
    finally:
        compat.checkpoint_globals.repair()
    assert checkpoint['resume_state']['position']['batch'] == 6
    assert len(checkpoint['resume_state']['ranks'][0]['gradients']) == 4
    assert len(checkpoint['message_hub']['log_scalars']['train/loss']['history']) == 6
    assert checkpoint['meta']['vfd'].keys() == {'version', 'config'}


def fail_at(monkeypatch, name, action):
    """Writing the file ``name`` stops half way."""
    write = Path.write_bytes

    def half(path, data):
        if name in path.name:
            write(path, data[: len(data) // 2])
            action(path)
        return write(path, data)

    monkeypatch.setattr(Path, 'write_bytes', half)


def no_space(path):
    raise OSError(errno.ENOSPC, 'No space left on device', str(path))


def test_disk_full(toy, tmp_path, monkeypatch):
    whole = toy.train(tmp_path / 'whole')
    with monkeypatch.context() as patch:
        fail_at(patch, 'iter_6.pth', no_space)
        with pytest.raises(UserError, match=r'No space left.*last good checkpoint is .*iter_4\.pth'):
            toy.train(tmp_path / 'run', checkpoint={'max_keep_ckpts': 1})
    assert names(tmp_path / 'run') == ['iter_4.pth', 'last_checkpoint']
    rest = toy.train(tmp_path / 'run', resume=True)
    assert min(rest['losses']) == 4
    toy.assert_same(whole['weights'], rest['weights'])


def test_disk_full_at_the_first_checkpoint(toy, tmp_path, monkeypatch):
    fail_at(monkeypatch, 'iter_2.pth', no_space)
    with pytest.raises(UserError, match='There is no earlier checkpoint'):
        toy.train(tmp_path)
    assert names(tmp_path) == []


def test_disk_full_at_the_best_checkpoint(toy, tmp_path, monkeypatch):
    fail_at(monkeypatch, 'best_acc', no_space)
    with pytest.raises(UserError, match=r'last good checkpoint is .*iter_6\.pth'):
        toy.train(tmp_path, checkpoint={'save_best': 'acc', 'rule': 'greater'})


def test_kill_while_saving(toy, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        fail_at(patch, 'iter_6.pth', lambda path: os.kill(os.getpid(), signal.SIGKILL))
        code, _ = toy.run_apart(toy.train, tmp_path / 'out', tmp_path / 'run', length=1)
    assert code == -signal.SIGKILL
    assert any(name.startswith('.') for name in names(tmp_path / 'run'))
    rest = toy.train(tmp_path / 'run', length=1, resume=True)
    assert min(rest['losses']) == 4
    assert names(tmp_path / 'run') == [
        'iter_2.pth',
        'iter_4.pth',
        'iter_6.pth',
        'iter_7.pth',
        'last_checkpoint',
    ]


def test_an_older_checkpoint_goes_only_when_the_newer_is_there(toy, tmp_path, monkeypatch):
    seen = {}
    write = Path.write_bytes

    def watch(path, data):
        seen[path.name] = [name for name in names(tmp_path) if name.startswith('iter')]
        return write(path, data)

    monkeypatch.setattr(Path, 'write_bytes', watch)
    toy.train(tmp_path, length=1, checkpoint={'max_keep_ckpts': 1})
    assert [files for name, files in seen.items() if 'iter_4' in name] == [['iter_2.pth']]
    assert names(tmp_path) == ['iter_7.pth', 'last_checkpoint']


def test_an_older_best_goes_only_when_the_newer_is_there(toy, tmp_path, monkeypatch):
    seen = []
    write = Path.write_bytes

    def watch(path, data):
        if 'best' in path.name:
            seen.append([name for name in names(tmp_path) if name.startswith('best')])
        return write(path, data)

    monkeypatch.setattr(Path, 'write_bytes', watch)
    better = iter([{'acc': 0.1}, {'acc': 0.2}, {'acc': 0.15}])
    monkeypatch.setattr(toy.ToyMetric, 'compute_metrics', lambda self, results: next(better))
    toy.train(tmp_path, checkpoint={'save_best': 'acc', 'rule': 'greater'})
    assert seen == [[], ['best_acc_iter_7.pth']]
    assert [name for name in names(tmp_path) if 'best' in name] == ['best_acc_iter_14.pth']


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    'damage', ['truncated', 'zero bytes', 'pointer empty', 'pointer stale', 'no pointer', 'moved']
)
def test_the_newest_complete_checkpoint_is_found(damage, toy, tmp_path):
    folder = tmp_path / 'run'
    toy.train(folder, length=1, every=3)
    pointer, newest = folder / 'last_checkpoint', folder / 'iter_7.pth'
    expected = 'iter_7.pth'
    if damage == 'truncated':
        truncate(newest)
        expected = 'iter_6.pth'
    elif damage == 'zero bytes':
        newest.write_bytes(b'')
        (folder / 'iter_6.pth').write_bytes(b'PK')
        expected = 'iter_3.pth'
    elif damage == 'pointer empty':
        pointer.write_text('')
    elif damage == 'pointer stale':  # killed between the checkpoint and its pointer
        pointer.write_text(str(folder / 'iter_6.pth'))
        os.utime(pointer, ns=(0, (folder / 'iter_6.pth').stat().st_mtime_ns + 1))
    elif damage == 'no pointer':
        pointer.unlink()
    else:
        folder = folder.rename(tmp_path / 'elsewhere')
    found, passed_over = newest_checkpoint(folder)
    assert found.name == expected
    assert len(passed_over) == {'truncated': 1, 'zero bytes': 2}.get(damage, 0)


def test_a_copied_run_believes_its_pointer(toy, tmp_path):
    toy.train(tmp_path, length=1, every=3)
    pointer = tmp_path / 'last_checkpoint'
    pointer.write_text(str(tmp_path / 'iter_6.pth'))
    for path in (*tmp_path.glob('*.pth'), pointer):
        os.utime(path, ns=(0, 10**18))
    assert newest_checkpoint(tmp_path)[0].name == 'iter_6.pth'


def test_weights_alone_cannot_be_resumed(toy, tmp_path):
    toy.train(tmp_path, length=1, every=3, checkpoint={'save_optimizer': False})
    with pytest.raises(UserError, match=r'no checkpoint in .* can be resumed'):
        toy.train(tmp_path, resume=True)


def test_a_named_checkpoint_has_to_be_complete(toy, tmp_path):
    toy.train(tmp_path, length=1)
    truncate(tmp_path / 'iter_6.pth')
    with pytest.raises(UserError, match=r'iter_6\.pth is incomplete'):
        toy.train(tmp_path, resume=True, load_from=str(tmp_path / 'iter_6.pth'))
    with pytest.raises(MissingFileError, match='iter_99'):
        toy.train(tmp_path, resume=True, load_from=str(tmp_path / 'iter_99.pth'))
    with pytest.raises(MissingFileError, match='iter_99'):
        toy.train(tmp_path, load_from=str(tmp_path / 'iter_99.pth'))


def test_reading_says_what_a_file_is(tmp_path):
    (tmp_path / 'a.pth').write_text('no checkpoint')
    with pytest.raises(UserError, match='incomplete or no checkpoint'):
        read_checkpoint(tmp_path / 'a.pth')


def test_saving_elsewhere(toy, tmp_path):
    """``out_dir`` gets a folder of the run's name; the pointer stays with the run."""
    options = {'checkpoint': {'out_dir': str(tmp_path / 'big')}}
    whole = toy.train(tmp_path / 'run', **options)
    assert (tmp_path / 'big' / 'run' / 'iter_21.pth').exists()
    (tmp_path / 'big' / 'run' / 'iter_21.pth').unlink()
    (tmp_path / 'run' / 'last_checkpoint').write_text(str(tmp_path / 'big' / 'run' / 'iter_20.pth'))
    rest = toy.train(tmp_path / 'run', resume=True, **options)
    assert list(rest['losses']) == [20]
    toy.assert_same(whole['weights'], rest['weights'])
