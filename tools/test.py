#!/usr/bin/env python
"""The same as ``vfd test``."""

from vfd.cli.main import alias

alias('test', __name__)
