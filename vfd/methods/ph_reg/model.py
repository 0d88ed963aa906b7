"""PH-Reg: a trained vision transformer gets register tokens and is trained on its own denoised features.

Paper: "Vision Transformers with Self-Distilled Registers", NeurIPS 2025, arXiv 2505.21501. The teacher is the
transformer as it is, averaged over shifted and mirrored views; the student is the same transformer with registers, and
gets the image. No labels are read. In a config::

    model = dict(
        type='vfd.PHReg',
        student=dict(type='vfd.RegisterViT', model_name='vit_base_patch14_dinov2', unlock_last_blocks=1),
        teacher=dict(
            type='vfd.DenoisedTeacher',
            source=dict(
                type='vfd.DenseSource', network=dict(type='vfd.RegisterViT', model_name='vit_base_patch14_dinov2')),
            checkpoint='pretrained'))
"""

from __future__ import annotations

import inspect
import logging
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from vfd.backbones import RegisterBackbone
from vfd.errors import UserError
from vfd.methods.base import Distiller
from vfd.registry import MODELS

from .core import cosine_loss, squared_loss
from .denoise import DenoisedTeacher


@MODELS.register_module()
class PHReg(Distiller):
    """Trains registers and a few weights of a transformer under its own denoised features.

    Args:
        student: config of a :class:`vfd.RegisterViT` or :class:`vfd.RegisterCLIP`. Where it does not say
            ``unlock_last_blocks``, as many blocks train as published (1 and 2). Without ``checkpoint`` and
            ``pretrained`` it starts from the teacher's weights, as published.
        teacher: config of a :class:`vfd.DenoisedTeacher`.
        mse_scale: weight of the squared distance; 1 as published.
        data_preprocessor: config; makes the batches for both.
        init_cfg: mmengine's initialisation config.

    Raises:
        UserError: student and teacher do not fit each other.
    """

    student: RegisterBackbone

    def __init__(
        self,
        student: dict,
        teacher: dict,
        mse_scale: float = 1.0,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        kind = MODELS.get(student['type']) if 'type' in student else None
        if not inspect.isclass(kind) or not issubclass(kind, RegisterBackbone):
            raise UserError(
                f'PHReg: student.type={student.get("type")!r}; vfd.RegisterViT or vfd.RegisterCLIP'
            )
        student = {'unlock_last_blocks': kind.published_unlock, **student}
        super().__init__(student, teacher, data_preprocessor, init_cfg)
        if not isinstance(self.teacher, DenoisedTeacher):
            raise UserError(f'PHReg: teacher={teacher.get("type")!r}; it has to be a vfd.DenoisedTeacher')
        self.mse_scale = mse_scale
        self.tap = self.teacher.taps[0]
        self._check_pair()
        if student.get('checkpoint') is None and not student.get('pretrained'):
            self._start_from_teacher()

    def loss(self, inputs: Tensor, data_samples: list | None = None) -> dict[str, Tensor]:
        """Compute the distance of the student's patches from the denoised ones.

        Args:
            inputs: (B, 3, H, W), preprocessed; H and W are multiples of the patch size.
            data_samples: B samples; a stored teacher finds its records by their ``img_path``.

        Returns:
            ``loss_cos`` and ``loss_mse``: scalars, in at least float32.
        """
        if not isinstance(inputs, Tensor):
            raise UserError(
                f'PHReg: a batch has to be one tensor (B, 3, H, W), but came as a {type(inputs).__name__}: set '
                "train_dataloader.collate_fn=dict(type='default_collate')."
            )
        target = self.teacher(inputs, data_samples=data_samples)[self.tap]  # (B, T, D)
        features = self.student.dense(inputs)  # (B, T, D)
        if features.shape != target.shape:
            raise UserError(
                f'PHReg: the student gives {tuple(features.shape[1:])} an image, the teacher {tuple(target.shape[1:])} '
                '(patches, channels): both need the same patches; input_size of the teacher changes them.'
            )
        return {
            'loss_cos': cosine_loss(features, target),
            'loss_mse': squared_loss(features, target, self.mse_scale),
        }

    def forward(self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor') -> Any:
        """Run one batch: ``loss``; ``tensor``: all tokens of the student; ``predict``: its maps."""
        if mode == 'tensor':
            return self.student.tokens(inputs)
        return super().forward(inputs, data_samples, mode)

    @classmethod
    def baseline(cls, model: dict) -> dict:
        """Refuse: the plain network needs no training."""
        raise UserError(
            'PHReg is compared with the plain network, which needs no training: measure the network of the teacher '
            '(num_registers=0 in the configs of the probes, or tools/artifact_metrics.py)'
        )

    @torch.no_grad()
    def predict(self, inputs: Tensor, data_samples: list | None = None) -> list[BaseDataElement]:
        """Compute the student's dense features.

        Args:
            inputs: (B, 3, H, W), preprocessed.
            data_samples: not read.

        Returns:
            For each image ``pred_features`` (D, h, w).
        """
        (maps,) = self.student.forward(inputs)
        return [BaseDataElement(pred_features=features) for features in maps]

    def _check_pair(self) -> None:
        network = self.teacher.network
        if self.student.num_registers == 0:
            print_log(
                'PHReg: num_registers=0, so only the weights learn, as in the ablation of the paper',
                logger='current',
                level=logging.WARNING,
            )
        if not isinstance(network, RegisterBackbone):
            return
        same = type(network) is type(self.student)
        for what in ('patch_size', 'out_channels', *(['activation'] if same else [])):
            own, other = getattr(self.student, what), getattr(network, what)
            if own != other:
                raise UserError(
                    f'PHReg: {what} is {own} in the student and {other} in the teacher; they are one network, the '
                    'student with registers: give both the same model_name and settings.'
                )

    def _start_from_teacher(self) -> None:
        network = self.teacher.network
        if type(network) is not type(self.student):
            raise UserError(
                'PHReg: the student starts from the teacher, but they are not of one kind '
                f'({type(self.student).__name__} and {type(network).__name__}): give student.checkpoint or '
                'student.pretrained=True.'
            )
        if not any(parameter.is_meta for parameter in self.student.parameters()):
            self.student.load_weights(network.state_dict(), "the teacher's weights")
