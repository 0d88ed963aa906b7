"""``vfd doctor``: is this environment sound, will this config train, and what has to be mended."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vfd.apis.environment import environment
from vfd.errors import UserError

if TYPE_CHECKING:
    from mmengine.config import Config

LOOKED_AT = 32  # samples of a data set, spread over it
BATCH = 8  # samples of the batch that is tried


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
        """Turn what is raised inside into a finding; the text of a user's mistake says how to mend it."""
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
    """Data, model, teacher and one batch of a prepared config."""
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
                _one_batch(model, datasets['train'], cfg, report)


def _work_dir(folder: Path, report: Report) -> None:
    """Whether a run could write there."""
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
    numbers = _spread(len(dataset), LOOKED_AT)
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
    """What a live teacher knows about the validation data, as the dry run measures it."""
    from vfd.evaluation.teacher_check import check_teacher
    from vfd.teachers import Teacher

    teacher = model.teacher
    if dataset is None or not isinstance(teacher, Teacher):
        return
    found = check_teacher(teacher, dataset, lambda data: model.data_preprocessor(data, False))
    if teacher.checkpoint == 'random':
        report.add('teacher now', f'{found.text}; its random weights were asked for by name')
    else:
        report.add('teacher now', found.text, found.warning or None)


def _one_batch(model: Any, dataset: Any, cfg: Config, report: Report) -> None:
    """Run the loss on real samples: taps and shapes, losses, memory and disk."""
    import torch

    settings = cfg.train_dataloader
    batch = _batch(settings, dataset, min(settings.get('batch_size', 1), BATCH))
    data = model.data_preprocessor(batch, True)
    model.train()
    kept: dict[int, int] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        losses = model._run_forward(data, mode='loss')
        total, logged = model.parse_losses(losses)
    inputs = data['inputs'] if isinstance(data, dict) else data[0]
    samples = len(inputs)
    shape = f'{samples} samples' + (f', inputs {tuple(inputs.shape)}' if hasattr(inputs, 'shape') else '')
    values = ', '.join(
        f'{name} {value.detach().item():.4g}' for name, value in logged.items() if name != 'loss'
    )
    mend = None
    if not torch.isfinite(total):
        mend = 'the loss is not finite: look at the data, and at the weights of student and teacher'
    report.add('one batch', f'{shape}; {values}', mend)
    _taps(model, data, report)
    weights = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    activations = sum(size for pointer, size in kept.items() if pointer not in weights)
    _resources(model, activations / samples * settings.get('batch_size', 1), cfg, report)


def _taps(model: Any, data: Any, report: Report) -> None:
    """Shapes of what the teacher gives for the batch."""
    import torch

    teacher = getattr(model, 'teacher', None)
    if teacher is None or not isinstance(data, dict) or not isinstance(data['inputs'], torch.Tensor):
        return
    with torch.no_grad():
        answers = teacher(data['inputs'], data_samples=data.get('data_samples'))
    shapes = {
        tap: (answer if isinstance(answer, torch.Tensor) else answer.values).shape  # or of regions or points
        for tap, answer in answers.items()
    }
    report.add('teacher taps', ', '.join(f'{tap} {tuple(shape)}' for tap, shape in shapes.items()))


def _resources(model: Any, activations: float, cfg: Config, report: Report) -> None:
    """Memory of one process and disk of the run, against what there is."""
    import torch

    from vfd.stores.progress import readable_bytes

    parameters = sum(p.numel() * p.element_size() for p in model.parameters())
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    optimizer = (cfg.optim_wrapper or {}).get('optimizer', {})
    moments = 2 if 'Adam' in str(optimizer.get('type')) else int(bool(optimizer.get('momentum')))
    network = getattr(getattr(model, 'teacher', None), 'network', None)
    teacher = sum(p.numel() * p.element_size() for p in network.parameters()) if network is not None else 0
    needed = parameters + trained * (1 + moments) + teacher + activations
    if torch.cuda.is_available():
        free, where = float(torch.cuda.mem_get_info()[0]), 'free on the GPU'
    else:
        free, where = _free_memory(), 'free in memory'
    mend = None
    if needed > free:
        mend = 'lower train_dataloader.batch_size and raise optim_wrapper.accumulative_counts, or use --amp'
    batch_size = cfg.train_dataloader.get('batch_size', 1)
    report.add(
        'memory',
        f'about {readable_bytes(needed)} for batches of {batch_size}, without workspace; '
        f'{readable_bytes(free)} {where}',
        mend,
    )
    checkpoint = parameters + trained * moments
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    number = hook.get('max_keep_ckpts', -1)
    length = cfg.train_cfg.get('max_iters') or cfg.train_cfg.get('max_epochs') or 1
    if number < 1:
        number = max(1, length // max(1, hook.get('interval', 1)))
    there = next(p for p in (Path(cfg.work_dir), *Path(cfg.work_dir).absolute().parents) if p.exists())
    disk = shutil.disk_usage(there).free
    report.add(
        'disk',
        f'about {readable_bytes(checkpoint * number)} for {number} checkpoints; {readable_bytes(disk)} free',
        'free some space, choose another --work-dir, or lower default_hooks.checkpoint.max_keep_ckpts'
        if checkpoint * number > disk
        else None,
    )


def _batch(loader: Any, dataset: Any, size: int) -> Any:
    """Samples of a data set, spread over it, collated as the loader does; those that cannot be read are left out."""
    from functools import partial

    from mmengine.registry import FUNCTIONS

    from vfd.engine.bad_data import is_bad_data

    samples = []
    for number in _spread(len(dataset), size):
        try:
            samples.append(dataset[number])
        except Exception as error:
            if not is_bad_data(error):
                raise
    settings = dict(loader.get('collate_fn') or {'type': 'pseudo_collate'})
    collate = settings.pop('type')
    return partial(FUNCTIONS.get(collate) if isinstance(collate, str) else collate, **settings)(samples)


def _spread(length: int, count: int) -> list[int]:
    """Numbers of ``count`` samples, evenly over a data set."""
    return sorted({number * length // count for number in range(count)} if length > count else range(length))


def _free_memory() -> float:
    """Bytes that processes may still take; all of the memory where the system does not say."""
    info = Path('/proc/meminfo')
    for line in info.read_text(encoding='utf-8').splitlines() if info.exists() else ():
        if line.startswith('MemAvailable:'):
            return int(line.split()[1]) * 1024
    return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
