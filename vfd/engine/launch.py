"""What a config says about how a run is launched: ``runner_type``, ``strategy`` and mixed precision.

A config written for mmengine's ``FlexibleRunner`` runs on :class:`vfd.engine.Runner`, which resumes exactly. Its
strategy is translated into the settings that the Runner reads; what cannot be translated is refused by name.

=======================  ============================================================================
strategy                 what the Runner does
=======================  ============================================================================
SingleDeviceStrategy     one process
DDPStrategy              ``model_wrapper`` -> ``model_wrapper_cfg``, ``sync_bn`` -> ``sync_bn``
FSDPStrategy and others  refused, with the reason
=======================  ============================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.device import is_cuda_available, is_mlu_available, is_musa_available, is_npu_available
from mmengine.optim import AmpOptimWrapper
from mmengine.registry import OPTIM_WRAPPERS

from vfd.errors import UserError, did_you_mean

RUNNER_TYPES = ('Runner', 'FlexibleRunner', 'mmengine.Runner', 'mmengine.FlexibleRunner', 'vfd.Runner')

# The keys that a strategy may have here, and the setting of the Runner that each becomes.
_HONOURED: dict[str, dict[str, str]] = {
    'SingleDeviceStrategy': {},
    'DDPStrategy': {'model_wrapper': 'model_wrapper_cfg', 'sync_bn': 'sync_bn'},
}
# Keys of every strategy of mmengine, and where the same is set once for the whole config.
_AT_TOP_LEVEL = {
    'work_dir': 'work_dir',
    'experiment_name': 'experiment_name',
    'env_kwargs': 'env_cfg and randomness',
    'log_kwargs': 'log_level',
    'auto_scale_lr': 'auto_scale_lr',
}
_SHARDED = 'it splits weights and optimizer between GPUs, and a run that is resumed exactly needs them whole'
_REFUSED = {
    'FSDPStrategy': _SHARDED,
    'DeepSpeedStrategy': f'DeepSpeed replaces optimizer, mixed precision and checkpoints by its own; {_SHARDED}',
    'ColossalAIStrategy': f'Colossal-AI replaces optimizer, mixed precision and checkpoints by its own; {_SHARDED}',
}


def check_strategy(config: Mapping[str, Any]) -> None:
    """Check ``runner_type`` and ``strategy`` of a config.

    Raises:
        UserError: a runner or strategy that is not run here, or a key that would be ignored.
    """
    runner = config.get('runner_type', 'Runner')
    if runner not in RUNNER_TYPES:
        raise UserError(
            f'runner_type={runner!r}: vfd runs configs of Runner and FlexibleRunner, both on its own runner, which '
            f'resumes exactly{did_you_mean(str(runner), RUNNER_TYPES)}. Another runner needs a script of its own'
        )
    strategy = config.get('strategy')
    if strategy is None:
        return
    if not isinstance(strategy, Mapping) or not strategy.get('type'):
        raise UserError(f'strategy={strategy!r}: write strategy=dict(type="DDPStrategy")')
    kind = _kind(strategy)
    if kind in _REFUSED:
        raise UserError(
            f'strategy.type="{strategy["type"]}" is not run here: {_REFUSED[kind]}. Write '
            'strategy=dict(type="DDPStrategy") or leave strategy out; optim_wrapper.accumulative_counts and '
            'activation_checkpointing save memory'
        )
    if kind not in _HONOURED:
        raise UserError(
            f'strategy.type={strategy["type"]!r} is not known{did_you_mean(kind, [*_HONOURED, *_REFUSED])}; '
            f'{" and ".join(_HONOURED)} are run here'
        )
    for key in strategy:
        if key in _AT_TOP_LEVEL:
            raise UserError(
                f'strategy.{key}: set {_AT_TOP_LEVEL[key]} at the top level of the config instead'
            )
        if key != 'type' and key not in _HONOURED[kind]:
            takes = ', '.join(_HONOURED[kind]) or 'no other key'
            raise UserError(
                f'strategy.{key} is not known to {kind}{did_you_mean(key, _HONOURED[kind])}; it takes {takes}'
            )
        setting = _HONOURED[kind].get(key)
        if setting and config.get(setting) is not None:
            raise UserError(f'strategy.{key} and {setting} say the same thing: remove one of them')


def apply_strategy(config: Any) -> None:
    """Translate the strategy of a config, in place, into what mmengine's Runner reads.

    Raises:
        UserError: see :func:`check_strategy`; or the strategy does not fit the launcher.
    """
    check_strategy(config)
    strategy = config.get('strategy')
    if strategy is None:
        return
    kind, launcher = _kind(strategy), config.get('launcher', 'none')
    if kind == 'SingleDeviceStrategy' and launcher != 'none':
        raise UserError(
            f'strategy=SingleDeviceStrategy is for one process, but the launcher is {launcher}. Take '
            'strategy=dict(type="DDPStrategy"), or start without --launcher'
        )
    if kind == 'DDPStrategy' and launcher == 'none':
        raise UserError(
            'strategy=DDPStrategy is for several processes, but no launcher is given. Start with tools/dist_train.sh '
            'or torchrun and --launcher pytorch, or set strategy=None for one process'
        )
    for key, setting in _HONOURED[kind].items():
        if strategy.get(key) is not None:
            config[setting] = strategy[key]


def check_amp(optim_wrapper: Any) -> None:
    """Refuse mixed precision that this machine cannot run.

    Args:
        optim_wrapper: ``optim_wrapper`` of a config.

    Raises:
        UserError: mmengine's ``AmpOptimWrapper`` without a GPU, or bfloat16 on a GPU that does not have it.
    """
    if not uses_amp(optim_wrapper):
        return
    if not amp_available():
        raise UserError(
            "mixed precision (--amp, or optim_wrapper.type=AmpOptimWrapper) needs a GPU: mmengine's AmpOptimWrapper "
            'runs on CUDA, NPU, MLU and MUSA devices, and none is available here. Leave --amp out, or set '
            '--cfg-options optim_wrapper.type=OptimWrapper'
        )
    half = str(optim_wrapper.get('dtype')).removeprefix('torch.') == 'bfloat16'
    if half and is_cuda_available() and not torch.cuda.is_bf16_supported():
        raise UserError('optim_wrapper.dtype=bfloat16: this GPU does not have it. Set dtype=float16')


def uses_amp(optim_wrapper: Any) -> bool:
    """Whether a config's ``optim_wrapper`` is mmengine's ``AmpOptimWrapper``."""
    kind = optim_wrapper.get('type') if isinstance(optim_wrapper, Mapping) else None
    return (OPTIM_WRAPPERS.get(kind) if isinstance(kind, str) else kind) is AmpOptimWrapper


def without_amp(optim_wrapper: Mapping[str, Any]) -> dict[str, Any]:
    """The same optimizer in full precision."""
    only_amp = ('type', 'loss_scale', 'dtype', 'use_fsdp')
    return {'type': 'OptimWrapper', **{k: v for k, v in optim_wrapper.items() if k not in only_amp}}


def amp_available() -> bool:
    """Whether mmengine's ``AmpOptimWrapper`` runs on this machine."""
    return bool(is_cuda_available() or is_npu_available() or is_mlu_available() or is_musa_available())


def _kind(strategy: Mapping[str, Any]) -> str:
    """The name of a strategy's class, without scope."""
    kind = strategy['type']
    return kind.rpartition('.')[2] if isinstance(kind, str) else getattr(kind, '__name__', str(kind))
