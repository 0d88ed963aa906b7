"""Run the teacher once over a fixed set of images.

Stage 2 of further pre-training uses no augmentation, so the teacher's features of an image never change: one pass over
the images replaces a teacher's pass in every step. In a config::

    custom_hooks = [dict(type='vfd.TeacherCacheHook', store='work_dirs/<name>/teacher')]
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from vfd.engine.hooks.answer_cache import TeacherOutputCacheHook
from vfd.errors import UserError
from vfd.registry import HOOKS
from vfd.teachers import Teacher

from .self_distillation import TAPS, THUMBNAIL, SelfDistillMAE, thumbnails


@HOOKS.register_module()
class TeacherCacheHook(TeacherOutputCacheHook):
    """Before training, stores the teacher's features of all training images, and trains with those.

    For :class:`vfd.SelfDistillMAE`. A finished store of the same images, preparation and teacher is used as it is, an
    unfinished one is continued. Losses are those of the live teacher. Random transforms are refused: the model compares
    its images with those of the teacher.

    Args:
        store: folder for the features; about ``4 * (D + 48)`` bytes an image.

    Raises:
        UserError: another model, or a store of other images or another teacher.
    """

    title = "the teacher's features"

    def check(self, model: Any) -> None:
        """See the base class."""
        if not isinstance(model, SelfDistillMAE) or not isinstance(model.teacher, Teacher):
            raise UserError(
                'TeacherCacheHook is for vfd.SelfDistillMAE with a live vfd.Teacher; remove it from custom_hooks.'
            )

    def fields(self, model: Any, images: Tensor) -> dict[str, tuple[str, tuple[int, ...]]]:
        """See the base class."""
        width = model.student.embed_dim
        shape = (width,) if model.target == 'cls' else (1 + model.student.num_patches, width)
        return {TAPS[model.target]: ('float32', shape), THUMBNAIL: ('float32', (3, 4, 4))}

    def compute(self, model: Any, images: Tensor, numbers: list[int]) -> dict[str, np.ndarray]:
        """See the base class."""
        tap = TAPS[model.target]
        return {
            tap: model.teacher(images)[tap].cpu().numpy(),
            THUMBNAIL: thumbnails(images).float().cpu().numpy(),
        }
