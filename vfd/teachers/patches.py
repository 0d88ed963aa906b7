"""Student and teacher on the same patches of the same images."""

from __future__ import annotations

from typing import Any

from vfd.errors import UserError


def check_same_patches(method: str, student: Any, teacher: Any) -> None:
    """Raise unless a choice of patches means the same in both networks.

    Args:
        method: name for the message.
        student: a :class:`vfd.MaskedViT`.
        teacher: a :class:`vfd.Teacher`.

    Raises:
        UserError: the grids differ, the teacher has other tokens beside its patches than the class token, or it gets
            images of another size than it was built for.
    """
    source = teacher.source
    student_patches, teacher_patches = student.num_patches, getattr(source, 'num_patches', None)
    if teacher_patches is None:
        raise UserError(
            f'{method}: the teacher {source.name} has no patch tokens to compare with. Take a vision transformer: '
            'vfd.MAESource, or vfd.TimmSource with a ViT.'
        )
    if teacher_patches != student_patches:
        raise UserError(
            f'{method}: the student has {student_patches} patches, the teacher {source.name} {teacher_patches}. '
            'Both need the same img_size and patch_size (or sizes with the same grid).'
        )
    prefix = source.network.num_prefix_tokens
    if prefix != 1 or source.network.cls_token is None:
        raise UserError(
            f'{method}: the teacher {source.name} has {prefix} tokens beside its patches (registers, perhaps), the '
            'student one, the class token. Take a teacher with a class token and no registers.'
        )
    built_for = tuple(source.network.patch_embed.img_size)
    size = teacher.input_size
    gets = tuple(student.patch_embed.img_size) if size is None else (size, size)
    if gets != built_for:
        raise UserError(
            f'{method}: the teacher {source.name} was built for images of {built_for[0]}x{built_for[1]} pixels but '
            f'gets {gets[0]}x{gets[1]}. Set input_size={built_for[0]} in the teacher config to resize them for it, or '
            'img_size in its source.'
        )
