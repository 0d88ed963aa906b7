"""Hooks of every run: checkpoints, progress, interruption, non-finite losses, bad data."""

from .bad_data import BadDataHook
from .checkpoint import CheckpointHook
from .interrupt import InterruptHook
from .non_finite import NonFiniteHook
from .progress import ProgressHook

__all__ = ['BadDataHook', 'CheckpointHook', 'InterruptHook', 'NonFiniteHook', 'ProgressHook']
