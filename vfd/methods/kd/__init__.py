"""Plain distillation of logits beside labels, standardised or decoupled where wanted."""

from vfd.methods.kd.model import KD

__all__ = ['KD']
