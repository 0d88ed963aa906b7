"""Where a teacher's network comes from: one file a library."""

from .huggingface import HuggingFaceSource
from .linear_head import LinearHeadSource
from .mae import MAESource
from .mmdet import MMDetSource
from .mmpretrain import MMSource
from .mmseg import MMSegSource
from .open_clip import OpenCLIPSource
from .source import Source
from .timm import TimmSource

__all__ = [
    'HuggingFaceSource',
    'LinearHeadSource',
    'MAESource',
    'MMDetSource',
    'MMSegSource',
    'MMSource',
    'OpenCLIPSource',
    'Source',
    'TimmSource',
]
