#!/usr/bin/env python
"""The same as ``vfd calibrate``."""

from vfd.cli.main import alias

alias('calibrate', __name__)
