"""Base classes of the methods: a student that trains and, for a distiller, a frozen teacher.

A method of its own is one class with one ``loss``::

    @MODELS.register_module()
    class Mine(Distiller):
        def loss(self, inputs, data_samples):
            target = self.teacher(inputs)['pooled']  # (B, D), no gradient
            features = forward_taps(self.student, inputs, ['pooled'])['pooled']
            return {'loss_mine': F.mse_loss(features, target)}
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar

from mmengine.model import BaseModel
from torch import Tensor, nn

from vfd.errors import UserError
from vfd.registry import MODELS
from vfd.students import keep_timm_names


class Method(BaseModel):
    """Holds the student; a method adds ``loss(inputs, data_samples)``.

    ``state_dict()`` holds the student (``student.*``) and what the method registers beside it.

    Args:
        student: config of a network with mmengine's modes ``predict`` and ``tensor``.
        data_preprocessor: config; makes the batches.
        init_cfg: mmengine's initialisation config.
    """

    accumulative_counts = 1  # iterations of one optimizer step; the Runner sets it
    # replace those of the config where a demo builds the model
    inference_settings: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        student: dict,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.student = MODELS.build(student)
        keep_timm_names(self.student)

    def forward(self, inputs: Any, data_samples: list | None = None, mode: str = 'tensor') -> Any:
        """Run one batch in one of mmengine's three modes.

        Args:
            inputs: as the data preprocessor makes them: (B, 3, H, W) for images.
            data_samples: B samples, or None in ``tensor`` mode.
            mode: ``loss`` (dict of scalars), ``predict`` (what a demo shows) or ``tensor`` (the student's raw output).
        """
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        return self.student(inputs, data_samples, mode=mode)

    def loss(self, inputs: Any, data_samples: list | None) -> dict[str, Tensor]:
        """Compute the losses of one batch; each method writes its own.

        Returns:
            Scalars whose names begin with ``loss_`` (or are the student's own).
        """
        raise NotImplementedError(f'{type(self).__name__} has no loss()')

    def predict(self, inputs: Any, data_samples: list | None = None) -> Any:
        """Predict one batch; by default the student does, in its own way."""
        return self.student(inputs, data_samples, mode='predict')

    def method_state(self) -> dict[str, Any]:
        """Return what a resumed run needs beside the weights: plain values and tensors, those of this rank."""
        return {}

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Load what :meth:`method_state` returned."""
        assert not state, f'{type(self).__name__} keeps no state, but the checkpoint has {sorted(state)}'

    def teacher_fingerprint(self) -> dict[str, Any] | None:
        """Return which teacher this trains under, in plain types; None without one."""
        return None

    @classmethod
    def baseline(cls, model: dict) -> dict:
        """Give the model that a run of this method is compared with, at an equal budget: the supervised student.

        Args:
            model: the config of a model of this class.

        Returns:
            The config of the model that ``--baseline`` trains on the same schedule.

        Raises:
            UserError: there is nothing to compare with; with the reason.
        """
        if 'student' not in model:
            raise UserError(f'{cls.__name__}: the model has no student, so it has no supervised baseline')
        return copy.deepcopy(model['student'])


class Distiller(Method):
    """Adds a teacher, which moves with the model (``.to(device)``) and is otherwise invisible.

    Neither ``state_dict()`` nor an optimizer, DDP or an EMA copy contains it; ``predict`` and ``tensor`` never run it.

    Args:
        student: as in :class:`Method`.
        teacher: config of a :class:`vfd.Teacher` or :class:`vfd.StoredTeacher`.
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
        super().__init__(student, data_preprocessor, init_cfg)
        self.teacher = MODELS.build(teacher)
        self.teacher.bind(self.data_preprocessor)

    def teacher_fingerprint(self) -> dict[str, Any]:
        """Return which teacher this trains under, in plain types."""
        return self.teacher.fingerprint()

    def train(self, mode: bool = True) -> Distiller:
        """Set the mode of the student; the teacher keeps its own."""
        super().train(mode)
        self.teacher.train()
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> Distiller:
        """Move and cast the teacher as well."""
        super()._apply(fn, *args, **kwargs)
        self.teacher.apply_to_tensors(fn)
        return self


def masked_baseline(model: dict, **options: Any) -> dict:
    """Give the masked autoencoder without a teacher that a distiller of masked autoencoders is compared with.

    Args:
        model: config of the distiller, with ``student`` and perhaps ``mask_ratio``.
        options: of :class:`vfd.MAE`.
    """
    kept = {'mask_ratio': model['mask_ratio']} if 'mask_ratio' in model else {}
    return {'type': 'vfd.MAE', 'student': copy.deepcopy(model['student']), **kept, **options}
