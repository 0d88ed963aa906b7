"""The engine: Runner, loops, exact resume, hooks, schedulers, optimizer constructors."""

from . import optim, schedulers
from .hooks import BadDataHook, CheckpointHook, InterruptHook, NonFiniteHook, ProgressHook
from .loader import StreamLoader
from .loops import EpochTrainLoop, IterTrainLoop
from .runner import Runner
from .stream import SampleStream

__all__ = [
    'BadDataHook',
    'CheckpointHook',
    'EpochTrainLoop',
    'InterruptHook',
    'IterTrainLoop',
    'NonFiniteHook',
    'ProgressHook',
    'Runner',
    'SampleStream',
    'StreamLoader',
    'optim',
    'schedulers',
]
