"""Readers of weight files of many projects, with a report of what was loaded.

Two steps: `load_state` turns a file into plain tensors and never runs code from it, `load_into` puts them
into a module and raises unless every needed tensor was there with the right shape.

Example:
    >>> from vfd.checkpoints import load_into, load_state
    >>> report = load_into(model, load_state('teacher.safetensors'))  # doctest: +SKIP
    >>> print(report.summary())  # doctest: +SKIP
"""

from vfd.checkpoints.files import file_sha256
from vfd.checkpoints.loading import LoadReport, load_into
from vfd.checkpoints.state import StateFile, load_state

__all__ = ['LoadReport', 'StateFile', 'file_sha256', 'load_into', 'load_state']
