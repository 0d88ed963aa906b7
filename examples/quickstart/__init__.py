"""The main job on real images: see :func:`quickstart.run.quickstart`."""

from quickstart.run import quickstart

__all__ = ['quickstart']
