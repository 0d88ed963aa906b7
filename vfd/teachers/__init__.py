"""Teachers: frozen networks that answer at named taps, live or from a store."""

from .distiller import Distiller
from .mae_source import MAESource
from .mmdet_source import MMDetSource
from .mmseg_source import MMSegSource
from .normalization import Normalization
from .sources import MMSource, OpenCLIPSource, TimmSource
from .stored import StoredTeacher
from .teacher import Teacher

__all__ = [
    'Distiller',
    'MAESource',
    'MMDetSource',
    'MMSegSource',
    'MMSource',
    'Normalization',
    'OpenCLIPSource',
    'StoredTeacher',
    'Teacher',
    'TimmSource',
]
