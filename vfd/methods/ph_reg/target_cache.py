"""Compute the denoised targets of a fixed set of images once.

NOT the published training, in which every epoch has another crop and other views: here each image has one crop and one
set of views. It saves the teacher, about four fifths of every step. In a config::

    custom_hooks = [dict(type='vfd.DenoisedCacheHook', store='work_dirs/<name>/targets')]
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from vfd.engine.hooks.answer_cache import TeacherOutputCacheHook
from vfd.errors import UserError
from vfd.registry import HOOKS

from .denoise import DenoisedTeacher
from .model import PHReg
from .views import draw_seeds


@HOOKS.register_module()
class DenoisedCacheHook(TeacherOutputCacheHook):
    """Before training, stores the denoised features of all training images, and trains with those.

    A finished store of the same images, preparation and teacher is used as it is, an unfinished one is continued.

    Args:
        store: folder for the features; ``2 * T * D`` bytes an image (float16): 2.1 MB for DINOv2-B at 518 pixels.
        seed: of the views.

    Raises:
        UserError: another model, a pipeline with random transforms, or a store of other images or another teacher.
    """

    title = 'denoised targets'

    def __init__(self, store: str, seed: int = 0) -> None:
        super().__init__(store)
        self.seed = seed

    def check(self, model: Any) -> None:
        """See the base class."""
        if not isinstance(model, PHReg) or not isinstance(model.teacher, DenoisedTeacher):
            raise UserError('DenoisedCacheHook is for vfd.PHReg; remove it from custom_hooks.')

    def inputs(self, model: Any) -> dict[str, Any]:
        """See the base class."""
        return {'seed': self.seed}

    def fields(self, model: Any, images: Tensor) -> dict[str, tuple[str, tuple[int, ...]]]:
        """See the base class."""
        patches = images.shape[-2:].numel() // model.teacher.patch_size**2
        return {model.tap: ('float16', (patches, model.student.out_channels))}

    def compute(self, model: Any, images: Tensor, numbers: list[int]) -> dict[str, np.ndarray]:
        """See the base class; the views of an image depend on the seed and on its number alone."""
        seeds = draw_seeds(max(numbers) + 1, torch.Generator().manual_seed(self.seed))[numbers]
        return {model.tap: model.teacher(images, seed=seeds)[model.tap].half().cpu().numpy()}
