"""The command line: what users type, what they see, and the exit code."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import vfd
from vfd.apis import baseline, dry_run
from vfd.apis.config import load_config
from vfd.engine import launch
from vfd.errors import UserError

ROOT = Path(__file__).parents[2]
TINY = ROOT / 'configs/ssld/ssld-stage1_tiny_1xb8-coslr-4e_folder.py'
SHORT = (
    '--cfg-options',
    'train_cfg.max_epochs=1',
    'default_hooks.checkpoint.interval=1',
    'randomness.seed=0',
)


def test_dry_run_prints_what_was_built_and_trains_nothing(vfd_command, tmp_path):
    code, out, _ = vfd_command('train', TINY, '--work-dir', tmp_path / 'run', '--dry-run')
    assert code == 0
    for word in (
        'SSLDDistiller',
        'timm:test_efficientnet',
        'RANDOM WEIGHTS',
        'logits',
        '0.374 M',
        'lr 0.1',
        'torch',
    ):
        assert word in out, word
    assert not list((tmp_path / 'run').glob('*.pth'))


def test_train_then_test(vfd_command, tmp_path):
    work = tmp_path / 'run'
    code, out, _ = vfd_command(
        'train', TINY, '--work-dir', work, *SHORT, 'default_hooks.checkpoint.interval=1'
    )
    assert code == 0 and 'loss_ssld' in out
    checkpoint = torch.load(work / 'epoch_1.pth', map_location='cpu', weights_only=True)
    assert all(name.startswith('student.') for name in checkpoint['state_dict'])
    assert checkpoint['meta']['vfd']['teacher']['source'] == 'timm:test_efficientnet'
    assert checkpoint['meta']['vfd']['version'] == vfd.__version__
    assert list(work.rglob('events.out.tfevents*'))
    code, out, _ = vfd_command('test', TINY, work / 'epoch_1.pth', '--work-dir', work)
    assert code == 0 and 'accuracy/top1' in out
    code, out, _ = vfd_command(
        'export', TINY, work / 'epoch_1.pth', '--to', 'timm', '--out', tmp_path / 'export'
    )
    assert code == 0 and (tmp_path / 'export/timm/certificate.json').exists()


def test_the_supervised_twin(vfd_command, tmp_path):
    """The student alone, on the labelled images; its checkpoint is a plain timm state dict."""
    code, out, _ = vfd_command('train', TINY, '--work-dir', tmp_path, '--baseline', *SHORT)
    assert code == 0 and 'loss_ssld' not in out
    checkpoint = torch.load(tmp_path / 'baseline/epoch_1.pth', map_location='cpu', weights_only=True)
    assert (
        checkpoint['meta']['iter'] == 4
    )  # 20 + 12 images in batches of 8, as the distillation, of 20 labelled ones
    assert 'conv1.weight' in checkpoint['state_dict'] or 'conv1.0.weight' in checkpoint['state_dict']
    assert 'teacher' not in checkpoint['meta']['vfd']


def test_twin_config(tmp_path, folder_data, monkeypatch):
    monkeypatch.chdir(folder_data)
    cfg = load_config(TINY, {'work_dir': str(tmp_path)})
    cfg.baseline = dict(train_dataloader=dict(batch_size=4))
    supervised = baseline.baseline_config(cfg)
    assert supervised.model.type == 'mmpretrain.TimmClassifier'
    assert supervised.model.data_preprocessor == cfg.data_preprocessor
    assert supervised.train_dataloader.batch_size == 4 and 'baseline' not in supervised
    assert supervised.train_dataloader.dataset.length == 4 * 4  # as many steps, of half the size
    assert supervised.train_cfg == cfg.train_cfg and supervised.optim_wrapper == cfg.optim_wrapper
    assert supervised.work_dir == f'{tmp_path}/baseline'
    assert cfg.model.type == 'vfd.SSLDDistiller'  # the original is untouched


def test_a_method_declares_its_baseline(folder_data, tmp_path, monkeypatch):
    """DMAE is compared with a masked autoencoder of the same size, masks and number of steps."""
    monkeypatch.chdir(folder_data)
    cfg = load_config(ROOT / 'configs/dmae/dmae_tiny_1xb8-coslr-4e_folder.py', {'work_dir': str(tmp_path)})
    cfg.model.mask_ratio = 0.5
    plain = baseline.baseline_config(cfg)
    assert plain.model.type == 'vfd.MAE' and 'teacher' not in plain.model
    assert plain.model.student == cfg.model.student
    assert (plain.model.mask_ratio, plain.model.norm_pix) == (0.5, cfg.model.get('norm_pix', False))
    assert plain.train_dataloader == cfg.train_dataloader and plain.train_cfg == cfg.train_cfg


@pytest.mark.parametrize(
    'method, answer',
    [
        (dict(type='vfd.MAE', student={}), 'MAE has no teacher'),
        (dict(type='ImageClassifier', backbone={}), 'ImageClassifier.*no equal-budget baseline'),
        (
            dict(type='vfd.SSLDDistiller', student=dict(type='ResNet')),
            'ResNet of vfd.SSLDDistiller.*loss of its own',
        ),
    ],
)
def test_no_baseline_is_said_with_the_reason(folder_data, method, answer):
    cfg = load_config(TINY, {'work_dir': 'x'})
    cfg.model = method
    with pytest.raises(UserError, match=answer):
        baseline.baseline_config(cfg)


def test_mixed_precision_without_a_gpu(vfd_command, folder_data, tmp_path, monkeypatch):
    """Training is refused with one message and leaves nothing; a dry run says what a GPU would do."""
    monkeypatch.setattr(launch, 'amp_available', lambda: False)
    monkeypatch.setattr(dry_run, 'amp_available', lambda: False)
    code, _, err = vfd_command('train', TINY, '--amp', '--work-dir', tmp_path / 'run')
    assert code == 2 and 'needs a GPU' in err and not (tmp_path / 'run').exists()
    code, out, _ = vfd_command('train', TINY, '--amp', '--dry-run', '--work-dir', tmp_path / 'run')
    assert code == 0 and 'float16 on a GPU' in out and not (tmp_path / 'run').exists()


def test_the_dry_run_of_an_iteration_loop_counts_epochs(vfd_command, tmp_path):
    text = TINY.read_text().replace("'../_base_", f"'{ROOT}/configs/_base_")
    text = text.replace(
        'dict(max_epochs=4, val_interval=4)', 'dict(_delete_=True, by_epoch=False, max_iters=10)'
    )
    (tmp_path / 'c.py').write_text(text)
    code, out, _ = vfd_command('train', tmp_path / 'c.py', '--dry-run', '--work-dir', tmp_path / 'run')
    assert code == 0 and '10 (2.5 epochs)' in out  # 32 images in batches of 8


@pytest.mark.parametrize(
    'arguments, answer',
    [
        (('train', 'nowhere.py'), 'nowhere.py does not exist'),
        (('train', TINY, '--cfg-options', 'optim_wraper.x=1'), 'did you mean "optim_wrapper"'),
        (('train', TINY, '--cfg-options', 'model.student.type=mmpretrain.TimClassifier'), 'TimmClassifier'),
        (('train', TINY, '--cfg-options', 'model.student.model_name=resnt50'), 'did you mean "resnet50"'),
        (('train', TINY, '--cfg-options', 'model.student.foo=3'), 'gives "foo"'),
        (('train', TINY, '--cfg-options', 'model.teacher.checkpoint=none.pth'), 'none.pth'),
        (('train', TINY, '--cfg-options', 'model.student.num_classes=7'), '7 classes'),
        (
            ('train', TINY, '--cfg-options', 'train_dataloader.dataset.datasets.0.data_root=no'),
            'no/train does not',
        ),
        (('train', TINY, '--resume', 'none.pth'), 'none.pth'),
        (('test', TINY, 'none.pth'), 'none.pth does not exist'),
    ],
)
def test_mistakes_give_one_message_and_exit_code_2(vfd_command, tmp_path, arguments, answer):
    code, _, err = vfd_command(*arguments, '--work-dir', tmp_path)
    assert code == 2
    assert answer in err and 'error: ' in err
    assert 'Traceback' not in err


def test_amp_and_auto_scale_lr(tmp_path):
    from vfd.apis import training

    cfg = training.prepare(TINY, tmp_path, amp=True, auto_scale_lr=True, resume=True, validate=False)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper' and cfg.optim_wrapper.loss_scale == 'dynamic'
    assert cfg.auto_scale_lr.enable and cfg.resume and cfg.val_cfg is None


def test_auto_scale_lr_without_a_base_batch(vfd_command, tmp_path):
    text = TINY.read_text().replace("'../_base_", f"'{ROOT}/configs/_base_")
    (tmp_path / 'c.py').write_text(text.replace('auto_scale_lr = dict(base_batch_size=8)', ''))
    code, _, err = vfd_command('train', tmp_path / 'c.py', '--auto-scale-lr', '--work-dir', tmp_path)
    assert code == 2 and 'base_batch_size' in err


def test_as_a_script(folder_data):
    """tools/train.py is the same command; a mistake prints no traceback and does not exit with 0."""
    result = subprocess.run(
        [sys.executable, ROOT / 'tools/train.py', TINY, '--cfg-options', 'optim_wraper.x=1'],
        cwd=folder_data, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 2
    assert result.stderr.strip().startswith('error: ') and 'Traceback' not in result.stderr


def test_a_half_fitting_student_is_refused(vfd_command, tmp_path):
    """load_from with a checkpoint of another network: mmengine would warn and train from scratch."""
    torch.save({'state_dict': {'student.conv1.weight': torch.zeros(1)}, 'meta': {}}, tmp_path / 'other.pth')
    options = (*SHORT, f'load_from={tmp_path}/other.pth')
    code, _, err = vfd_command('train', TINY, '--work-dir', tmp_path, *options)
    assert code == 2 and 'other.pth is not of the model' in err
