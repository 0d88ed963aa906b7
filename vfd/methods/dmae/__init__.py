"""DMAE: a masked autoencoder distilled through one intermediate feature."""

from vfd.methods.dmae.model import DMAE

__all__ = ['DMAE']
