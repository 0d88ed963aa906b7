#!/usr/bin/env python
"""The same as ``vfd train``."""

from vfd.cli.main import alias

alias('train', __name__)
