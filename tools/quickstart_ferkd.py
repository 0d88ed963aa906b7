#!/usr/bin/env python
"""The same as ``vfd quickstart ferkd``."""

from vfd.cli.main import alias

alias('quickstart ferkd', __name__)
