"""The main job on real images: see :func:`vfd.apis.quickstart.run.quickstart`."""

from vfd.apis.quickstart.run import quickstart

__all__ = ['quickstart']
