"""Importing this module applies every repair: the line for scripts and configs that use nothing else of vfd.

custom_imports = dict(imports=['vfd.compat.installed'])
"""

from vfd.compat import install

install()
