"""What a checkpoint holds beyond mmengine's, so that a resumed run continues bit by bit.

``N`` steps equal ``k`` steps, a kill, and ``N - k`` steps. mmengine saves weights, optimizer, schedulers, EMA, loss
scaler and log buffers. Added here, in plain tensors and python types: the generators of every rank, the position in
the data (:class:`~vfd.engine.loops.LoopState`), gradients in the middle of an accumulation, and the method's own state.
"""

from __future__ import annotations

import pickle
import random
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import nn

import vfd
from vfd.engine.contract import TrainedMethod
from vfd.errors import UserError

RESUME_STATE = 'resume_state'
_UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError)


# --- the generators and gradients of one rank


def rank_state(model: Any, optim_wrapper: Any) -> dict[str, Any]:
    """What only this rank knows.

    Args:
        model: the model, unwrapped.
        optim_wrapper: mmengine's ``OptimWrapper`` or ``OptimWrapperDict``.
    """
    _, keys, position, has_gauss, gauss = np.random.get_state()
    state: dict[str, Any] = {
        'python': random.getstate(),
        'numpy': (torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss),
        'torch': torch.get_rng_state(),
        'gradients': {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None},
        'inner_counts': [wrapper._inner_count for wrapper in single_wrappers(optim_wrapper)],
    }
    if torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state()
    if isinstance(model, TrainedMethod) and (kept := model.method_state()):
        state['method'] = kept
    return state


def restore_rng(state: dict[str, Any]) -> None:
    """Set the generators of python, numpy and torch (and this rank's GPU) as they were."""
    random.setstate(state['python'])
    keys, position, has_gauss, gauss = state['numpy']
    np.random.set_state(('MT19937', keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state['torch'].cpu())
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())


def restore_gradients(state: dict[str, Any], model: nn.Module, optim_wrapper: Any) -> None:
    """Put back what an unfinished accumulation had gathered, and how far it was."""
    gradients = state.pop('gradients')
    for name, parameter in model.named_parameters():
        if name in gradients:
            parameter.grad = gradients[name].to(parameter.device, copy=True)
    for wrapper, count in zip(single_wrappers(optim_wrapper), state['inner_counts'], strict=True):
        wrapper._inner_count = count


def single_wrappers(optim_wrapper: Any) -> list:
    """The wrappers of an ``OptimWrapperDict``; of any other, itself."""
    return list(getattr(optim_wrapper, 'optim_wrappers', {'': optim_wrapper}).values())


# --- plain types


def to_plain(value: Any) -> Any:
    """The value with numpy's types and mmengine's history buffers turned into tensors and python types.

    A file of these is read by ``torch.load(weights_only=True)`` without any class being declared.
    """
    if isinstance(value, HistoryBuffer):
        history, counts = value.data
        return {'history': to_plain(history), 'counts': to_plain(counts), 'max_length': value.max_length}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist() if value.dtype.kind in 'OUS' else torch.from_numpy(value.copy())
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(to_plain(item) for item in value)
    if isinstance(value, list):
        return [to_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def history_buffers(log_scalars: dict[str, Any]) -> OrderedDict:
    """mmengine's history buffers from what :func:`to_plain` made of them."""
    buffers = OrderedDict()
    for name, value in log_scalars.items():
        if isinstance(value, dict):
            value = HistoryBuffer(value['history'].numpy(), value['counts'].numpy(), value['max_length'])
        buffers[name] = value
    return buffers


# --- what the checkpoint says about itself


def vfd_meta(runner: Any, model: Any) -> dict[str, Any]:
    """``meta['vfd']``: version, name of the config and, where there is one, the teacher's fingerprint."""
    filename = runner.cfg.filename
    meta = {'version': vfd.__version__, 'config': Path(filename).name if filename else None}
    if isinstance(model, TrainedMethod) and (teacher := model.teacher_fingerprint()) is not None:
        meta['teacher'] = to_plain(teacher)
    return meta


def check_teacher(checkpoint: dict, model: Any, filename: str) -> None:
    """Refuse to continue under another teacher.

    Raises:
        UserError: the fingerprints differ.
    """
    then = checkpoint['meta'].get('vfd', {}).get('teacher')
    teacher = model.teacher_fingerprint() if isinstance(model, TrainedMethod) else None
    if then is None or teacher is None:
        return
    now = to_plain(teacher)
    differing = _differing(then, now)
    if differing:
        lines = [f'  {key}: {before!r} in the checkpoint, {after!r} now' for key, before, after in differing]
        raise UserError(
            f'{filename} was trained with another teacher:\n' + '\n'.join(lines) + '\n'
            'Resume with the same teacher, or start a new run from these weights with load_from.'
        )


def _differing(then: dict[str, Any], now: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Values of two fingerprints that differ: (name, in the checkpoint, now).

    Older checkpoints hold fewer keys, and fewer of a source's settings: a key that one side lacks is not compared.
    Their ``dtype`` was ``float32`` where today's default says ``auto``.
    """
    pairs = [(key, then[key], now[key]) for key in now if key in then]
    found = []
    for key, before, after in pairs:
        if key == 'settings':
            found += [(f'{key}.{name}', before[name], after[name]) for name in after if name in before]
        elif (key, before, after) != ('dtype', 'float32', 'auto'):
            found.append((key, before, after))
    return [(key, before, after) for key, before, after in found if before != after]


# --- schedules

_PROGRESS = {'last_step', '_global_step', '_last_value', 'base_values', 'verbose'}


def schedules(schedulers: Any) -> dict[str, Any]:
    """What the schedulers were built with, not where they are: ``<scheduler>.<setting>`` -> value.

    Args:
        schedulers: mmengine's list, or dictionary of lists, of parameter schedulers.
    """
    lists = schedulers if isinstance(schedulers, dict) else {'': schedulers or []}
    return {
        f'{owner}{"." if owner else ""}{type(scheduler).__name__}[{i}].{name}': value
        for owner, some in lists.items()
        for i, scheduler in enumerate(some)
        for name, value in scheduler.state_dict().items()
        if name not in _PROGRESS
    }


def changed_schedules(planned: dict[str, Any], schedulers: Any) -> list[str]:
    """Settings of the schedulers that a checkpoint replaced, one line each."""
    now = schedules(schedulers)
    return [
        f'{name} is {now[name]!r} (config: {value!r})'
        for name, value in planned.items()
        if name in now and now[name] != value
    ]


# --- finding it


def read_checkpoint(path: str | Path) -> dict:
    """The checkpoint, its tensors mapped from the file instead of read.

    Raises:
        UserError: the file is incomplete, or no checkpoint that can be resumed.
    """
    try:
        checkpoint = torch.load(path, map_location='cpu', weights_only=True, mmap=True)
    except _UNREADABLE as error:
        raise UserError(f'{path} is incomplete or no checkpoint ({str(error).splitlines()[0]})') from error
    if not isinstance(checkpoint, dict) or not {'meta', 'state_dict', 'optimizer'} <= set(checkpoint):
        raise UserError(
            f'{path} holds no optimizer state, so it cannot be resumed (it can be used with load_from)'
        )
    return checkpoint


def newest_checkpoint(work_dir: str | Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint of a run that is complete.

    ``last_checkpoint`` is believed, unless a checkpoint was written after it (the run was killed in between), or it
    is empty, points nowhere, or to a file that cannot be read.

    Args:
        work_dir: folder of the run.

    Returns:
        The file (None when there is none) and, for each newer file that had to be passed over, why.
    """
    pointer = Path(work_dir) / 'last_checkpoint'
    named = Path(pointer.read_text().strip()) if pointer.is_file() else Path()
    folders = {Path(work_dir), named.parent if named.is_file() else Path(work_dir)}
    files = [file for folder in folders for file in folder.glob('*.pth') if not file.name.startswith('.')]
    files.sort(key=lambda file: file.stat().st_mtime_ns, reverse=True)
    if named in files:
        written = pointer.stat().st_mtime_ns
        files.sort(key=lambda file: (file.stat().st_mtime_ns > written, file == named), reverse=True)
    passed_over = []
    for file in files:
        try:
            read_checkpoint(file)
        except UserError as error:
            passed_over.append(str(error))
        else:
            return file, passed_over
    return None, passed_over
