"""G2SD: generic, then task-specific distillation of masked autoencoders."""

from vfd.methods.g2sd.classification import G2SDClassifier
from vfd.methods.g2sd.detection import G2SDDetector
from vfd.methods.g2sd.generic import G2SDGeneric
from vfd.methods.g2sd.segmentation import G2SDSegmentor

__all__ = ['G2SDClassifier', 'G2SDDetector', 'G2SDGeneric', 'G2SDSegmentor']
