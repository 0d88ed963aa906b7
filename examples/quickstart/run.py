"""The main job, step by step: images, teacher, students, table, report, export. Every step is done once.

A step that is finished for the same inputs is not repeated, one that was interrupted goes on where it stopped; so the
second call takes seconds.
"""

from __future__ import annotations

import argparse
import json
import runpy
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from mmengine.config import Config
from rich.console import Console
from rich.table import Table

from quickstart import teacher as teachers
from quickstart.data import ImageFolders, Recipe, prepare
from quickstart.report import write_report
from quickstart.results import Results
from quickstart.training import Run, train_once
from vfd.apis.baseline import baseline_config
from vfd.apis.exporting import export
from vfd.apis.training import prepare as prepare_config
from vfd.checkpoints import file_sha256
from vfd.errors import UserError, did_you_mean
from vfd.evaluation import knn_predict
from vfd.stores import Store, atomic_write

ROOT = Path(__file__).parents[2]
INPUT_SIZES = {'fashion-mnist': 84, 'cifar10': 112}  # of the teacher, in pixels
CONFIG = 'configs/quickstart/ssld_resnet10-thin_efficientnet-lite0_1xb64-coslr-1200i_{}.py'
DEMO = 'demo/image_classification_demo.py'
T = TypeVar('T')


def quickstart(
    data: str = 'fashion-mnist',
    seeds: int | str = 1,
    *,
    teacher: teachers.TeacherSpec | None = None,
    recipe: Recipe = Recipe(),  # noqa: B008
    options: dict[str, Any] | None = None,
) -> Results:
    """Distil a teacher into a small student, without labels, on real images; train its supervised baseline beside it.

    Reads and writes below ``data/quickstart/<data>`` and ``work_dirs/quickstart/<data>``.

    Args:
        data: ``fashion-mnist`` or ``cifar10``.
        seeds: number of runs of each student.
        teacher: another teacher than EfficientNet-Lite0.
        recipe: how many images are drawn.
        options: merged over the config.

    Returns:
        What the table and the report show.

    Raises:
        UserError: an unknown data set, no source of images, or a missing package; the text says how to mend it.
    """
    if data not in INPUT_SIZES:
        raise UserError(f'DATA={data}: choose {" or ".join(INPUT_SIZES)}{did_you_mean(data, INPUT_SIZES)}')
    try:
        count = int(seeds)
    except ValueError:
        count = 0
    if count < 1:
        raise UserError(f'SEEDS={seeds}: expected a number of runs, such as 3')
    teacher = teacher or teachers.efficientnet_lite0(INPUT_SIZES[data])
    work = Path('work_dirs/quickstart', data)
    work.mkdir(parents=True, exist_ok=True)
    steps = Steps(work / 'times.json')
    console = steps.console

    there = Path('data/quickstart', data).exists()
    images = steps.do('images', lambda: (prepare(data, 'data/quickstart', recipe, console.print), there))
    console.print(
        f'   {images.title} from {images.source}: {images.counts["unlabelled"]} unlabelled, '
        f'{images.counts["labelled"]} labelled, {images.counts["test"]} test images',
        highlight=False,
        soft_wrap=True,
    )
    features = steps.do('teacher features', lambda: teachers.ask_features(images, teacher, work / 'features'))
    probe = steps.do('teacher probe', lambda: teachers.fold_probe(images, teacher, features, work))
    cfg = _config(data, images, options)
    inputs = {'targets': Store(work / 'targets').fingerprint}
    runs: list[Run] = []
    for seed in range(count):
        for kind, config in (('supervised', baseline_config(cfg)), ('distilled', cfg)):
            what = f'{kind} student, seed {seed}'
            folder = work / f'seed{seed}' / kind
            train = partial(train_once, _copy(config), kind, seed, folder, images, inputs)
            runs.append(steps.do(what, train))
    best = next(run for run in runs if run.kind == 'distilled')
    exports = steps.do('export', lambda: _exports(cfg, best, work / 'export'))
    example = images.files('test')[0]
    steps.do('demo', lambda: _demo(images.root / example, work / 'export/onnx', work / 'prediction.png'))
    results = Results(
        data=images,
        teacher_name=teacher.model_name,
        probe=probe,
        teacher_knn=_teacher_knn(images, features),
        runs=runs,
        exports=exports,
        example=example,
        config=_copy(cfg).pretty_text,
        config_file=CONFIG.format(data),
        seconds=steps.seconds,
        reused=steps.reused,
    )
    steps.do('report', lambda: (write_report(results, teacher, work), False))
    _print(results, console, work)
    return results


@dataclass
class Steps:
    """Runs steps, says so, and remembers how long each took when it was really done.

    Attributes:
        path: where the times are kept.
        seconds: by step.
        reused: steps that were there already.
    """

    path: Path
    seconds: dict[str, float] = field(default_factory=dict)
    reused: set[str] = field(default_factory=set)
    console: Console = field(default_factory=Console)

    def do(self, name: str, work: Callable[[], tuple[T, bool]]) -> T:
        """Do one step.

        Args:
            name: of the step.
            work: returns the result, and whether it was there already.
        """
        before = json.loads(self.path.read_text()) if self.path.exists() else {}
        self.console.print(f'[bold]{name}[/bold]', highlight=False)
        begun = time.perf_counter()
        result, reused = work()
        seconds = time.perf_counter() - begun
        if reused:
            self.reused.add(name)
            seconds = before.get(name, seconds)
        self.seconds[name] = seconds
        atomic_write(self.path, json.dumps({**before, name: seconds}, indent=1))
        self.console.print(
            '   done earlier' if reused else f'   {seconds:.1f} s', style='dim', highlight=False
        )
        return result


def _config(data: str, images: ImageFolders, options: dict[str, Any] | None) -> Config:
    """The config of the distillation, with the names of the classes."""
    named: dict[str, Any] = {
        f'{loader}.dataset.metainfo': {'classes': list(images.classes)}
        for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader')
    }
    named['log_level'] = 'WARNING'  # the steps report for themselves
    return prepare_config(ROOT / CONFIG.format(data), options={**named, **(options or {})})


def _copy(cfg: Config) -> Config:
    return Config(cfg._cfg_dict.to_dict(), filename=cfg.filename)


def _teacher_knn(images: ImageFolders, features: Store) -> float:
    """Accuracy of nearest neighbours among the labelled images, by the teacher's features."""
    labelled, test = images.files('labelled'), images.files('test')
    bank = features.read([teachers.unlabelled_name(file) for file in labelled])['pooled']
    labels = np.array([images.label(file) for file in labelled])
    predicted = knn_predict(bank, labels, features.read(test)['pooled'])
    return float(np.mean(predicted == [images.label(file) for file in test]))


def _exports(cfg: Config, run: Run, out: Path) -> tuple[list[dict[str, Any]], bool]:
    """Certificates of the distilled student as timm and ONNX; written again only for another checkpoint."""
    certificates, reused = [], True
    for target in ('timm', 'onnx'):
        path = out / target / 'certificate.json'
        known = json.loads(path.read_text()) if path.exists() else {}
        if known.get('checkpoint', {}).get('sha256') != file_sha256(run.checkpoint):
            export(_copy(cfg), run.checkpoint, target, out)
            reused = False
            known = json.loads(path.read_text())
        certificates.append(known)
    return certificates, reused


def _demo(image: Path, exported: Path, out: Path) -> tuple[None, bool]:
    """What ``python demo/image_classification_demo.py`` does, without a process of its own."""
    demo = runpy.run_path(str(ROOT / DEMO), run_name='demo')
    demo['run'](
        argparse.Namespace(image=str(image), config=None, checkpoint=None, export=str(exported), out=str(out))
    )
    return None, False


def _print(results: Results, console: Console, work: Path) -> None:
    """The table, and where everything lies."""
    table = Table(
        title=f'{results.data.title}, {results.data.counts["labelled"]} labels', title_justify='left'
    )
    for name in results.header:
        table.add_column(name, justify='left' if name == results.header[0] else 'right')
    for row in results.rows():
        table.add_row(*row, style='bold' if row[0] == results.distilled_name else '')
    console.print(table)
    times = ', '.join(f'{name} {seconds:.0f} s' for name, seconds in results.times())
    console.print(f'times: {times}', highlight=False)
    for name in ('report.html', 'prediction.png', 'export'):
        console.print(f'{name}: {work / name}', highlight=False, soft_wrap=True)
