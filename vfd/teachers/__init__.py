"""Teachers: frozen networks and their features at named taps, computed or from a store."""

from .card import TeacherCard
from .normalization import Normalization
from .sources import (
    HuggingFaceSource,
    MAESource,
    MMDetSource,
    MMSegSource,
    MMSource,
    OpenCLIPSource,
    TimmSource,
)
from .stored import StoredTeacher
from .teacher import Teacher

__all__ = [
    'HuggingFaceSource',
    'MAESource',
    'MMDetSource',
    'MMSegSource',
    'MMSource',
    'Normalization',
    'OpenCLIPSource',
    'StoredTeacher',
    'Teacher',
    'TeacherCard',
    'TimmSource',
]
