"""FerKD on real labelled images: a real teacher labels crops once; a small student trains from them without it.

Three students of equal budget: from stored labels (FKD), from calibrated ones with SelfMix (FerKD), and supervised.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from rich.console import Console
from rich.table import Table

from quickstart import teacher as teachers
from quickstart.data import Recipe, prepare
from quickstart.run import INPUT_SIZES, ROOT
from quickstart.training import train_once
from vfd.apis.baseline import baseline_config
from vfd.apis.config import load_config
from vfd.apis.training import prepare as prepare_config
from vfd.checkpoints import file_sha256
from vfd.errors import UserError
from vfd.offline.calibrate import calibrate
from vfd.offline.label import relabel
from vfd.stores import LabelStore, atomic_write

DATA = 'cifar10'
RECIPE = Recipe(unlabelled=1400, labelled_per_class=100, test=1500)
THRESHOLDS = (0.05, 0.30, 0.99)  # project default
RELABEL = ROOT / 'configs/quickstart/relabel_efficientnet-lite0_crops10_cifar10.py'
CONFIG = 'configs/quickstart/{}_resnet10-thin_efficientnet-lite0_1xb16-crops4-coslr-1200i_cifar10.py'
WORK = Path('work_dirs/quickstart_ferkd', DATA)
TITLES = {'supervised': 'supervised baseline', 'fkd': 'FKD', 'ferkd': 'FerKD'}


def ferkd_quickstart(
    seeds: int = 1,
    *,
    teacher: teachers.TeacherSpec | None = None,
    recipe: Recipe = RECIPE,
    relabel_options: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Relabel, calibrate, train three students, print their accuracies.

    Reads and writes below ``data/quickstart_ferkd/cifar10`` and ``work_dirs/quickstart_ferkd/cifar10``; what is
    finished is not done again, what other images, another teacher or other settings left is replaced.

    Args:
        seeds: number of runs of each student.
        teacher: another teacher than EfficientNet-Lite0.
        recipe: how many images are drawn; the labelled ones are relabelled and trained on.
        relabel_options: merged over the relabelling config.
        options: merged over the training configs.

    Returns:
        ``teacher`` (accuracy in 0..1), ``labelled`` (images), ``categories`` (crops discarded, context, important)
        and ``runs``: for each student the accuracies of the seeds.

    Raises:
        UserError: a wrong number of runs, no source of images, or a missing package; the text says how to mend it.
    """
    if seeds < 1:
        raise UserError(f'--seeds {seeds}: expected a number of runs, such as 3')
    console = Console()
    images = prepare(DATA, 'data/quickstart_ferkd', recipe, console.print)
    teacher = teacher or teachers.efficientnet_lite0(INPUT_SIZES[DATA])
    features, _ = teachers.ask_features(images, teacher, WORK / 'features')
    probe, _ = teachers.fold_probe(images, teacher, features, WORK)
    source = {'model.teacher.source.model_name': teacher.model_name}
    size = {'model.teacher.input_size': teacher.input_size}
    labelling = {**source, **size, **(relabel_options or {})}
    _drop_if_other(
        {
            'images': images.fingerprint,
            'teacher': file_sha256(WORK / 'teacher.safetensors'),
            'config': load_config(RELABEL, labelling).to_dict(),
            'thresholds': THRESHOLDS,
        }
    )
    relabel(RELABEL, str(WORK / 'labels'), labelling)
    root = images.root / 'labelled'
    summary = calibrate(
        str(WORK / 'labels'), str(WORK / 'labels-calibrated'), {'thresholds': THRESHOLDS}, str(root)
    )
    runs: dict[str, list[float]] = {kind: [] for kind in TITLES}
    for seed in range(seeds):
        for kind in TITLES:
            config = _config(kind, options)
            dataset = config.train_dataloader.dataset
            inputs = {'labels': LabelStore(dataset.store).origin} if 'store' in dataset else {}
            done, _ = train_once(config, kind, seed, WORK / f'seed{seed}' / kind, images, inputs)
            console.print(f'{TITLES[kind]}, seed {seed}: {done.accuracy:.3f}', highlight=False)
            runs[kind].append(done.accuracy)
    results = {
        'teacher': probe['test_accuracy'],
        'labelled': images.counts['labelled'],
        'categories': summary.histogram.sum(axis=1).tolist(),
        'runs': runs,
    }
    atomic_write(WORK / 'results.json', json.dumps(results, indent=1))
    console.print(_table(results))
    return results


def _drop_if_other(inputs: dict[str, Any]) -> None:
    """Remove labels that were made of other inputs; they can be made again."""
    note = WORK / 'labels.json'
    text = json.dumps(inputs, indent=1, sort_keys=True, default=str)
    if note.exists() and note.read_text(encoding='utf-8') != text:
        for folder in ('labels', 'labels-calibrated'):
            shutil.rmtree(WORK / folder, ignore_errors=True)
    atomic_write(note, text)


def _config(kind: str, options: dict[str, Any] | None) -> Config:
    """Return the config of one student."""
    template = CONFIG.format('ferkd' if kind == 'ferkd' else 'fkd')
    config = prepare_config(ROOT / template, options={'log_level': 'WARNING', **(options or {})})
    return baseline_config(config) if kind == 'supervised' else config


def _table(results: dict[str, Any]) -> Table:
    table = Table(title=f'cifar10, {results["labelled"]} labelled images, 1,200 steps of 64 crops')
    for name in ('network', 'test accuracy', 'runs'):
        table.add_column(name)
    table.add_row('teacher (EfficientNet-Lite0, classifier on the labels)', f'{results["teacher"]:.3f}', '')
    for kind, values in results['runs'].items():
        spread = f' ± {np.std(values, ddof=1):.3f}' if len(values) > 1 else ''
        table.add_row(TITLES[kind], f'{np.mean(values):.3f}{spread}', str(len(values)))
    return table
