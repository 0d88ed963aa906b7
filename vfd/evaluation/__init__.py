"""What a representation is worth: probes on frozen features."""

from vfd.evaluation.knn import knn_predict
from vfd.evaluation.linear_probe import LinearProbe, fit_linear_probe

__all__ = ['LinearProbe', 'fit_linear_probe', 'knn_predict']
