"""The interface of a teacher's source: it builds a network and gives its normalisation and its features at taps.

====================  =======================  ==========================================================
tap                   shape                    what it is
====================  =======================  ==========================================================
``logits``            (B, C)                   class scores before the softmax
``pooled``            (B, D)                   the feature that the classifier reads
``block.<k>``         (B, prefix + N, D)       tokens after transformer block k, before the final norm
``stage.<k>``         (B, C, H, W)             feature map k of a network (timm's and OpenMMLab's numbering)
====================  =======================  ==========================================================
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any, Protocol

import torch
from torch import Tensor

from vfd.errors import UserError, did_you_mean
from vfd.stores.ragged import Ragged
from vfd.teachers.normalization import Normalization

# What the libraries raise for images of a size that a network cannot take.
SIZE_ERRORS = (AssertionError, RuntimeError, ValueError)
# How a model of OpenMMLab is built for other images, for check_image_size.
BACKBONE_SIZE = 'backbone=dict(img_size=({0}, {1})) in its model'


class Source(Protocol):
    """The network of a :class:`vfd.teachers.Teacher`, whatever library it comes from.

    Attributes:
        name: for messages, ``library:model``.
        network: an ``nn.Module``; its methods are those of its library.
        normalization: of the images that the network was trained on; None where its input is no normalised image.
        num_classes: width of ``logits``; None without them.
        image_size: (height, width) in pixels that the network was built for; None where any size will do or it is not
            known.
        reads: names of the further inputs that :meth:`forward_taps` takes, a subset of
            :data:`vfd.teachers.inputs.INPUTS`.

    A source may also have ``constants() -> dict[str, Tensor]``: tensors computed from the weights alone, such as
    embeddings of class names. The teacher calls it once, when the weights are loaded and on their device, and gives the
    result to :meth:`forward_taps` as ``constants``.
    """

    name: str
    network: Any
    normalization: Normalization | None
    num_classes: int | None
    image_size: tuple[int, int] | None
    reads: Set[str]

    def forward_taps(
        self, images: Tensor, taps: Sequence[str], **inputs: Any
    ) -> dict[str, Tensor | Ragged[Tensor]]:
        """Compute the network's features at the taps.

        Args:
            images: (B, 3, H, W), normalised as in :attr:`normalization`.
            taps: names of the table above.
            **inputs: of :attr:`reads`, those that were given; and ``constants`` where the source has them.

        Returns:
            One tensor a tap, or a :class:`vfd.stores.Ragged` where images have different numbers of rows (regions,
            points).
        """
        ...


def tap_index(tap: str, kind: str, count: int, name: str) -> int:
    """Return the number behind ``block.<k>`` or ``stage.<k>``; negative numbers count from the end."""
    try:
        index = int(tap.partition('.')[2])
    except ValueError:
        raise UserError(
            f'teacher tap "{tap}": write {kind}.<number>, for example {kind}.{count - 1}'
        ) from None
    if not -count <= index < count:
        raise UserError(f'teacher tap "{tap}": {name} has {kind}.0 to {kind}.{count - 1}')
    return index % count


def check_taps(taps: Sequence[str], kinds: Sequence[str], name: str) -> None:
    """Raise for a tap that this network does not have."""
    for tap in taps:
        kind = tap.partition('.')[0]
        if kind not in kinds:
            known = [k + '.<k>' if k in ('block', 'stage') else k for k in kinds]
            raise UserError(
                f'teacher tap "{tap}": {name} has the taps {", ".join(known)}{did_you_mean(kind, kinds)}'
            )


def no_classifier(taps: Sequence[str], name: str, option: str | None) -> None:
    """Raise for the tap ``logits`` of a network without a classifier.

    Args:
        taps: the taps that will be computed.
        name: of the network.
        option: what gives the network a classifier; None where nothing does.
    """
    if 'logits' in taps:
        built = f'; or give it {option}' if option else ''
        raise UserError(
            f'teacher tap "logits": {name} has no classifier; its features are the tap "pooled"{built}'
        )


def check_image_size(
    error: Exception, name: str, images: Tensor, built_for: tuple[int, int] | None, option: str | None
) -> None:
    """Raise a :class:`UserError` in place of a library's error where the size of the images explains it.

    Args:
        error: one of :data:`SIZE_ERRORS`, from the network's forward pass.
        name: of the network.
        images: (B, 3, H, W), what it was given.
        built_for: :attr:`Source.image_size`.
        option: how the network is built for other images, with ``{0}`` and ``{1}`` for their height and width; None
            where it cannot be.
    """
    height, width = images.shape[-2:]
    if (
        isinstance(error, (UserError, torch.OutOfMemoryError))
        or built_for is None
        or built_for == (height, width)
    ):
        return
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    remedy = f', or {option.format(height, width)}' if option and 'divisible' not in reason else ''
    raise UserError(
        f'{name} was built for images of {built_for[0]}x{built_for[1]} pixels and cannot take {height}x{width} '
        f'({reason}). Set input_size={built_for[0]} in the teacher, which resizes them for it{remedy}.'
    ) from error


def not_fetched(name: str, error: Exception) -> UserError:
    """Return the error for published weights that could not be fetched, with what the user can do."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return UserError(
        f'the published weights of {name} could not be fetched ({reason}). Check the connection, or give a weight '
        'file as checkpoint=...'
    )


def backbone_size(backbone: Any) -> tuple[int, int] | None:
    """Return (height, width) that a backbone of OpenMMLab was built for; None where it has no such attribute."""
    size = getattr(backbone, 'img_size', None)
    if not size:
        return None
    return (size, size) if isinstance(size, int) else (size[0], size[1])
