#!/usr/bin/env python
"""The same as ``vfd mine``."""

from vfd.cli.main import alias

alias('mine', __name__)
