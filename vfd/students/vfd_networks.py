"""Taps of vfd's own transformers, which give tokens."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from vfd.backbones import MaskedViT, RegisterBackbone

from .numbers import numbered


def is_masked_vit(student: nn.Module) -> bool:
    """Return whether the network is the encoder of a masked autoencoder."""
    return isinstance(student, MaskedViT)


def masked_vit_taps(student: MaskedViT, inputs: Tensor, taps: Sequence[str]) -> dict[str, Tensor]:
    """See :func:`vfd.students.forward_taps`; whole images, no mask."""
    blocks = numbered(taps, 'block', len(student.blocks), type(student).__name__)
    if len(blocks) == len(taps):
        outputs = student.forward_blocks(inputs, None, blocks.values())
        return {tap: outputs[k] for tap, k in blocks.items()}
    latent, outputs = student.forward_tokens(inputs, None, tuple(blocks.values()))
    return {'latent': latent, 'cls': latent[:, 0], **{tap: outputs[k] for tap, k in blocks.items()}}


def is_register_backbone(student: nn.Module) -> bool:
    """Return whether the network is a transformer with registers."""
    return isinstance(student, RegisterBackbone)


def register_taps(student: RegisterBackbone, inputs: Tensor, taps: Sequence[str]) -> dict[str, Tensor]:
    """See :func:`vfd.students.forward_taps`."""
    return {'dense': student.dense(inputs)} if 'dense' in taps else {}
