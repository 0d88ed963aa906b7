"""DisWOT: choosing a student for a teacher without training it, and the losses that go with it."""

from vfd.methods.diswot import search
from vfd.methods.diswot.model import DisWOT

__all__ = ['DisWOT', 'search']
