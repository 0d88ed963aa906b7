"""The network of a segmentor as teacher: class maps at the resolution of its decode head.

====================  =======================  ==========================================================
tap                   shape                    what it is
====================  =======================  ==========================================================
``seg_logits``        (B, C, H / s, W / s)     class scores before they are resized to the image (UPerNet: s = 4)
====================  =======================  ==========================================================
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from mmengine.config import ConfigDict
from torch import Tensor

from vfd.checkpoints import StateFile
from vfd.checkpoints.beit_layout import segmentor_tensors
from vfd.compat import require
from vfd.errors import UserError
from vfd.registry import MODELS
from vfd.teachers.normalization import Normalization

from .source import BACKBONE_SIZE, SIZE_ERRORS, backbone_size, check_image_size, check_taps

_LOSS_KEYS = ('train_cfg', 'auxiliary_head')


@MODELS.register_module()
class MMSegSource:
    """Backbone, neck and decode head of a segmentor of mmseg.

    The auxiliary head is not built, a checkpoint need not have it, and nothing is resized or compared with labels.

    Args:
        model: config of the segmentor, for example ``dict(type='mmseg.EncoderDecoder', ...)``, with its
            ``data_preprocessor`` that it was trained with.
        taps: ``('seg_logits',)``.
        pretrained: refused: weights of segmentors are files, give one as the teacher's checkpoint.

    Raises:
        UserError: a tap that it does not have, a model without a single decode head or without ``data_preprocessor``,
            or ``pretrained``.
    """

    reads: frozenset[str] = frozenset()

    def __init__(self, model: dict, taps: Sequence[str] = ('seg_logits',), pretrained: bool = False) -> None:
        require('mmseg')
        self.name = f'mmseg:{str(model.get("type")).rpartition(".")[2]}'
        if pretrained:
            raise UserError(f'{self.name}: give the weight file as checkpoint=..., not "pretrained"')
        if not model.get('data_preprocessor'):
            raise UserError(
                f'{self.name}: the model has no data_preprocessor; give the one that it was trained with, so that the '
                'teacher gets images normalised as in its training.'
            )
        if not isinstance(model.get('decode_head'), dict):
            raise UserError(
                f'{self.name}: one decode_head is needed; take a model such as mmseg.EncoderDecoder'
            )
        check_taps(taps, ('seg_logits',), self.name)
        inference = {key: value for key, value in model.items() if key not in _LOSS_KEYS}
        # mmseg reads its settings as attributes, and writes into them.
        self.network: Any = MODELS.build(ConfigDict(copy.deepcopy(inference)))
        self.normalization = Normalization.of_preprocessor(self.network.data_preprocessor)
        self.image_size = backbone_size(self.network.backbone)
        self.num_classes: int | None = self.network.decode_head.out_channels

    def check_file(self, file: StateFile) -> None:
        """Bring the names of a released or distilled segmentor to this network's; changes ``file``."""
        file.state = segmentor_tensors(file.state, self.network)

    def forward_taps(self, images: Tensor, taps: Sequence[str]) -> dict[str, Tensor]:
        """See :class:`~vfd.teachers.sources.source.Source`."""
        try:
            return {'seg_logits': self.network(images, mode='tensor')}
        except SIZE_ERRORS as error:
            check_image_size(error, self.name, images, self.image_size, BACKBONE_SIZE)
            raise
