"""``vfd doctor``: a set-up that is sound, and set-ups that are broken in one place each."""

import re
import shutil
from pathlib import Path

import pytest
import timm
import torch

from vfd.compat import packages

ROOT = Path(__file__).parents[2]
TINY = ROOT / 'configs/ssld/ssld-stage1_tiny_1xb8-coslr-4e_folder.py'


@pytest.fixture
def setup(folder_data, vfd_command, tmp_path, monkeypatch):
    """Run ``vfd doctor`` on a small config with a teacher file, in a copy of the data: exit code and report."""
    shutil.copytree(folder_data / 'data', tmp_path / 'data')
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    torch.save(timm.create_model('test_efficientnet', num_classes=10).state_dict(), 'teacher.pth')

    def run(*options: str) -> tuple[int, str]:
        code, out, err = vfd_command(
            'doctor', TINY, '--cfg-options', 'model.teacher.checkpoint=teacher.pth', *options
        )
        assert 'Traceback' not in out + err
        return code, out

    run.folder = tmp_path
    return run


@pytest.fixture
def good_teacher(monkeypatch):
    """The teacher of a healthy set-up: right for every validation sample."""
    from vfd.teachers import Teacher

    original = Teacher.__call__

    def right(self, *args, **inputs):
        answers, data_samples = original(self, *args, **inputs), inputs.get('data_samples')
        if data_samples and all('gt_label' in sample for sample in data_samples):
            labels = torch.cat([sample.gt_label for sample in data_samples])
            answers['logits'] = torch.eye(answers['logits'].shape[1])[labels]
        return answers

    monkeypatch.setattr(Teacher, '__call__', right)


def to_mend(report: str) -> dict[str, str]:
    """Subject -> what was found and what to do."""
    return {
        subject: f'{found} {mend}'
        for subject, found, mend in re.findall(r'^MEND  ([^:]+): (.*)\n +-> (.*)$', report, re.MULTILINE)
    }


def test_a_sound_set_up(setup, good_teacher):
    code, report = setup()
    assert not to_mend(report) and code == 0, report
    for fact in (
        'stand-in operators' if not packages.compiled_available() else 'compiled operators',
        'val data: 20 samples; 0 of 20',
        'timm:test_efficientnet',
        'teacher.pth',
        'mean 123.675',
        'accuracy 1.000',
        'on 20 validation images (chance 0.100)',
        'inputs (8, 3, 64, 64)',
        'loss_ssld',
        'logits (8, 10)',
    ):
        assert fact in report, (fact, report)
    assert re.search(r'memory: about \d+\.\d MiB for batches of 8', report)
    assert re.search(r'disk: about \d+\.\d MiB for 3 checkpoints', report)
    assert not (setup.folder / 'work_dirs').exists()  # nothing is written


def test_a_missing_package(setup, monkeypatch):
    monkeypatch.setattr(packages, '_find', lambda module: None)
    code, report = setup()
    mend = to_mend(report)
    assert code == 1 and 'pip install "vfdistill[classification]"' in mend['mmengine']
    assert 'pip install "torch"' in mend['torch'] and 'environment' in mend['config']


def test_a_missing_data_folder(setup):
    shutil.rmtree(setup.folder / 'data/folder/val')
    code, report = setup()
    assert code == 1 and 'data/folder/val' in to_mend(report)['val data']
    assert 'loss_ssld' in report  # the rest is looked at all the same


def test_a_missing_teacher_file(setup):
    (setup.folder / 'teacher.pth').unlink()
    code, report = setup()
    assert code == 1 and 'teacher.pth' in to_mend(report)['model']


def test_classes_of_teacher_and_student_differ(setup):
    code, report = setup('model.student.num_classes=7')
    assert code == 1
    mend = to_mend(report)['model']
    assert '7' in mend and '10' in mend


def test_unreadable_images(setup):
    broken = setup.folder / 'data/folder/val/a/0.png'
    broken.write_bytes(b'no image')
    code, report = setup()
    mend = to_mend(report)['val data']
    assert code == 1 and '1 of 20' in mend and 'val/a/0.png' in mend and 'replace or remove' in mend


def test_a_work_dir_that_is_a_file(setup):
    (setup.folder / 'taken').write_text('')
    code, report = setup('work_dir=taken/run')
    mend = to_mend(report)['work dir']
    assert code == 1 and 'taken' in mend and '--work-dir' in mend


def test_a_teacher_near_chance(setup):
    code, report = setup()
    mend = to_mend(report)
    assert code == 1 and set(mend) == {'teacher now'} and 'input_size' in mend['teacher now']


def test_a_misspelt_key(setup):
    code, report = setup('model.studnt=1')
    assert code == 1 and 'student' in to_mend(report)['config']
