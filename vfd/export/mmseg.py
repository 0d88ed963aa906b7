"""mmseg: the backbone for a config of mmseg, see `vfd.export.dense`."""

from vfd.export.dense import DenseTarget

TARGET = DenseTarget('mmseg')
