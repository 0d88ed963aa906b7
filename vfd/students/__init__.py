"""Students: features of any network in training, at the taps of the teachers."""

from .classes import check_same_classes, num_classes
from .labels import classifier_loss, labels_of
from .names import keep_timm_names
from .taps import forward_taps

__all__ = [
    'check_same_classes',
    'classifier_loss',
    'forward_taps',
    'keep_timm_names',
    'labels_of',
    'num_classes',
]
