"""The main job on real images: see :func:`quickstart.run.quickstart`."""
