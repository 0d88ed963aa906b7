"""``vfd export CONFIG CHECKPOINT --to TARGET``: see :func:`vfd.apis.exporting.export`."""

from vfd.apis.exporting import export_arguments as arguments
from vfd.apis.exporting import run_export as run

__all__ = ['arguments', 'run']
