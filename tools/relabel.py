#!/usr/bin/env python
"""The same as ``vfd label``."""

from vfd.cli.main import alias

alias('label', __name__)
