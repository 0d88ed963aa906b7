#!/usr/bin/env python
"""The same as ``vfd search``."""

from vfd.cli.main import alias

alias('search', __name__)
