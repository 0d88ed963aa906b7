"""Try one real batch of a config for ``vfd doctor``: losses, taps and shapes, memory and disk.

Everything is imported where it is used: the environment is examined before.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmengine.config import Config

    from vfd.apis.doctor import Report

BATCH = 8  # samples


def try_batch(model: Any, dataset: Any, cfg: Config, report: Report) -> None:
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
    """Report the shapes of the teacher's outputs for the batch."""
    import torch

    teacher = getattr(model, 'teacher', None)
    if teacher is None or not isinstance(data, dict) or not isinstance(data['inputs'], torch.Tensor):
        return
    with torch.no_grad():
        outputs = teacher(data['inputs'], data_samples=data.get('data_samples'))
    shapes = {
        tap: (output if isinstance(output, torch.Tensor) else output.values).shape  # or of regions or points
        for tap, output in outputs.items()
    }
    report.add('teacher taps', ', '.join(f'{tap} {tuple(shape)}' for tap, shape in shapes.items()))


def _resources(model: Any, activations: float, cfg: Config, report: Report) -> None:
    """Report the memory of one process and the disk of the run, against what is free."""
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
    """Collate samples spread over a data set as the loader does; those that cannot be read are left out."""
    from functools import partial

    from mmengine.registry import FUNCTIONS

    from vfd.engine.bad_data import is_bad_data

    samples = []
    for number in spread(len(dataset), size):
        try:
            samples.append(dataset[number])
        except Exception as error:
            if not is_bad_data(error):
                raise
    settings = dict(loader.get('collate_fn') or {'type': 'pseudo_collate'})
    collate = settings.pop('type')
    return partial(FUNCTIONS.get(collate) if isinstance(collate, str) else collate, **settings)(samples)


def spread(length: int, count: int) -> list[int]:
    """Return the numbers of ``count`` samples, evenly over a data set."""
    return sorted({number * length // count for number in range(count)} if length > count else range(length))


def _free_memory() -> float:
    """Return the bytes that are free for processes; the whole memory where the system does not report them."""
    info = Path('/proc/meminfo')
    for line in info.read_text(encoding='utf-8').splitlines() if info.exists() else ():
        if line.startswith('MemAvailable:'):
            return int(line.split()[1]) * 1024
    return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
