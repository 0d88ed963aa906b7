"""vfd distils vision foundation models into small backbones, on the OpenMMLab runners.

Importing the package is light: no torch, no OpenMMLab package. It does one thing, so that ``mmcv.ops`` can
be imported without a compiler: it announces the stand-in for mmcv's compiled operators
(:mod:`vfd.compat.finder`). A main script that imports ``vfd`` at its top level makes this true for its
data-loading worker processes too.
"""

from vfd.compat.finder import announce

__version__ = '0.1.0'

announce()
