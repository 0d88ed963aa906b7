"""The README's commands are executed, in its order, on a tiny data set; its Python runs."""

import importlib.metadata
import os
import re
import shutil
import subprocess

from house_pages import ROOT, blocks, commands, is_config

README = ROOT / 'README.md'
# What is not executed, and why.
NOT_EXECUTED = {
    'pip install -e ".[classification]"': 'changes the environment; its extras are compared with the package',
}
TINY = (
    '--cfg-options',
    'train_dataloader.batch_size=2',
    'train_dataloader.num_workers=0',
    'val_dataloader.num_workers=0',
    'test_dataloader.num_workers=0',
)


def make(command: str) -> subprocess.CompletedProcess:
    """``[VARIABLE=value] make TARGET``, without doing it."""
    *variables, program, target = command.split()
    assert program == 'make'
    environment = {**os.environ, **dict(variable.split('=') for variable in variables)}
    return subprocess.run(
        ['make', '-n', target], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_every_command_is_known_to_this_file():
    known = [c for c in commands(README) if re.match(r'([A-Z]+=\S+ )*make |vfd |python tools/', c)]
    assert sorted(commands(README)) == sorted([*known, *NOT_EXECUTED])


def test_make_targets():
    for command in commands(README):
        if command.split(' ')[-2] == 'make':
            done = make(command)
            assert done.returncode == 0, done.stderr
            for script in re.findall(r'\S+/python (\S+\.py)', done.stdout):
                assert (ROOT / script).is_file(), script


def test_extras_exist():
    named = set(re.findall(r'\.\[(\w+)\]', README.read_text()))
    named |= {'detection', 'segmentation', 'openclip', 'huggingface', 'export', 'all'}
    assert named <= set(importlib.metadata.metadata('vfd').get_all('Provides-Extra'))


def test_own_training_from_dry_run_to_export(user_folder, user_command, monkeypatch):
    """As printed, but for fewer and smaller steps."""
    work = user_folder / 'work_dirs/mine'
    dry, train, resume, baseline, test, export = (
        c for c in commands(README) if re.match('vfd |python tools/', c)
    )

    code, out = user_command(dry)
    assert code == 0 and 'SSLDDistiller' in out and 'timm:resnet50' in out and not list(work.glob('*.pth'))

    steps = ('default_hooks.checkpoint.interval=1', 'train_cfg.val_interval=2')
    code, out = user_command(train, *TINY, *steps, 'train_cfg.max_iters=2')
    assert code == 0 and 'loss_ssld' in out and 'accuracy/top1' in out
    code, out = user_command(resume, *TINY, *steps, 'train_cfg.max_iters=3')
    assert code == 0 and 'resumed' in out and not (work / 'iter_4.pth').exists()
    code, out = user_command(baseline, *TINY, *steps, 'train_cfg.max_iters=1')
    assert code == 0 and 'loss_ssld' not in out and (work / 'baseline/iter_1.pth').exists()
    shutil.copy(work / 'iter_3.pth', work / re.search(r'iter_\d+\.pth', test)[0])

    code, out = user_command(test, *TINY[:1], 'test_dataloader.num_workers=0')
    assert code == 0 and 'accuracy/top1' in out
    code, out = user_command(export)
    assert code == 0 and 'largest error' in out

    (script,) = (block for block in blocks(README, 'python') if not is_config(block))
    shown: list = []
    exec(compile(script, 'README.md', 'exec'), {'print': shown.append})
    assert tuple(shown[0]) == (1, 2)


def test_the_misspelt_key_that_it_promises_to_report(user_command):
    code, out = user_command('vfd train configs/mine.py --dry-run --cfg-options model.studnt=1')
    assert code == 2 and 'studnt' in out and 'student' in out and 'Traceback' not in out
