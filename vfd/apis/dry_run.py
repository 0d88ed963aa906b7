"""``--dry-run``: build everything that a training needs, print what was built, and stop."""

from __future__ import annotations

import logging
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop
from rich.console import Console
from rich.table import Table
from torch import nn

from vfd import compat
from vfd.apis.training import clear_errors
from vfd.engine import Runner
from vfd.engine.launch import amp_available, uses_amp, without_amp
from vfd.errors import UserError
from vfd.evaluation.teacher_check import TeacherCheck, check_teacher
from vfd.teachers import Teacher


def dry_run(cfg: Config) -> dict[str, str]:
    """Build model, data, optimizer and schedule of a prepared config and print a table.

    Args:
        cfg: what :func:`vfd.apis.training.prepare` returns.

    Returns:
        The table's rows.
    """
    cfg.log_level = 'WARNING'  # the table is the output
    precision = _describe_precision(cfg.get('optim_wrapper'))
    if uses_amp(cfg.get('optim_wrapper')) and not amp_available():
        cfg.optim_wrapper = without_amp(cfg.optim_wrapper)  # the same optimizer
    with clear_errors(cfg):
        runner = Runner.from_cfg(cfg)
        try:
            loop, schedulers = _build(runner)
        finally:
            runner.remove_start_folders()
    rows = {'config': str(cfg.filename), 'work dir': str(cfg.work_dir)}
    rows.update(describe_model(runner.bare_model))
    loader = loop.dataloader
    rows['training images'] = f'{len(loader.dataset)}, batch {loader.batch_size} x {runner.world_size}'
    rows['steps'] = f'{loop.max_iters} ({_epochs(loop, runner.world_size):g} epochs)'
    rows['optimizer'] = _describe_optimizer(runner.optim_wrapper)
    rows['precision'] = precision
    rows['schedule'] = ', '.join(type(s).__name__ for s in schedulers) or 'constant'
    rows['starts from'] = _start(cfg)
    rows['versions'] = ', '.join(f'{name} {version}' for name, version in compat.status().items())
    rows.update(_describe_teacher(runner))
    table = Table(title='dry run: built, not trained', show_header=False, title_justify='left')
    for name, value in rows.items():
        table.add_row(name, value)
    Console(soft_wrap=False).print(table)
    return rows


def _build(runner: Runner) -> tuple[Any, list]:
    """Build what :meth:`Runner.train` builds: the training loop and the schedulers, among others."""
    loop = runner.build_train_loop(runner._train_loop)
    runner._train_loop = loop
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.scale_lr(runner.optim_wrapper, runner.auto_scale_lr)
    schedulers = runner.build_param_scheduler(runner.param_schedulers) if runner.param_schedulers else []
    if runner._val_loop is not None:
        _ = runner.val_loop  # builds it
    runner.load_or_resume()
    return loop, schedulers


def _epochs(loop: Any, processes: int) -> float:
    """Return how often the training sees every image."""
    if isinstance(loop, EpochBasedTrainLoop):
        return loop.max_epochs
    return round(loop.max_iters * loop.dataloader.batch_size * processes / len(loop.dataloader.dataset), 2)


def _describe_precision(optim_wrapper: Any) -> str:
    if not uses_amp(optim_wrapper):
        return 'full'
    dtype = str(optim_wrapper.get('dtype') or 'float16').removeprefix('torch.')
    where = '' if amp_available() else ' on a GPU; there is none here, where training would be refused'
    return f'mixed, {dtype}{where}'


def describe_model(model: nn.Module) -> dict[str, str]:
    """Return rows about a model: student, teacher, parameters, what was loaded."""
    rows: dict[str, str] = {'model': type(model).__name__}
    student = getattr(model, 'student', model)
    rows['student'] = _network_name(student)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    rows['student parameters'] = f'{total / 1e6:.3f} M, {trained / 1e6:.3f} M trained'
    teacher: Any = getattr(model, 'teacher', None)
    if teacher is not None:
        rows.update(teacher.summary())
    return rows


def _describe_teacher(runner: Runner) -> dict[str, str]:
    """Add the accuracy, or kNN, of a live teacher on validation images; warn where it is near chance."""
    teacher = getattr(runner.bare_model, 'teacher', None)
    if runner._val_loop is None or not isinstance(teacher, Teacher):
        return {}
    try:
        found = check_teacher(
            teacher,
            runner.val_loop.dataloader.dataset,
            lambda data: runner.bare_model.data_preprocessor(data, False),
        )
    except UserError as error:
        found = TeacherCheck('could not be measured', f'the teacher fails on validation images: {error}')
    if found.warning:
        print_log(found.warning, 'current', logging.WARNING)
    return {'teacher now': found.text}


def _network_name(module: nn.Module) -> str:
    inner = getattr(module, 'model', None) or getattr(module, 'backbone', None)
    name = type(module).__name__
    return f'{name} ({type(inner).__name__})' if isinstance(inner, nn.Module) else name


def _describe_optimizer(wrapper: Any) -> str:
    optimizer = wrapper.optimizer
    rates = sorted({group.get('initial_lr', group['lr']) for group in optimizer.param_groups})
    shown = f'{rates[0]:g}' if len(rates) == 1 else f'{rates[0]:g} to {rates[-1]:g}'
    return f'{type(optimizer).__name__} in {type(wrapper).__name__}, lr {shown}, {len(optimizer.param_groups)} groups'


def _start(cfg: Config) -> str:
    if cfg.get('resume'):
        return (
            f'resumes from {cfg.get("load_from") or "the newest checkpoint in the work dir, if there is one"}'
        )
    return f'weights of {cfg.load_from}' if cfg.get('load_from') else 'scratch'
