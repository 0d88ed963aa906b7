import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
import torch

from vfd.datasets import read_image, read_image_list
from vfd.datasets.image_scan import central_crop
from vfd.errors import MissingFileError, UserError
from vfd.offline import mine as mining
from vfd.offline.mine import MiningSettings, mine_unlabeled, teacher_config, verify_mining
from vfd.registry import MODELS
from vfd.stores import Store

ROOT = Path(__file__).parents[2]
CLASSES = 4


def picture(seed, side=96):
    """A picture with shapes in it: something for hashes and key points to hold on to."""
    rng = np.random.default_rng(seed)
    image = np.full((side, side, 3), rng.integers(0, 256, 3), np.uint8)
    for _ in range(25):
        corners = rng.integers(0, side, (rng.integers(3, 6), 2)).astype(np.int32)
        cv2.fillPoly(image, [corners], rng.integers(0, 256, 3).tolist())
    return image


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """12 + 6 pictures, three of the pool's copied from the validation set; a list; a tiny network's weights."""
    root = tmp_path_factory.mktemp('mining')
    for folder in ('pool/a', 'pool/b', 'val'):
        (root / folder).mkdir(parents=True)
    for i in range(30):
        cv2.imwrite(str(root / 'pool' / 'ab'[i % 2] / f'{i:02}.png'), picture(i))
    for i in range(6):
        cv2.imwrite(str(root / f'val/{i}.jpg'), picture(100 + i))
    copies = root / 'pool' / 'b'
    cv2.imwrite(str(copies / 'copy-same.png'), read_image(root / 'val/0.jpg'))
    cv2.imwrite(str(copies / 'copy-small.jpg'), cv2.resize(read_image(root / 'val/1.jpg'), (64, 64)))
    brighter = cv2.convertScaleAbs(read_image(root / 'val/2.jpg')[2:, 2:], alpha=0.8, beta=25)
    cv2.imwrite(str(copies / 'copy-bright.png'), brighter)
    (root / 'pool/a/empty.jpg').write_bytes(b'')
    (root / 'pool/a/cut.jpg').write_bytes((root / 'val/3.jpg').read_bytes()[:-100])
    (root / 'pool/a/readme.txt').write_text('not an image')
    torch.manual_seed(0)
    network = timm.create_model('test_resnet', num_classes=CLASSES)
    classifier = network.get_classifier()  # is set so that all classes are predicted
    torch.nn.init.normal_(classifier.weight, std=3.0)
    pixels = np.stack([central_crop(picture(i), 64, 0.875)[:, :, ::-1] for i in range(30)])
    mean, std = (np.array(network.pretrained_cfg[name]) for name in ('mean', 'std'))
    images = torch.from_numpy((pixels / 255 - mean) / std).float().permute(0, 3, 1, 2)
    with torch.no_grad():
        classifier.bias -= network.eval()(images).mean(0)
    torch.save(network.state_dict(), root / 'teacher.pth')
    return root


@pytest.fixture
def teacher(data):
    return teacher_config(None, 'test_resnet', str(data / 'teacher.pth'), CLASSES)


@pytest.fixture
def settings(data, tmp_path):
    return MiningSettings(
        images=str(data / 'pool'),
        out=str(tmp_path / 'out/list.txt'),
        k=3,
        exclude=str(data / 'val'),
        input_size=64,
        batch_size=8,
        workers=0,
        device='cpu',
    )


def expected_ranking(data, teacher, removed, k):
    """The whole job once more, plainly: one image at a time, sorting instead of heaps."""
    network = MODELS.build(teacher)
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in (network.normalization.mean, network.normalization.std)
    )
    names = sorted(str(p.relative_to(data / 'pool')) for p in (data / 'pool').rglob('*') if p.suffix)
    rows = []
    for index, name in enumerate(names):
        if name in removed or name.endswith('.txt'):
            continue
        rgb = central_crop(read_image(data / 'pool' / name), 64, 0.875)[:, :, ::-1].copy()
        logits = network((torch.from_numpy(rgb).permute(2, 0, 1)[None] - mean) / std)['logits'][0]
        probability, predicted = logits.softmax(0).max(0)
        rows.append((int(predicted), -float(probability), index, name))
    rows.sort()
    return [[(row[3], -row[1]) for row in rows if row[0] == c][:k] for c in range(CLASSES)]


def content(path):
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(Path(path).rglob('*')) if p.is_file()}


COPIES = {'b/copy-same.png', 'b/copy-small.jpg', 'b/copy-bright.png'}
BAD = {'a/empty.jpg', 'a/cut.jpg'}


def test_end_to_end(data, teacher, settings, capsys):
    report = mine_unlabeled(teacher, settings)
    expected = expected_ranking(data, teacher, COPIES | BAD, settings.k)
    assert sum(bool(names) for names in expected) >= 3
    written = read_image_list(settings.out)
    assert [(row.path, row.label) for row in written] == [
        (name, c) for c, names in enumerate(expected) for name, _ in names
    ]
    scores = [score for names in expected for _, score in names]
    np.testing.assert_allclose([row.score for row in written], scores, atol=2e-6)
    assert report['selected_of_class'] == [len(names) for names in expected]
    assert report == json.loads(settings.report_path.read_text())
    pool, val = data / 'pool', data / 'val'
    assert {copy['image']: copy['copy_of'] for copy in report['removed_copies']} == {
        str(pool / 'b/copy-same.png'): str(val / '0.jpg'),
        str(pool / 'b/copy-small.jpg'): str(val / '1.jpg'),
        str(pool / 'b/copy-bright.png'): str(val / '2.jpg'),
    }
    reasons = {row['image']: row['reason'] for row in report['bad']}
    assert 'empty' in reasons[str(pool / 'a/empty.jpg')] and 'truncated' in reasons[str(pool / 'a/cut.jpg')]
    out = capsys.readouterr().out
    assert (
        'scoring the pool: 35 items, 560 B on disk, about' in out
        and '3 copies of excluded images and 2 bad' in out
    )
    assert verify_mining(settings) == []


def test_least_score(data, teacher, settings, capsys):
    whole = mine_unlabeled(teacher, settings)
    rows = read_image_list(settings.out)
    least = sorted(row.score for row in rows)[len(rows) // 2] - 1e-6
    capsys.readouterr()
    report = mine_unlabeled(teacher, replace(settings, min_score=least))
    assert 0 < report['selected'] < whole['selected']
    assert read_image_list(settings.out) == [row for row in rows if row.score >= least]
    scores = Store(settings.store_path / 'pool').array('score')
    predicted = Store(settings.store_path / 'pool').array('predicted')
    assert report['below_min_score'] == ((scores < least) & (predicted >= 0)).sum() > 0
    assert f'{report["below_min_score"]} with a probability below' in capsys.readouterr().out
    assert verify_mining(replace(settings, min_score=least)) == []


def test_second_run_scores_nothing_and_k_can_change(data, teacher, settings, monkeypatch):
    mine_unlabeled(teacher, settings)
    monkeypatch.setattr(mining._Scorer, '__call__', None)  # would fail
    before = content(Path(settings.out).parent)
    mine_unlabeled(teacher, settings)
    assert content(Path(settings.out).parent) == before
    report = mine_unlabeled(teacher, replace(settings, k=1, exclude=None))
    assert max(report['selected_of_class']) == 1 and report['removed_copies'] == []


def test_interrupted_scoring_goes_on_exactly(teacher, settings, tmp_path, monkeypatch):
    mine_unlabeled(teacher, settings)
    other = replace(settings, out=str(tmp_path / 'again/list.txt'))
    score, calls = mining._Scorer.__call__, []

    def interrupted(self, batch):
        calls.append(len(batch))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return score(self, batch)

    monkeypatch.setattr(mining._Scorer, '__call__', interrupted)
    with pytest.raises(KeyboardInterrupt):
        mine_unlabeled(teacher, other)
    assert not Path(other.out).exists()
    monkeypatch.undo()
    mine_unlabeled(teacher, other)
    assert Path(other.out).read_bytes() == Path(settings.out).read_bytes()
    assert content(other.store_path) == content(settings.store_path)


def test_two_ranks_write_the_same_list(teacher, settings, tmp_path, monkeypatch, capsys):
    mine_unlabeled(teacher, settings)
    ranks = replace(settings, out=str(tmp_path / 'ranks/list.txt'), launcher='pytorch')
    with pytest.raises(UserError, match='RANK is not set'):
        monkeypatch.delenv('RANK', raising=False)
        mine_unlabeled(teacher, ranks)
    monkeypatch.setenv('WORLD_SIZE', '2')
    monkeypatch.setenv('RANK', '1')
    assert mine_unlabeled(teacher, ranks) is None and not Path(ranks.out).exists()
    assert 'rank 1 is done' in capsys.readouterr().out
    monkeypatch.setenv('RANK', '0')
    assert mine_unlabeled(teacher, ranks) is not None
    assert Path(ranks.out).read_bytes() == Path(settings.out).read_bytes()


def test_changed_inputs_are_refused(data, teacher, settings, tmp_path):
    pool = tmp_path / 'pool'
    pool.mkdir()
    for i in range(4):
        cv2.imwrite(str(pool / f'{i}.png'), picture(i))
    settings = replace(settings, images=str(pool))
    mine_unlabeled(teacher, settings)
    with pytest.raises(UserError, match='input_size: was 64, is 32'):
        mine_unlabeled(teacher, replace(settings, input_size=32))
    cv2.imwrite(str(pool / '4.png'), picture(4))
    with pytest.raises(UserError, match=r'images\.files: was 4, is 5'):
        mine_unlabeled(teacher, settings)
    (pool / '4.png').unlink()
    torch.manual_seed(1)
    torch.save(timm.create_model('test_resnet', num_classes=CLASSES).state_dict(), tmp_path / 'other.pth')
    with pytest.raises(UserError, match=r'teacher\.weights_sha256: was'):
        mine_unlabeled(teacher_config(None, 'test_resnet', str(tmp_path / 'other.pth'), CLASSES), settings)


def test_verify_names_what_is_damaged(teacher, settings):
    assert 'not both there' in verify_mining_after_scoring_only(teacher, settings)
    mine_unlabeled(teacher, settings)
    path = settings.store_path / 'pool' / 'shard-00000-of-00001.bin'
    healthy = path.read_bytes()
    path.write_bytes(healthy[:100] + bytes([healthy[100] ^ 1]) + healthy[101:])
    (fault,) = verify_mining(settings)
    name = Store(settings.store_path / 'pool').keys[100 // 16]
    assert str(path) in fault and f'record 6 ({name!r})' in fault
    path.write_bytes(healthy)
    Path(settings.out).write_text('x')
    assert 'is not the list' in verify_mining(settings)[0]


def verify_mining_after_scoring_only(teacher, settings):
    mine_unlabeled(teacher, settings)
    Path(settings.out).unlink()
    (fault,) = verify_mining(settings)
    return fault


def test_pool_from_a_list_with_repeated_lines(data, teacher, settings, tmp_path):
    (tmp_path / 'list.txt').write_text('a/00.png 7\nb/01.png\na/00.png\na/gone.png\n')
    report = mine_unlabeled(
        teacher, replace(settings, images=str(tmp_path / 'list.txt'), root=str(data / 'pool'), exclude=None)
    )
    assert report['images'] == 3 and report['repeated_lines'] == 1 and report['selected'] == 2
    assert 'no such file' in report['bad'][0]['reason']


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        ({'k': 0}, 'k is 0'),
        ({'crop_pct': 1.5}, 'crop_pct is 1.5'),
        ({'min_score': 50}, 'min_score is 50'),
        ({'max_hash_distance': 64}, '0 to 63'),
        ({'images': 'absent'}, 'neither a folder of images nor an image list'),
    ],
)
def test_wrong_settings(teacher, settings, change, reason):
    with pytest.raises(UserError, match=reason):
        mine_unlabeled(teacher, replace(settings, **change))


def test_teacher_of_the_command_line(tmp_path):
    with pytest.raises(UserError, match='by a training config or by --model'):
        teacher_config(None, None, None)
    with pytest.raises(UserError, match='--model needs --checkpoint'):
        teacher_config(None, 'test_resnet', None)
    with pytest.raises(MissingFileError):
        teacher_config(str(tmp_path / 'absent.py'), None, None)
    config = ROOT / 'configs/ssld/ssld-stage1_tiny_1xb8-coslr-4e_folder.py'
    assert teacher_config(str(config), None, None)['type'] == 'vfd.Teacher'
    with pytest.raises(UserError, match='go with --model'):
        teacher_config(str(config), None, 'file.pth')


def test_teacher_that_answers_nan(data, teacher, settings, tmp_path):
    state = torch.load(data / 'teacher.pth', weights_only=True)
    state['fc.bias'][0] = float('nan')
    torch.save(state, tmp_path / 'nan.pth')
    with pytest.raises(UserError, match='NaN'):
        mine_unlabeled({**teacher, 'checkpoint': str(tmp_path / 'nan.pth')}, settings)


def test_kill_9_of_the_command_then_resume(data, teacher, settings, tmp_path):
    pool = tmp_path / 'pool'
    pool.mkdir()
    for i in range(420):
        cv2.imwrite(str(pool / f'{i:03}.jpg'), picture(i, side=32))
    settings = replace(settings, images=str(pool), exclude=None, input_size=32)
    mine_unlabeled(teacher, settings)
    killed = replace(settings, out=str(tmp_path / 'killed/list.txt'))
    command = [
        sys.executable,
        ROOT / 'tools/mine_unlabeled.py',
        '--model',
        'test_resnet',
        '--num-classes',
        str(CLASSES),
    ]
    command += ['--checkpoint', data / 'teacher.pth', '--images', pool, '--k', '3', '--out', killed.out]
    command += ['--input-size', '32', '--batch-size', '8', '--workers', '0', '--device', 'cpu']
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    child = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    index = killed.store_path / 'pool' / 'shard-00000-of-00001.jsonl'
    while child.poll() is None and not (index.exists() and index.stat().st_size):
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL and not Path(killed.out).exists()
    mine_unlabeled(teacher, killed)
    assert Path(killed.out).read_bytes() == Path(settings.out).read_bytes()
    assert content(killed.store_path) == content(settings.store_path)
