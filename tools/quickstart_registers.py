#!/usr/bin/env python
"""The same as ``vfd quickstart registers``."""

from vfd.cli.main import alias

alias('quickstart registers', __name__)
