"""Pictures: feature PCA, training curves, predictions, and the report of a run."""

from vfd.visualization.curves import Panel, draw_curves
from vfd.visualization.grids import draw_grid, draw_prediction
from vfd.visualization.pca import pca_colours
from vfd.visualization.reconstruction import Reconstruction, draw_reconstruction
from vfd.visualization.report import Report
from vfd.visualization.scalars import read_scalars
from vfd.visualization.theme import DARK, LIGHT, Theme

__all__ = [
    'DARK',
    'LIGHT',
    'Panel',
    'Reconstruction',
    'Report',
    'Theme',
    'draw_curves',
    'draw_grid',
    'draw_prediction',
    'draw_reconstruction',
    'pca_colours',
    'read_scalars',
]
