"""mmdet: the backbone for a config of mmdet, see `vfd.export.dense`."""

from vfd.export.dense import DenseTarget

TARGET = DenseTarget('mmdet')
