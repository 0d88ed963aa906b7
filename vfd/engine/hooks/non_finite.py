"""A loss that is not a finite number ends the run, with the batch named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from mmengine.hooks import Hook
from torch import Tensor, nn

from vfd.engine.distributed import any_rank
from vfd.engine.loops import SkipBatch
from vfd.errors import UserError
from vfd.registry import HOOKS
from vfd.stores.sample_key import find_key


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Looks at every training loss.

    On a CPU, and with ``action='skip'``, the losses are read before anything is updated. On a GPU that would make
    every step wait, so with ``action='stop'`` they are read after the step, together with mmengine's log values: the
    weights in memory were then updated once with the bad loss, and no checkpoint of them is written.

    Args:
        action: ``stop`` the run with a :class:`~vfd.errors.UserError`, or ``skip`` the update of that batch (on all
            ranks) and count it; the latter costs a wait for the GPU in every step.
    """

    priority = 'HIGH'  # before everything that would keep the step: EMA, logs, checkpoints

    def __init__(self, action: str = 'stop') -> None:
        if action not in ('stop', 'skip'):
            raise UserError(f'NonFiniteHook: action={action!r}; expected "stop" or "skip"')
        self.action = action
        self.skipped = 0
        self._data_batch: Any = None
        self._looked_at = False
        self._handle: Any = None

    def before_train(self, runner: Any) -> None:
        """Watch the model's losses."""
        self._runner = runner
        watch = self._after_forward
        if runner.cfg.get('compile'):  # reading a value cannot be part of a compiled step
            watch = torch.compiler.disable(watch)
        self._handle = runner.bare_model.register_forward_hook(watch, with_kwargs=True)

    def on_exit(self, runner: Any) -> None:
        """Stop watching."""
        if self._handle is not None:
            self._handle.remove()

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Remember the batch."""
        self._data_batch = data_batch
        self._looked_at = False

    def _after_forward(self, model: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        if kwargs.get('mode') != 'loss' or not isinstance(output, dict):
            return
        losses = list(_losses(output))
        if self.action == 'stop':
            self._looked_at = not any(value.is_cuda for _, value in losses)
            if self._looked_at:
                self._stop_if_bad(losses, 'Nothing was updated with it.')
            return
        bad = _not_finite(losses)
        if any_rank(bool(bad), self._runner.control_group):
            self.skipped += 1
            self._runner.logger.warning(
                f'{self._describe(bad)} Its update is skipped ({self.skipped} so far).'
            )
            raise SkipBatch

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Read what was not read before the update."""
        if self.action == 'stop' and not self._looked_at:
            self._stop_if_bad(
                list(_losses(outputs or {})),
                'The weights in memory were updated with it; the last checkpoint was not.',
            )

    def _stop_if_bad(self, losses: list[tuple[str, Tensor]], consequence: str) -> None:
        bad = _not_finite(losses)
        if bad:
            raise UserError(
                f'{self._describe(bad)} {consequence} Look at these files; otherwise a lower learning rate, a longer '
                'warm-up, gradient clipping (optim_wrapper.clip_grad) or float32 usually helps'
            )

    def _describe(self, bad: dict[str, float]) -> str:
        values = ', '.join(f'{name} = {value}' for name, value in bad.items()) or 'of another process'
        files = batch_files(self._data_batch)
        named = ', '.join(files) if files else 'the samples have neither path nor sample_key'
        return f'The loss is not finite at iteration {self._runner.iter + 1} ({values}). The batch: {named}.'


def _losses(outputs: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """The tensors (one or a list a name) that the model adds up to its loss, as mmengine's ``parse_losses`` does."""
    for name, value in outputs.items():
        if 'loss' in name:
            for item in value if isinstance(value, (list, tuple)) else [value]:
                yield name, torch.as_tensor(item)


def _not_finite(losses: list[tuple[str, Tensor]]) -> dict[str, float]:
    return {name: value.detach().sum().item() for name, value in losses if not torch.isfinite(value).all()}


def batch_files(data_batch: Any) -> list[str]:
    """The path of every sample of a batch, or its own key (:mod:`vfd.stores.sample_key`), where there is one."""
    if not isinstance(data_batch, dict):
        return []
    samples = data_batch.get('data_samples') or []
    files = [key for sample in samples if (key := find_key(sample))]
    return files or [str(path) for path in data_batch.get('img_path', [])]
