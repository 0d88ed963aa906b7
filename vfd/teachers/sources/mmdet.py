"""The network of a detector as teacher: feature maps and objectness, without proposals.

====================  =======================  ==========================================================
tap                   shape                    what it is
====================  =======================  ==========================================================
``neck.<k>``          (B, C, H_k, W_k)         feature map k of the neck, finest first
``rpn.<k>``           (B, A, H_k, W_k)         objectness logits of A anchors on that map
====================  =======================  ==========================================================
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from mmengine.config import ConfigDict
from torch import Tensor

from vfd.checkpoints import StateFile
from vfd.checkpoints.detectron2 import to_mmdet_names
from vfd.compat import require
from vfd.errors import UserError
from vfd.registry import MODELS
from vfd.teachers.normalization import Normalization

from .source import BACKBONE_SIZE, SIZE_ERRORS, backbone_size, check_image_size, check_taps, tap_index


@MODELS.register_module()
class MMDetSource:
    """Backbone, neck and region proposal network of a two-stage detector of mmdet.

    Only the convolutions run: no anchors, no proposals, no non-maximum suppression, no assignment. The second stage is
    not built, and neither is the region proposal network where no tap needs it; a checkpoint need not have them.

    Args:
        model: config of the detector, for example ``dict(type='mmdet.MaskRCNN', ...)``: ``backbone``, ``neck``,
            ``rpn_head``, and the ``data_preprocessor`` that it was trained with. What else it has is not read.
        taps: the taps that will be computed, see above.
        pretrained: refused: weights of detectors are files, give one as the teacher's checkpoint.

    Raises:
        UserError: no two-stage detector, a tap that it does not have, no ``data_preprocessor``, or ``pretrained``.
    """

    num_classes = None
    reads: frozenset[str] = frozenset()

    def __init__(self, model: dict, taps: Sequence[str] = ('neck.0',), pretrained: bool = False) -> None:
        require('mmdet')
        self.name = f'mmdet:{str(model.get("type")).rpartition(".")[2]}'
        if pretrained:
            raise UserError(f'{self.name}: give the weight file as checkpoint=..., not "pretrained"')
        if not model.get('data_preprocessor'):
            raise UserError(
                f'{self.name}: the model has no data_preprocessor; give the one that it was trained with, so that the '
                'teacher gets images normalised as in its training.'
            )
        if not model.get('rpn_head'):
            raise UserError(f'{self.name}: no region proposal network (rpn_head); take a two-stage detector')
        check_taps(taps, ('neck', 'rpn'), self.name)
        first_stage = {
            **copy.deepcopy(model),
            'roi_head': None,
            'train_cfg': None,
            'test_cfg': {'rpn': None},
        }
        self.network: Any = MODELS.build(ConfigDict(first_stage))
        self.normalization = Normalization.of_preprocessor(self.network.data_preprocessor)
        self.image_size = backbone_size(self.network.backbone)
        head = self.network.rpn_head
        self.strides = strides_of(head)
        self.channels: int = head.in_channels
        self.num_anchors: int = head.num_base_priors
        self._levels = {
            tap: tap_index(tap, tap.partition('.')[0], len(self.strides), self.name) for tap in taps
        }
        if not any(tap.startswith('rpn') for tap in taps):
            self.network.rpn_head = None

    def check_file(self, file: StateFile) -> None:
        """Bring the names of a detectron2 file, or of mmdet's ViTDet project, to this network's; changes ``file``."""
        renamed = to_mmdet_names(file)
        file.state, file.layout = renamed.state, renamed.layout

    def forward_taps(self, images: Tensor, taps: Sequence[str]) -> dict[str, Tensor]:
        """See :class:`~vfd.teachers.sources.source.Source`."""
        try:
            maps = self.network.extract_feat(images)
        except SIZE_ERRORS as error:
            check_image_size(error, self.name, images, self.image_size, BACKBONE_SIZE)
            raise
        logits = self.network.rpn_head(maps)[0] if self.network.rpn_head is not None else ()
        return {tap: (maps if tap.startswith('neck') else logits)[self._levels[tap]] for tap in taps}


def strides_of(rpn_head: Any) -> list[tuple[int, int]]:
    """Return the strides in pixels, along height and width, of a region proposal network's levels."""
    # AnchorGenerator keeps (width, height).
    return [(stride[1], stride[0]) for stride in rpn_head.prior_generator.strides]
