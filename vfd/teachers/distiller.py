"""The model that every method is: a student that learns, a teacher that is only asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmengine.model import BaseModel
from torch import Tensor, nn

from vfd.registry import MODELS
from vfd.teachers.student_names import keep_timm_names


class Distiller(BaseModel):
    """Holds student and teacher; a method adds ``loss(inputs, data_samples)``.

    The teacher moves with the model (``.to(device)``) and is otherwise invisible: ``state_dict()`` holds the student
    (``student.*``) and what the method itself registers. ``predict`` and ``tensor`` never ask the teacher.

    Args:
        student: config of a model of mmpretrain, mmdet or mmseg with their ``loss``/``predict``/``tensor`` modes.
        teacher: config of a :class:`~vfd.teachers.Teacher` or :class:`~vfd.teachers.StoredTeacher`.
        data_preprocessor: config; makes the batches that both see. The teacher re-normalises for itself.
        init_cfg: mmengine's initialisation config.
    """

    def __init__(
        self,
        student: dict,
        teacher: dict,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.student = MODELS.build(student)
        keep_timm_names(self.student)
        self.teacher = MODELS.build(teacher)
        self.teacher.bind(self.data_preprocessor)

    def forward(self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor') -> Any:
        """One batch, in one of mmengine's three modes.

        Args:
            inputs: (B, 3, H, W), preprocessed.
            data_samples: B samples, or None in ``tensor`` mode.
            mode: ``loss`` (dict of scalars), ``predict`` (data samples) or ``tensor`` (the student's raw output).
        """
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        return self.student(inputs, data_samples, mode=mode)

    def loss(self, inputs: Tensor, data_samples: list | None) -> dict[str, Tensor]:
        """The method's loss; each method writes its own."""
        raise NotImplementedError(f'{type(self).__name__} has no loss()')

    def train(self, mode: bool = True) -> Distiller:
        """Training mode for the student; the teacher keeps its own."""
        super().train(mode)
        self.teacher.train()
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> Distiller:
        """Moves and casts reach the teacher too."""
        super()._apply(fn, *args, **kwargs)
        self.teacher.apply_to_tensors(fn)
        return self
