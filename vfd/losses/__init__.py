"""Distillation losses shared by the methods: plain torch, tensors in, a scalar out."""

from vfd.losses.feature_distance import FeatureDistanceLoss, feature_distance
from vfd.losses.soft_label import SSLDLoss, ce, js, js_legacy, kl

__all__ = ['FeatureDistanceLoss', 'SSLDLoss', 'ce', 'feature_distance', 'js', 'js_legacy', 'kl']
