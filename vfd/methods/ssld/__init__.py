"""SSLD: a student learns the softmax output of a strong frozen teacher; no label enters the loss."""

from vfd.methods.ssld.model import SSLDDistiller

__all__ = ['SSLDDistiller']
