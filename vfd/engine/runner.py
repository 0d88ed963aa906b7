"""mmengine's Runner with exact resume, CPU process groups, and the hooks that every run of vfd has."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_distributed
from mmengine.hooks import CheckpointHook as MMCheckpointHook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.registry import LOOPS as ROOT_LOOPS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, set_random_seed
from mmengine.runner import Runner as _Runner
from torch import nn
from torch.utils.data import DataLoader

from vfd.engine import launch, resume
from vfd.engine.bad_data import BadDataLog
from vfd.engine.contract import TrainedMethod
from vfd.engine.distributed import cpu_group, init_cpu_group
from vfd.engine.hooks import BadDataHook, CheckpointHook, InterruptHook, NonFiniteHook, ProgressHook
from vfd.engine.loader import StreamLoader
from vfd.engine.loops import EpochTrainLoop, IterTrainLoop, LoopState
from vfd.engine.quiet import quiet_init_weights, quieten
from vfd.engine.work_dir import StartFolders
from vfd.errors import MissingFileError, UserError
from vfd.registry import RUNNERS

_LOOPS = {EpochBasedTrainLoop: EpochTrainLoop, IterBasedTrainLoop: IterTrainLoop}
_DEFAULT_HOOKS = {
    'non_finite': {'type': NonFiniteHook},
    'bad_data': {'type': BadDataHook},
    'progress': {'type': ProgressHook},
    'interrupt': {'type': InterruptHook},
}


@RUNNERS.register_module()
class Runner(_Runner):
    """Runs configs of mmpretrain, mmdet and mmseg as mmengine's Runner does. Arguments as there. In addition:

    - Resuming is exact, also in the middle of an epoch (:mod:`vfd.engine.resume`), and takes the newest checkpoint
      that is complete.
    - Training loops and the checkpoint hook of mmengine are replaced by vfd's, whatever way the config names them.
    - Four hooks are always there; ``default_hooks=dict(progress=None)`` switches one off: ``progress``, ``interrupt``,
      ``non_finite``, ``bad_data``.
    - ``strict_data=True`` (top level, or in one dataloader) makes a sample that cannot be used end the run.
    - ``launcher='pytorch'`` and ``'slurm'`` work without a GPU.
    - :meth:`from_cfg` honours ``strategy`` and ``runner_type`` of mmengine's FlexibleRunner
      (:mod:`vfd.engine.launch`).
    - ``auto_scale_lr`` counts gradient accumulation: what is scaled by is the batch of one optimizer step. A model
      of vfd (:mod:`vfd.engine.contract`) is told how many iterations make such a step.
    """

    control_group: Any = None
    started = False  # whether the first step was reached
    _load_from: str | None
    _resume: bool
    _resume_state: dict | None = None
    _rank_state: dict | None = None

    @classmethod
    def from_cfg(cls, cfg: Any) -> Runner:
        """Build the runner of a config.

        Raises:
            UserError: a strategy that cannot be run here.
        """
        cfg = copy.deepcopy(cfg)
        launch.apply_strategy(cfg)
        return super().from_cfg(cfg)

    def __init__(self, model: Any, work_dir: str, *args: Any, **kwargs: Any) -> None:
        self._start_folders = StartFolders(work_dir, getattr(kwargs.get('cfg'), 'filename', None))
        try:
            super().__init__(model, work_dir, *args, **kwargs)
        except BaseException:
            self.remove_start_folders()
            raise

    # --- processes

    def setup_env(self, env_cfg: dict) -> None:
        """Join the process group; with gloo when there is no GPU."""
        on_cpu = not torch.cuda.is_available() and self._launcher in ('pytorch', 'slurm')
        if on_cpu and not is_distributed():
            init_cpu_group(self._launcher, env_cfg.get('dist_cfg', {}))
        super().setup_env(env_cfg)
        self.control_group = cpu_group()

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Wrap the model for distributed training; on CPU without device ids."""
        if self.distributed and not torch.cuda.is_available():
            unused = self.cfg.get('find_unused_parameters', False)
            default = {'broadcast_buffers': False, 'find_unused_parameters': unused}
            model_wrapper_cfg = {**(model_wrapper_cfg or default), 'device_ids': None}
        return super().wrap_model(model_wrapper_cfg, model)

    @property
    def bare_model(self) -> Any:
        """The model without the wrapper of distributed training."""
        return self.model.module if is_model_wrapper(self.model) else self.model

    # --- log and folders

    def build_logger(self, log_level: int | str = 'INFO', log_file: str | None = None, **kwargs: Any) -> Any:
        """Build the logger, without mmengine's long listings (:mod:`vfd.engine.quiet`)."""
        logger = super().build_logger(log_level, log_file, **kwargs)
        quieten(logger)
        return logger

    def build_log_processor(self, log_processor: Any) -> Any:
        """Build the log processor: in a loop that counts iterations its lines count them too, unless told otherwise."""
        by_epoch = self._train_loop.get('by_epoch', True) if isinstance(self._train_loop, dict) else True
        if isinstance(log_processor, dict) and log_processor.get('type', 'LogProcessor') == 'LogProcessor':
            log_processor = {'by_epoch': by_epoch, **log_processor}
        return super().build_log_processor(log_processor)

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call all hooks at one point of the run."""
        self.started = self.started or fn_name in ('before_train_iter', 'before_val', 'before_test')
        super().call_hook(fn_name, **kwargs)

    def remove_start_folders(self) -> None:
        """Remove what the start created in the work folder, where training has not begun."""
        if self.started or not hasattr(self, '_log_dir') or self.rank:
            return
        self._start_folders.remove(
            self._log_dir, self.__dict__.get('logger'), self.__dict__.get('visualizer')
        )

    # --- data

    @functools.cached_property
    def bad_data(self) -> BadDataLog:
        """The record of samples that were skipped."""
        return BadDataLog(self.work_dir)

    def build_dataloader(  # type: ignore[override]
        self,
        dataloader: DataLoader | dict,
        seed: int | None = None,
        diff_rank_seed: bool = False,
        training: bool = False,
    ) -> StreamLoader:
        """Build a loader whose samples do not depend on the number of workers and ranks.

        Args:
            dataloader: config as in mmengine, which may hold ``strict_data``; or a loader.
            seed: seed of sampler and samples, the run's by default.
            diff_rank_seed: as in mmengine.
            training: skipped samples are replaced, and the loader can start anywhere.
        """
        if isinstance(dataloader, StreamLoader):
            return dataloader
        strict = self.cfg.get('strict_data', False)
        if isinstance(dataloader, dict):
            dataloader = dict(dataloader)
            strict = dataloader.pop('strict_data', strict)
        seed = self.seed if seed is None else seed
        loader = super().build_dataloader(dataloader, seed, diff_rank_seed)
        return StreamLoader(loader, seed, training=training, strict=strict, bad_data=self.bad_data)

    def build_train_dataloader(self, dataloader: DataLoader | dict) -> StreamLoader:
        """Build the loader of a training loop."""
        diff_rank_seed = self._randomness_cfg.get('diff_rank_seed', False)
        return self.build_dataloader(dataloader, self.seed, diff_rank_seed, training=True)

    # --- optimizer

    def build_optim_wrapper(self, optim_wrapper: Any) -> Any:
        """Build the optimizer wrapper, and tell the model how many iterations make one optimizer step.

        Raises:
            UserError: mixed precision that this machine cannot run.
        """
        launch.check_amp(optim_wrapper)
        built = super().build_optim_wrapper(optim_wrapper)
        if isinstance(self.bare_model, TrainedMethod):
            counts = {_accumulative_counts(wrapper) for wrapper in resume.single_wrappers(built)}
            assert len(counts) == 1, 'a model with several optimizers counts for itself'
            self.bare_model.accumulative_counts = counts.pop()
        return built

    def scale_lr(self, optim_wrapper: Any, auto_scale_lr: dict | None = None) -> None:
        """Scale learning rates by the samples of one optimizer step (all processes, accumulated) over the base's."""
        if auto_scale_lr is None or not auto_scale_lr.get('enable', False):
            return
        for wrapper in resume.single_wrappers(optim_wrapper):
            counts = _accumulative_counts(wrapper)
            if counts > 1:
                self.logger.info(f'one optimizer step sees {counts} batches (accumulative_counts)')
            # mmengine compares the base with the samples of one iteration.
            base = auto_scale_lr['base_batch_size'] / counts
            super().scale_lr(wrapper, {**auto_scale_lr, 'base_batch_size': base})

    # --- loops and hooks

    def build_train_loop(self, loop: Any) -> Any:
        """Build the training loop: vfd's in the place of mmengine's."""
        if isinstance(loop, dict):
            loop = dict(loop)
            if 'type' not in loop:
                loop['type'] = EpochBasedTrainLoop if loop.pop('by_epoch') else IterBasedTrainLoop
            named = ROOT_LOOPS.get(loop['type']) if isinstance(loop['type'], str) else loop['type']
            loop['type'] = _LOOPS.get(named, loop['type'])
        return super().build_train_loop(loop)

    def register_default_hooks(self, hooks: dict[str, Any] | None = None) -> None:
        """Register mmengine's default hooks and vfd's."""
        chosen: dict[str, Any] = {
            'checkpoint': {'type': 'CheckpointHook', 'interval': 1},
            **_DEFAULT_HOOKS,
            **(hooks or {}),
        }
        checkpoint = chosen['checkpoint']
        if isinstance(checkpoint, dict):
            named = (
                ROOT_HOOKS.get(checkpoint['type'])
                if isinstance(checkpoint['type'], str)
                else checkpoint['type']
            )
            if named is MMCheckpointHook:
                chosen['checkpoint'] = {**checkpoint, 'type': CheckpointHook}
        super().register_default_hooks(
            {k: v for k, v in chosen.items() if v is not None or k not in _DEFAULT_HOOKS}
        )

    def train(self) -> nn.Module:
        """Launch training. Whatever ends it, hooks that have an ``on_exit(runner)`` are called."""
        self._find_resume()
        try:
            return super().train()
        finally:
            self.remove_start_folders()
            self.call_hook('on_exit')
            for loop in (self._train_loop, self._val_loop):
                if isinstance(getattr(loop, 'dataloader', None), StreamLoader):
                    loop.dataloader.close()

    # --- resuming

    def _init_model_weights(self) -> None:
        """As mmengine, but for networks of timm: they are complete once they are built.

        mmengine would call their ``init_weights`` and so draw all weights anew, published ones too.
        """
        for part in self.bare_model.modules():
            if hasattr(part, 'pretrained_cfg') and hasattr(part, 'init_weights'):
                part.is_init = True
        with quiet_init_weights(self.bare_model):
            super()._init_model_weights()
        if self.rank and not self._randomness_cfg.get('diff_rank_seed', False):
            # The same weights everywhere, but from here on each process draws its own masks, views and dropout.
            set_random_seed(self.seed + self.rank)

    def _find_resume(self) -> None:
        """Decide what is resumed before anything is built that depends on the seed."""
        if not self._resume or self._has_loaded:
            return
        if self._load_from is None:
            found, passed_over = resume.newest_checkpoint(self.work_dir)
            for reason in passed_over:
                self.logger.warning(f'passed over: {reason}')
            if found is None and passed_over:
                raise UserError(
                    f'no checkpoint in {self.work_dir} can be resumed. Run without --resume to start again'
                )
            if found is None:
                self.logger.info(f'nothing to resume in {self.work_dir}: starting from the beginning')
                self._resume = False
                return
            self._load_from = str(found)
        if '://' in self._load_from:
            return
        if not Path(self._load_from).is_file():
            raise MissingFileError(f'the checkpoint to resume is not there: {self._load_from}')
        seed = resume.read_checkpoint(self._load_from)['meta'].get('seed')
        if seed is not None and seed != self.seed:
            if self._randomness_cfg.get('seed') is not None:
                self.logger.warning(f'seed {seed} of the checkpoint is used, not {self.seed} of the config')
            self._randomness_cfg['seed'] = seed
            self.set_randomness(**self._randomness_cfg)

    def load_or_resume(self) -> None:
        """Load or resume, as the config says."""
        self._find_resume()
        super().load_or_resume()

    def load_checkpoint(
        self,
        filename: str,
        map_location: str | Callable = 'cpu',
        strict: bool = False,
        revise_keys: list = [(r'^module\.', '')],  # noqa: B006  (mmengine's signature)
    ) -> dict:
        """Load a checkpoint into the model. When resuming, or into a method's model, every tensor has to fit.

        Raises:
            MissingFileError: the file is not there.
            UserError: the file is of another model or, when resuming, was trained with another teacher.
        """
        strict = strict or self._resume or isinstance(self.bare_model, TrainedMethod)
        try:
            checkpoint = super().load_checkpoint(filename, map_location, strict, revise_keys)
        except FileNotFoundError as error:
            raise MissingFileError(f'the checkpoint is not there: {filename}') from error
        except RuntimeError as error:
            if not strict:
                raise
            raise UserError(
                f'{filename} is not of the model in this config, nothing was loaded: {error}'
            ) from error
        if self._resume:
            resume.check_teacher(checkpoint, self.bare_model, filename)
        if 'message_hub' in checkpoint:
            hub = checkpoint['message_hub']
            hub['log_scalars'] = resume.history_buffers(hub['log_scalars'])
        self._resume_state = checkpoint.pop(resume.RESUME_STATE, None)
        return checkpoint

    def resume(
        self,
        filename: str,
        resume_optimizer: bool = True,
        resume_param_scheduler: bool = True,
        map_location: str | Callable = 'cpu',
    ) -> None:
        """Resume a run. Optimizer states move to their parameters' device by themselves."""
        planned = resume.schedules(self.param_schedulers) if resume_param_scheduler else {}
        super().resume(filename, resume_optimizer, resume_param_scheduler, map_location)
        for change in resume.changed_schedules(planned, self.param_schedulers):
            self.logger.warning(
                f'the schedule of the checkpoint goes on, not that of the config: {change}. For another schedule start '
                'a new run from these weights with load_from'
            )
        state, loop = self._resume_state, self.train_loop
        if state is None or not hasattr(loop, 'position'):
            why = (
                'the checkpoint was not written by vfd'
                if state is None
                else f'{type(loop).__name__} has no position'
            )
            self.logger.warning(
                f'not exact: {why}. Weights, optimizer and schedule continue, random numbers and the order of the data '
                'start anew'
            )
            if hasattr(loop, 'position'):
                loop.position = LoopState(epoch=loop.epoch, iter=loop.iter, data_epoch=loop.epoch)
            return
        loop.position = LoopState(**state['position'])
        batches = len(loop.dataloader)
        if batches != state['batches'] and loop.position.batch and isinstance(loop, EpochTrainLoop):
            raise UserError(
                f'{filename} was saved in the middle of an epoch of {state["batches"]} batches a process, now an epoch '
                f'has {batches}. Resume with the same data, batch size and number of processes, or from a checkpoint '
                'of the end of an epoch'
            )
        sampler = loop.dataloader.draws.base
        if hasattr(sampler, 'seed'):
            sampler.seed = state['sampler_seed']
        if len(state['ranks']) != self.world_size:
            self.logger.warning(
                f'not exact: {len(state["ranks"])} processes then, {self.world_size} now; random numbers start anew'
            )
            return
        self._rank_state = state['ranks'][self.rank]
        if 'method' in self._rank_state:
            self.bare_model.load_method_state(self._rank_state['method'])

    def resume_state(self, ranks: list[dict]) -> dict:
        """What a checkpoint has to hold beyond mmengine's.

        Args:
            ranks: :func:`vfd.engine.resume.rank_state` of every rank.
        """
        loop = self.train_loop
        return {
            'position': dataclasses.asdict(loop.position),
            'batches': len(loop.dataloader),
            'sampler_seed': getattr(loop.dataloader.draws.base, 'seed', None),
            'ranks': ranks,
        }

    def restore_rank_state(self) -> None:
        """Called by the training loop when everything is built: generators and gradients as they were."""
        if self._rank_state is None:
            return
        unfinished = len(self._rank_state['gradients'])
        resume.restore_gradients(self._rank_state, self.bare_model, self.optim_wrapper)
        if unfinished:
            self.logger.info(
                f'{unfinished} gradients of an unfinished accumulation restored: nothing is lost'
            )
        self.restore_rng()

    def restore_rng(self) -> None:
        """Called by the training loop right before the first resumed step."""
        if self._rank_state is not None:
            resume.restore_rng(self._rank_state)


def _accumulative_counts(wrapper: Any) -> int:
    """How many iterations make one step of an optimizer wrapper."""
    return getattr(wrapper, '_accumulative_counts', 1)
