#!/usr/bin/env python
"""The same as ``vfd verify``."""

from vfd.cli.main import alias

alias('verify', __name__)
