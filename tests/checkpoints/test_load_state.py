"""Every format and layout is read, and every bad file is one clear error."""

import argparse
import json
import os
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vfd import compat
from vfd.checkpoints import file_sha256, load_state
from vfd.errors import MissingFileError, UserError


def small_state():
    return {'fc.weight': torch.arange(6.0).reshape(2, 3), 'fc.bias': torch.tensor([1.0, 2.0])}


class Runs:
    """Pickles to a call of os.system."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize('name', ['a.pth', 'a.pt', 'a.th', 'a.bin', 'a.tar', 'no_suffix'])
@pytest.mark.parametrize('zip_format', [True, False])
def test_torch_files(tmp_path, name, zip_format):
    torch.save(small_state(), tmp_path / name, _use_new_zipfile_serialization=zip_format)
    loaded = load_state(tmp_path / name)
    assert loaded.state.keys() == small_state().keys()
    assert torch.equal(loaded.state['fc.weight'], small_state()['fc.weight'])
    assert loaded.sha256 == file_sha256(tmp_path / name) and loaded.layout == 'plain'


def test_format_is_told_by_content(tmp_path):
    save_file(small_state(), tmp_path / 'disguised.pth')
    assert torch.equal(load_state(tmp_path / 'disguised.pth').state['fc.bias'], small_state()['fc.bias'])


def test_safetensors_metadata(tmp_path):
    meta = {'format': 'pt', 'vfd': json.dumps({'config': 'a.py'})}
    save_file(small_state(), tmp_path / 'a.safetensors', metadata=meta)
    loaded = load_state(tmp_path / 'a.safetensors')
    assert loaded.meta == {'format': 'pt', 'vfd': {'config': 'a.py'}} and loaded.layout == 'vfd'


def test_npz(tmp_path):
    np.savez(tmp_path / 'a.npz', **{k: v.numpy() for k, v in small_state().items()})
    assert torch.equal(load_state(tmp_path / 'a.npz').state['fc.weight'], small_state()['fc.weight'])


def test_npz_with_objects_is_refused(tmp_path):
    np.savez(tmp_path / 'a.npz', a=np.array([{'x': 1}], dtype=object))
    with pytest.raises(UserError, match='Python objects'):
        load_state(tmp_path / 'a.npz')


def test_pdparams(tmp_path):
    content = {
        'conv.weight': np.ones((2, 3), 'f4'),
        'bn._mean': np.zeros(2, 'f4'),
        'bn._variance': np.ones(2, 'f4'),
    }
    content['StructuredToParameterName@@'] = {'conv.weight': 'conv2d_0.w_0'}
    content['bn.weight'] = ('batch_norm_0.w_0', np.full(2, 3.0, 'f4'))
    for protocol in (2, 4, 5):
        (tmp_path / 'a.pdparams').write_bytes(pickle.dumps(content, protocol))
        loaded = load_state(tmp_path / 'a.pdparams')
        assert loaded.layout == 'paddle'
        assert set(loaded.state) == {'conv.weight', 'bn.running_mean', 'bn.running_var', 'bn.weight'}
        assert loaded.state['bn.weight'].tolist() == [3.0, 3.0]


@pytest.mark.parametrize(
    ('wrap', 'container'),
    [
        (lambda s: {'state_dict': s, 'epoch': 3}, 'state_dict'),
        (lambda s: {'model': s, 'optimizer': {'state': {0: {'exp': torch.ones(2)}}}}, 'model'),
        (lambda s: {'model': {'state_dict': s}}, 'model.state_dict'),
        (lambda s: {'state_dict': {k: v * 0 for k, v in s.items()}, 'state_dict_ema': s}, 'state_dict_ema'),
        (lambda s: {'state_dict': {f'module.{k}': v for k, v in s.items()}}, 'state_dict'),
        (lambda s: {'model_state': {f'module._orig_mod.{k}': v for k, v in s.items()}}, 'model_state'),
        (lambda s: OrderedDict((k, nn.Parameter(v)) for k, v in s.items()), ''),
    ],
)
def test_containers_and_wrappers(tmp_path, wrap, container):
    torch.save(wrap(small_state()), tmp_path / 'a.pth')
    loaded = load_state(tmp_path / 'a.pth')
    assert loaded.container == container
    assert loaded.state.keys() == small_state().keys()
    assert torch.equal(loaded.state['fc.weight'], small_state()['fc.weight'])
    assert not loaded.state['fc.weight'].requires_grad


def test_several_networks_keep_their_names(tmp_path):
    wrapped = {f'module.{k}': v for k, v in small_state().items()}
    torch.save({'student': wrapped, 'teacher': small_state(), 'epoch': 1}, tmp_path / 'a.pth')
    loaded = load_state(tmp_path / 'a.pth')
    assert set(loaded.state) == {
        f'{who}.fc.{what}' for who in ('student', 'teacher') for what in ('weight', 'bias')
    }


def test_namespace_and_numpy_beside_the_weights(tmp_path):
    extra = {'args': argparse.Namespace(lr=0.1), 'best': np.float64(0.5), 'seen': np.arange(3), 'epoch': 7}
    torch.save({'model': small_state(), **extra}, tmp_path / 'a.pth')
    loaded = load_state(tmp_path / 'a.pth')
    assert loaded.meta['args'] == {'lr': 0.1} and loaded.meta['epoch'] == 7


def test_mmengine_checkpoint_with_history(tmp_path):
    history = pytest.importorskip('mmengine.logging.history_buffer')
    buffer = history.HistoryBuffer([1.0, 2.0], [1, 1])
    meta = {'mmengine_version': '0.10.7', 'epoch': 2, 'vfd': {'teacher': {'name': 'random'}}}
    content = {'state_dict': small_state(), 'meta': meta, 'message_hub': {'log_scalars': {'loss': buffer}}}
    torch.save(content, tmp_path / 'a.pth')
    loaded = load_state(tmp_path / 'a.pth')
    assert loaded.layout == 'vfd' and loaded.meta['vfd']['teacher']['name'] == 'random'


def test_reading_leaves_torchs_own_list_alone(tmp_path):
    torch.save({'model': small_state(), 'args': argparse.Namespace(lr=0.1)}, tmp_path / 'a.pth')
    load_state(tmp_path / 'a.pth')
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / 'a.pth', weights_only=True)


@pytest.mark.parametrize('name', ['evil.pth', 'evil_legacy.pth', 'evil.pdparams'])
def test_pickled_code_never_runs(tmp_path, name):
    flag = tmp_path / 'ran'
    content = {'state_dict': small_state(), 'extra': Runs(f'touch {flag}')}
    if name.endswith('.pdparams'):
        content['state_dict'] = {k: v.numpy() for k, v in small_state().items()}
        (tmp_path / name).write_bytes(pickle.dumps(content))
    else:
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization='legacy' not in name)
    with pytest.raises(UserError, match=r'(posix|nt)\.system.*trust=True'):
        load_state(tmp_path / name)
    assert not flag.exists()
    load_state(tmp_path / name, trust=True)  # the payload is live: only the reader held it back
    assert flag.exists()


def test_pickled_code_behind_getattr(tmp_path):
    pytest.importorskip('mmengine')

    class Sneaky:
        def __reduce__(self):
            return getattr, (np.ndarray, 'tofile')

    torch.save({'state_dict': small_state(), 'mmengine': 1, 'x': Sneaky()}, tmp_path / 'a.pth')
    with pytest.raises(UserError, match='getattr'):
        load_state(tmp_path / 'a.pth')


def test_bad_files(tmp_path):
    good = tmp_path / 'good.pth'
    torch.save(small_state(), good)
    whole = good.read_bytes()
    save_file(small_state(), tmp_path / 'good.safetensors')
    safe = (tmp_path / 'good.safetensors').read_bytes()
    torch.save(small_state(), tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    old = (tmp_path / 'old.pth').read_bytes()
    np.savez(tmp_path / 'good.npz', a=np.arange(1000))
    arrays = (tmp_path / 'good.npz').read_bytes()
    paddle = pickle.dumps({'a': np.arange(1000)})
    cases = {
        'empty.pth': (b'', 'empty'),
        'half.pth': (whole[: len(whole) // 2], 'truncated'),
        'half_old.pth': (old[: len(old) - 20], 'truncated'),
        'half.safetensors': (safe[:-5], 'truncated'),
        'head.safetensors': (safe[:20], 'truncated'),
        'half.npz': (arrays[: len(arrays) // 2], 'truncated'),
        'half.pdparams': (paddle[: len(paddle) // 2], 'truncated'),
        'lfs.pth': (b'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n', 'git lfs pull'),
        'page.pth': (b'\n<!DOCTYPE html><html>404</html>', 'web page'),
        'text.pth': (b'hello, world, this is text', 'not a known format'),
        'empty_dict.pdparams': (pickle.dumps({}), 'no named tensors'),
    }
    for name, (data, words) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=words) as caught:
            load_state(tmp_path / name)
        assert name in str(caught.value), name


def test_corrupted_middle(tmp_path):
    torch.save({'w': torch.ones(5000)}, tmp_path / 'a.pth')
    data = bytearray((tmp_path / 'a.pth').read_bytes())
    with zipfile.ZipFile(tmp_path / 'a.pth') as archive:
        start = next(i.header_offset for i in archive.infolist() if i.filename.endswith('data.pkl'))
    data[start + 60 : start + 90] = b'\0' * 30
    (tmp_path / 'a.pth').write_bytes(data)
    with pytest.raises(UserError):
        load_state(tmp_path / 'a.pth')


def test_absent_folder_and_nothing_inside(tmp_path):
    torch.save(small_state(), tmp_path / 'best.pth')
    with pytest.raises(MissingFileError, match=r'best\.pth'):
        load_state(tmp_path / 'last.pth')
    with pytest.raises(UserError, match=r'is a folder.*best\.pth'):
        load_state(tmp_path)
    torch.save({'epoch': 3}, tmp_path / 'none.pth')
    with pytest.raises(UserError, match=r'no named tensors \(found: epoch\)'):
        load_state(tmp_path / 'none.pth')


def test_torchscript_is_explained(tmp_path):
    torch.jit.save(torch.jit.trace(nn.Linear(3, 2), torch.ones(1, 3)), tmp_path / 'a.pt')
    with pytest.raises(UserError, match='TorchScript'):
        load_state(tmp_path / 'a.pt')


def test_zip_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
        archive.writestr('readme.txt', 'hi')
    with pytest.raises(UserError, match='zip archive'):
        load_state(tmp_path / 'a.zip')


def test_flipped_bytes_give_one_clear_error(tmp_path):
    """Whatever a damaged file makes the parsers raise, the user reads a UserError, or harmless values."""
    torch.save({'state_dict': small_state()}, tmp_path / 'zip')
    torch.save(small_state(), tmp_path / 'old', _use_new_zipfile_serialization=False)
    save_file(small_state(), tmp_path / 'safe')
    np.savez(tmp_path / 'n.npz', a=np.arange(9))
    (tmp_path / 'pickle').write_bytes(pickle.dumps({k: v.numpy() for k, v in small_state().items()}))
    rng = np.random.default_rng(0)
    refused = 0
    for name in ('zip', 'old', 'safe', 'n.npz', 'pickle'):
        whole = np.frombuffer((tmp_path / name).read_bytes(), np.uint8)
        for _ in range(60):
            damaged = whole.copy()
            damaged[rng.integers(0, len(whole), 6)] = rng.integers(0, 256, 6)
            (tmp_path / 'damaged').write_bytes(damaged.tobytes())
            try:
                load_state(tmp_path / 'damaged')
            except UserError:
                refused += 1
    assert refused > 150


def test_reading_leaves_the_declarations_of_others(tmp_path):
    """mmengine's own checkpoints still load after a foreign file was read."""
    compat.install()
    before = set(torch.serialization.get_safe_globals())
    torch.save({'state_dict': {'w': torch.ones(1)}}, tmp_path / 'a.pth')
    load_state(tmp_path / 'a.pth')
    assert set(torch.serialization.get_safe_globals()) == before
