"""``vfd doctor``: whether this environment is sound and this config will train, and what has to be mended."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vfd.apis.environment import environment
from vfd.apis.trial_batch import spread, try_batch
from vfd.errors import UserError

if TYPE_CHECKING:
    from mmengine.config import Config

LOOKED_AT = 32  # samples of a data set, spread over it


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        subject: what was looked at.
        found: what there is.
        mend: what to do about it; None where nothing has to be done.
    """

    subject: str
    found: str
    mend: str | None = None

    def __str__(self) -> str:
        line = f'{"ok  " if self.mend is None else "MEND"}  {self.subject}: {self.found}'
        return line if self.mend is None else f'{line}\n      -> {self.mend}'


class Report:
    """Findings, printed as they are made."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def add(self, subject: str, found: str, mend: str | None = None) -> None:
        """Add a finding."""
        self.findings.append(Finding(subject, found, mend))
        print(self.findings[-1], flush=True)

    @contextmanager
    def check(self, subject: str) -> Iterator[None]:
        """Turn what is raised inside into a finding; the text of a user's mistake names the remedy."""
        try:
            yield
        except UserError as error:
            self.add(subject, 'cannot be used', ' '.join(str(error).split()))
        except Exception as error:  # of a library: a report has to be complete
            text = ' '.join(str(error).split())
            self.add(
                subject,
                f'{type(error).__name__}: {text}',
                '`vfd train` with this config shows where it is raised',
            )

    @property
    def healthy(self) -> bool:
        """Whether nothing has to be mended."""
        return all(finding.mend is None for finding in self.findings)


def doctor(
    config: str | Path | None = None,
    work_dir: str | Path | None = None,
    options: dict[str, Any] | None = None,
) -> Report:
    """Examine the environment and, with a config, everything that its training needs. Nothing is written.

    Args:
        config: of a training.
        work_dir: where the run would write; default: the config's.
        options: merged over the config, as ``--cfg-options``.

    Returns:
        The report, which has been printed.
    """
    report = Report()
    for line in environment():
        report.add(*line)
    if config is not None and report.healthy:
        with report.check('config'):
            from vfd.apis.training import prepare

            cfg = prepare(config, work_dir, options)
            report.add('config', f'{cfg.filename}: every key and type is known')
            _examine(cfg, report)
    elif config is not None:
        report.add('config', 'not looked at', 'mend the environment first')
    faults = sum(finding.mend is not None for finding in report.findings)
    print('nothing has to be mended' if report.healthy else f'{faults} to mend')
    return report


def _examine(cfg: Config, report: Report) -> None:
    """Examine data, model, teacher and one batch of a prepared config."""
    from mmengine.registry import DefaultScope

    with report.check('work dir'):
        _work_dir(Path(cfg.work_dir), report)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmengine'):
        datasets = {}
        for name in ('train', 'val', 'test'):
            with report.check(f'{name} data'):
                datasets[name] = _data(name, cfg, report)
        model = None
        with report.check('model'):
            model = _model(cfg, report)
        if model is None:
            return
        if getattr(model, 'teacher', None) is not None:
            with report.check('teacher now'):
                _teacher_accuracy(model, datasets.get('val'), report)
        if datasets.get('train') is not None and cfg.get('train_cfg') is not None:
            with report.check('one batch'):
                try_batch(model, datasets['train'], cfg, report)


def _work_dir(folder: Path, report: Report) -> None:
    """Check that a run could write there."""
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise UserError(
            f'{folder} cannot be written, because of {there}. Choose another folder with --work-dir, or correct its '
            'permissions.'
        )
    report.add('work dir', f'{folder}, {shutil.disk_usage(there).free / 2**30:.1f} GiB free')


def _data(name: str, cfg: Config, report: Report) -> Any:
    """Build a data set and read samples that are spread over it."""
    from vfd.apis.training import clear_errors
    from vfd.engine.bad_data import is_bad_data, sample_name
    from vfd.registry import DATASETS

    settings = (cfg.get(f'{name}_dataloader') or {}).get('dataset')
    if settings is None:
        return None
    with clear_errors(cfg):
        dataset = DATASETS.build(settings)
    if not len(dataset):
        raise UserError(f'{name}_dataloader.dataset has no sample. Correct its data_root and data_prefix.')
    numbers = spread(len(dataset), LOOKED_AT)
    bad = []
    for number in numbers:
        try:
            dataset[number]
        except Exception as error:
            if not is_bad_data(error):
                raise
            bad.append(f'{sample_name(dataset, number)} ({" ".join(str(error).split())})')
    mend = f'replace or remove the bad samples, first {bad[0]}' if bad else None
    report.add(
        f'{name} data', f'{len(dataset)} samples; {len(bad)} of {len(numbers)} looked at cannot be read', mend
    )
    return None if len(bad) == len(numbers) else dataset


def _model(cfg: Config, report: Report) -> Any:
    """Build the model as a run would, on the CPU."""
    from mmengine.model import BaseModel

    from vfd.apis.dry_run import describe_model
    from vfd.apis.training import clear_errors
    from vfd.registry import MODELS

    settings: Any = cfg.model.to_dict()
    if settings.get('data_preprocessor') is None and cfg.get('data_preprocessor') is not None:
        settings['data_preprocessor'] = cfg.data_preprocessor.to_dict()
    with clear_errors(cfg):
        model: Any = MODELS.build(settings)
    if not isinstance(model, BaseModel):
        report.add('model', f'{type(model).__name__}: used by an offline step, not trained')
        return None
    for subject, text in describe_model(model).items():
        report.add(subject, text)
    return model


def _teacher_accuracy(model: Any, dataset: Any, report: Report) -> None:
    """Measure the accuracy of a live teacher on the validation data, as the dry run does."""
    from vfd.evaluation.teacher_check import check_teacher
    from vfd.teachers import Teacher

    teacher = model.teacher
    if dataset is None or not isinstance(teacher, Teacher):
        return
    found = check_teacher(teacher, dataset, lambda data: model.data_preprocessor(data, False))
    if teacher.checkpoint == 'random':
        report.add('teacher now', f'{found.text}; its random weights were requested by name')
    else:
        report.add('teacher now', found.text, found.warning or None)
