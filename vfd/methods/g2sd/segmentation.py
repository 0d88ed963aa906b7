"""G2SD, segmentation stage: a segmentor is fine-tuned while its class maps follow those of a bigger one.

Paper: "Generic-to-Specific Distillation of Masked Autoencoders", CVPR 2023, arXiv 2302.14771, section 3.3. The maps are
compared before they are resized to the image, by channel-wise distillation. In a config::

    model = dict(
        type='vfd.G2SDSegmentor',
        student=dict(type='mmseg.EncoderDecoder', ...),
        teacher=dict(
            type='vfd.Teacher',
            source=dict(type='vfd.MMSegSource', model=dict(type='mmseg.EncoderDecoder', ...)),
            checkpoint='checkpoints/upernet_vit-base.pth'),
        data_preprocessor=dict(type='mmseg.SegDataPreProcessor', ...))
"""

from __future__ import annotations

import copy

from mmengine.config import ConfigDict
from torch import Tensor, nn

from vfd.compat import require
from vfd.errors import UserError
from vfd.losses.channel_wise import ChannelWiseLoss
from vfd.methods.base import Distiller
from vfd.registry import MODELS
from vfd.students import num_classes
from vfd.teachers.sources.mmseg import MMSegSource

MODELS.register_module(module=ChannelWiseLoss)


@MODELS.register_module()
class G2SDSegmentor(Distiller):
    """Trains a segmentor with one decode head under a frozen one.

    The student's class maps are computed once, for its own cross-entropy and for distillation; its dropout before the
    classifier is active in both, the teacher's is not.

    Args:
        student: config of mmseg's ``EncoderDecoder``; an auxiliary head keeps its loss.
        teacher: config of a :class:`vfd.Teacher` with :class:`vfd.MMSegSource`. Its tap is filled in.
        distill_loss: config of the loss; None takes the published :class:`vfd.ChannelWiseLoss`. Where both have
            different classes it needs ``align=(student's, teacher's)``.
        data_preprocessor: config of mmseg's ``SegDataPreProcessor``; makes the batches for both.
        init_cfg: mmengine's initialisation config.

    Raises:
        UserError: no single decode head, a teacher of another kind, or numbers of classes that do not fit.
    """

    def __init__(
        self,
        student: dict,
        teacher: dict,
        distill_loss: dict | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        require('mmseg')
        # mmseg reads its settings as attributes, and writes into them.
        segmentor = ConfigDict(copy.deepcopy(student))
        if not isinstance(segmentor.get('decode_head'), dict):
            raise UserError(
                f'G2SDSegmentor: the student {segmentor.get("type")} needs one decode_head, whose class maps are '
                'distilled; take mmseg.EncoderDecoder.'
            )
        super().__init__(segmentor, {**teacher, 'taps': ('seg_logits',)}, data_preprocessor, init_cfg)
        if not isinstance(getattr(self.teacher, 'source', None), MMSegSource):
            raise UserError(
                'G2SDSegmentor: the teacher has to be a vfd.Teacher with source=dict(type="vfd.MMSegSource", '
                f'model=...), not {teacher.get("type")} with {(teacher.get("source") or {}).get("type")}.'
            )
        self.distill_loss = MODELS.build(distill_loss or {'type': 'vfd.ChannelWiseLoss'})
        own, other = num_classes(self.student), self.teacher.num_classes
        if self.distill_loss.channels(own) != other:
            raise UserError(
                f'G2SDSegmentor: the student has {own} classes, the teacher {other}. Take a teacher of the same '
                f'classes, or give the loss a convolution between them: distill_loss=dict(type="vfd.ChannelWiseLoss", '
                f'align=({own}, {other})).'
            )

    def loss(self, inputs: Tensor, data_samples: list | None) -> dict[str, Tensor]:
        """Compute the student's own losses and its distance from the teacher on one batch.

        Args:
            inputs: (B, 3, H, W), preprocessed.
            data_samples: B of mmseg's samples with ``gt_sem_seg``.

        Returns:
            ``decode.*`` and ``aux.*`` of the student, and ``loss_cwd`` (or ``loss_kl``): scalars.
        """
        target = self.teacher(inputs)['seg_logits']  # (B, Ct, h, w), no gradient
        maps = self.student.extract_feat(inputs)
        logits = self.student.decode_head(maps)  # (B, Cs, h, w)
        own = self.student.decode_head.loss_by_feat(logits, data_samples)
        losses = {f'decode.{name}': value for name, value in own.items()}
        if self.student.with_auxiliary_head:
            losses |= self.student._auxiliary_head_forward_train(maps, data_samples)
        losses[f'loss_{self.distill_loss.mode}'] = self.distill_loss(logits, target)
        return losses
