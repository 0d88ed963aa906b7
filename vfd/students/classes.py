"""The number of classes of a student, compared with its teacher's."""

from __future__ import annotations

from typing import Any

from torch import nn

from vfd.errors import UserError


def num_classes(student: nn.Module) -> int | None:
    """Return the width of a classifier's logits, or the classes of a segmentor's maps; None where it has none."""
    for part in ('decode_head', 'head', 'model'):
        module: Any = getattr(student, part, None)
        for name in ('out_channels', 'num_classes') if part == 'decode_head' else ('num_classes',):
            if isinstance(getattr(module, name, None), int):
                return getattr(module, name)
    own = getattr(student, 'num_classes', None)
    return own if isinstance(own, int) else None


def check_same_classes(method: str, student: nn.Module, teacher: Any) -> None:
    """Raise unless student and teacher have as many classes, where both have some.

    Args:
        method: name for the message.
        student: of any kind.
        teacher: anything with ``num_classes``.

    Raises:
        UserError: the numbers differ.
    """
    own, other = num_classes(student), teacher.num_classes
    if own is not None and other is not None and own != other:
        raise UserError(
            f'{method}: the student has {own} classes, the teacher {other}, and they are compared class by class. Set '
            f"the student's num_classes={other}, or give a teacher that was trained on your {own} classes."
        )
