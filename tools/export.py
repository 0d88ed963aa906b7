#!/usr/bin/env python
"""The same as ``vfd export``."""

from vfd.cli.main import alias

alias('export', __name__)
