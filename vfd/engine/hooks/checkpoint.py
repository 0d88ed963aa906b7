"""Checkpoints that are complete or absent, and hold what an exact resume needs."""

from __future__ import annotations

import copy
from collections import deque
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook as MMCheckpointHook

from vfd.engine import resume
from vfd.engine.distributed import gather_to_main
from vfd.errors import UserError
from vfd.registry import HOOKS
from vfd.stores.atomic import atomic_write

INTERRUPTED = 'interrupted.pth'
_MODEL_KEYS = ('state_dict', 'ema_state_dict')


@register_backend('vfd_atomic', force=True)
class AtomicBackend(LocalBackend):
    """mmengine's local files, written completely or not at all."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes."""
        atomic_write(filepath, obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write text."""
        atomic_write(filepath, obj.encode(encoding))


@HOOKS.register_module()
class CheckpointHook(MMCheckpointHook):
    """mmengine's checkpoint hook (arguments as there), safe against kill -9 and a full disk.

    A file is written under a temporary name, forced to the disk and renamed; an older one is removed only then. When
    a save fails, the last good checkpoint is still there and the error names it.
    """

    backend_args: dict | None
    best_ckpt_path: str | None
    best_ckpt_path_dict: dict[str, str | None]
    keep_ckpt_ids: deque
    last_ckpt: str | None

    def before_train(self, runner: Any) -> None:
        """Find out where to save."""
        if (
            self.backend_args is None
            and self.file_client_args is None
            and '://' not in str(self.out_dir or '')
        ):
            self.backend_args = {'backend': 'vfd_atomic'}
        super().before_train(runner)
        if is_main_process() and Path(self.out_dir).is_dir():
            for unfinished in Path(self.out_dir).glob(
                '.*.tmp.pth'
            ):  # of a run that was killed while it saved
                unfinished.unlink()
        self._saved_at: Any = None
        self._ranks: list[dict] | None = None

    def every_n_epochs(self, runner: Any, n: int, start: int = 0) -> bool:
        """Whether the pass that ends now completes a multiple of ``n`` epochs after ``start``.

        A pass of ``vfd.MultiCropEpochLoop`` counts as several epochs, of which any may be that one.
        """
        done = runner.epoch + 1 - start
        begun = done - getattr(runner.train_loop, 'pass_epochs', 1)
        return n > 0 and done >= 0 and done // n > begun // n

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Add what an exact resume needs, and turn everything but the weights into plain types."""
        checkpoint['meta']['vfd'] = resume.vfd_meta(runner, runner.bare_model)
        if self._ranks is not None and hasattr(runner.train_loop, 'position'):
            checkpoint[resume.RESUME_STATE] = runner.resume_state(self._ranks)
        for key in checkpoint:
            if key not in _MODEL_KEYS:
                checkpoint[key] = resume.to_plain(checkpoint[key])

    def save_interrupted(self, runner: Any) -> str:
        """Save where the training loop is now, for a run that ends here. Every rank has to call it.

        Returns:
            The file that resumes from here.
        """
        position = runner.train_loop.position
        if self._saved_at != position:
            self._write(runner, INTERRUPTED, {'epoch': position.epoch, 'iter': position.iter})
        assert self.last_ckpt is not None
        return self.last_ckpt

    def _save_checkpoint_with_step(self, runner: Any, step: int, meta: dict) -> None:
        steps = list(self.keep_ckpt_ids) if self.max_keep_ckpts > 0 else []
        if steps[-1:] != [step]:
            steps.append(step)
        if (
            self.max_keep_ckpts > 0
        ):  # with the ones removed below: if killed before that, the resumed run removes them
            runner.message_hub.update_info('keep_ckpt_ids', list(steps))
        self._write(runner, self.filename_tmpl.format(step), meta)
        if is_main_process():
            outdated = [self.filename_tmpl.format(old) for old in steps[: -self.max_keep_ckpts]]
            for name in [INTERRUPTED, *(outdated if self.max_keep_ckpts > 0 else [])]:
                path = self.file_backend.join_path(self.out_dir, name)
                if self.file_backend.isfile(path):
                    self.file_backend.remove(path)
        if self.max_keep_ckpts > 0:
            self.keep_ckpt_ids = deque(steps, self.max_keep_ckpts)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))

    def _write(self, runner: Any, filename: str, meta: dict) -> None:
        """Save everything, then make it the one that is resumed."""
        self._ranks = gather_to_main(
            resume.rank_state(runner.bare_model, runner.optim_wrapper), runner.control_group
        )
        path = self.file_backend.join_path(self.out_dir, filename)
        runner.message_hub.update_info('last_ckpt', path)
        try:
            runner.save_checkpoint(
                self.out_dir,
                filename,
                self.file_client_args,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler and runner.param_schedulers is not None,
                meta=meta,
                by_epoch=self.by_epoch,
                backend_args=self.backend_args,
                **self.args,
            )
            if is_main_process():
                atomic_write(Path(runner.work_dir) / 'last_checkpoint', path)
        except OSError as error:
            raise _failed(runner, path, error) from error
        finally:
            self._ranks = None
        self.last_ckpt = path
        self._saved_at = copy.copy(getattr(runner.train_loop, 'position', None))

    def _save_best_checkpoint(self, runner: Any, metrics: dict) -> None:
        if not self.save_best:
            return
        # mmengine removes the previous best first; here it does not see it, and it is removed afterwards.
        single = len(self.key_indicators) == 1
        previous = {'': self.best_ckpt_path} if single else dict(self.best_ckpt_path_dict)
        if single:
            self.best_ckpt_path = None
        else:
            self.best_ckpt_path_dict = dict.fromkeys(previous)
        try:
            super()._save_best_checkpoint(runner, metrics)
        except OSError as error:
            raise _failed(runner, self.out_dir, error) from error
        current = {'': self.best_ckpt_path} if single else self.best_ckpt_path_dict
        for key, old in previous.items():
            if current[key] is None:
                current[key] = old
            elif old not in (None, current[key]) and is_main_process() and self.file_backend.isfile(old):
                self.file_backend.remove(old)
        if single:
            self.best_ckpt_path = current['']


def _failed(runner: Any, path: str, error: OSError) -> UserError:
    survivor, _ = resume.newest_checkpoint(runner.work_dir)
    kept = (
        f'The last good checkpoint is {survivor}.'
        if survivor
        else 'There is no earlier checkpoint of this run.'
    )
    return UserError(f'{path} could not be written: {error}. {kept} Make room, then continue with --resume')
