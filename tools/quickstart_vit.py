#!/usr/bin/env python
"""The same as ``vfd quickstart vit``."""

from vfd.cli.main import alias

alias('quickstart vit', __name__)
