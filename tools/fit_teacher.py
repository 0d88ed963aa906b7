#!/usr/bin/env python
"""The same as ``vfd fit-teacher``."""

from vfd.cli.main import alias

alias('fit-teacher', __name__)
