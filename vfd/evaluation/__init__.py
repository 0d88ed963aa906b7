"""Evaluation of representations (probes, zero-shot segmentation, artifacts) and of scores (ranks)."""

from importlib import import_module
from typing import Any

from vfd.evaluation.artifacts import TokenNorms, cosines, pearson, token_norms, worst_cosines
from vfd.evaluation.depth import DepthMetric, depth_metrics
from vfd.evaluation.depth_probe import DepthProbe, depth_from_bins
from vfd.evaluation.frozen import FrozenBackbone
from vfd.evaluation.heat_map_correlation import HeatMapCorrelation
from vfd.evaluation.knn import knn_predict
from vfd.evaluation.linear_probe import LinearProbe, fit_linear_probe
from vfd.evaluation.pamr import refine
from vfd.evaluation.rank_statistics import (
    kendall,
    over_seeds,
    partial_kendall,
    precision_at_k,
    rank_at_k,
    spearman,
)
from vfd.evaluation.text_queries import read_class_names, text_features
from vfd.evaluation.zero_shot_segmentation import ZeroShotSegmentor

__all__ = [
    'DepthMetric',
    'DepthProbe',
    'FrozenBackbone',
    'HeatMapCorrelation',
    'LinearProbe',
    'TokenNorms',
    'ZeroShotSegmentor',
    'cosines',
    'depth_from_bins',
    'depth_metrics',
    'fit_linear_probe',
    'kendall',
    'knn_predict',
    'over_seeds',
    'partial_kendall',
    'pearson',
    'precision_at_k',
    'rank_at_k',
    'read_class_names',
    'refine',
    'spearman',
    'text_features',
    'token_norms',
    'worst_cosines',
]

_ON_DEMAND = {
    'LinearSegHead': 'segmentation_probe',
    'SegmentationProbe': 'segmentation_probe',
}  # of an optional package, which they import


def __getattr__(name: str) -> Any:
    """Import what needs an optional package when it is used."""
    if name in _ON_DEMAND:
        return getattr(import_module(f'{__name__}.{_ON_DEMAND[name]}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
