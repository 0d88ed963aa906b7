#!/usr/bin/env python
"""The same as ``vfd convert``."""

from vfd.cli.main import alias

alias('convert', __name__)
