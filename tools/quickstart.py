#!/usr/bin/env python
"""The same as ``vfd quickstart``."""

from vfd.cli.main import alias

alias('quickstart', __name__)
