"""Students: features of any network that learns, at the taps that teachers have."""

from .classes import check_same_classes, num_classes
from .names import keep_timm_names
from .taps import forward_taps

__all__ = ['check_same_classes', 'forward_taps', 'keep_timm_names', 'num_classes']
