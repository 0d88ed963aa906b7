"""The engine: Runner, loops, exact resume, hooks, schedulers, optimizer constructors."""

from . import optim, schedulers, schedulers_exponential, schedulers_linear
from .hooks import BadDataHook, CheckpointHook, InterruptHook, NonFiniteHook, ProgressHook
from .layer_decay import LayerDecay
from .loader import StreamLoader
from .loops import EpochTrainLoop, IterTrainLoop
from .multi_crop import MultiCropEpochLoop, WarmupCosineByEpoch, crop_passes
from .runner import Runner
from .stream import SampleStream

__all__ = [
    'BadDataHook',
    'CheckpointHook',
    'EpochTrainLoop',
    'InterruptHook',
    'IterTrainLoop',
    'LayerDecay',
    'MultiCropEpochLoop',
    'NonFiniteHook',
    'ProgressHook',
    'Runner',
    'SampleStream',
    'StreamLoader',
    'WarmupCosineByEpoch',
    'crop_passes',
    'optim',
    'schedulers',
    'schedulers_exponential',
    'schedulers_linear',
]
