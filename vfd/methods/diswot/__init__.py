"""DisWOT: search for a student of a teacher without training, and the losses that go with it."""

from vfd.methods.diswot import search
from vfd.methods.diswot.model import DisWOT

__all__ = ['DisWOT', 'search']
