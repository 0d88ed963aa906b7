"""Distillation losses shared by the methods: plain torch, tensors in, a scalar out."""

from vfd.losses.channel_wise import ChannelWiseLoss
from vfd.losses.depth import GradientLoss, SigLoss, gradient_loss, sig_loss
from vfd.losses.feature_distance import FeatureDistanceLoss, feature_distance
from vfd.losses.feature_maps import (
    ChannelCorrelationLoss,
    attention_transfer,
    channel_correlation,
    neuron_selectivity,
    singular_vectors,
)
from vfd.losses.feature_richness import FeatureRichnessLoss
from vfd.losses.logit_kl import DKDLoss, KLDivLogitLoss, standardize_logits
from vfd.losses.nkd import NKDLoss
from vfd.losses.qkv_relation import qkv_relation
from vfd.losses.sample_relations import (
    RelationLoss,
    correlation_congruence,
    pkt,
    rkd,
    similarity_preserving,
)
from vfd.losses.soft_label import SSLDLoss, ce, js, js_legacy, kl
from vfd.losses.sparse_soft_label import (
    SoftLabels,
    SparseLabels,
    dense_labels,
    label_shape,
    soft_cross_entropy,
    sparse_labels,
    top_k,
)

__all__ = [
    'ChannelCorrelationLoss',
    'ChannelWiseLoss',
    'DKDLoss',
    'FeatureDistanceLoss',
    'FeatureRichnessLoss',
    'GradientLoss',
    'KLDivLogitLoss',
    'NKDLoss',
    'RelationLoss',
    'SSLDLoss',
    'SigLoss',
    'SoftLabels',
    'SparseLabels',
    'attention_transfer',
    'ce',
    'channel_correlation',
    'correlation_congruence',
    'dense_labels',
    'feature_distance',
    'gradient_loss',
    'js',
    'js_legacy',
    'kl',
    'label_shape',
    'neuron_selectivity',
    'pkt',
    'qkv_relation',
    'rkd',
    'sig_loss',
    'similarity_preserving',
    'singular_vectors',
    'soft_cross_entropy',
    'sparse_labels',
    'standardize_logits',
    'top_k',
]
