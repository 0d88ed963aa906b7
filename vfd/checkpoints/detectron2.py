"""Names of ViTDet detectors: detectron2's and those of mmdet's ViTDet project, as vfd's detectors call them.

detectron2 publishes pickles of numpy arrays under the key ``model``. They are read like every pickle here: numbers in
plain containers, nothing else. detectron2 and mmdet keep in one order: classes, by ascending COCO category with the
background last; box offsets, class by class as (x, y, w, h) in the same units; anchors, by ratio 0.5, 1, 2; features
before linear layers, channel first. So nothing but names has to change. This is read from the sources of both; no
published file was at hand to compare detections.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from vfd.checkpoints.state import StateFile, load_state

# detectron2 counts a pyramid level by its stride (2: 4 pixels) and the layers of a level one after another. For each
# level: layers that scale the map, then the 1x1 convolution, then the 3x3 one.
_PYRAMID = {2: ('fpn1', 4), 3: ('fpn2', 1), 4: ('fpn3', 0), 5: ('fpn4', 1)}

_DETECTRON2 = (
    (r'backbone\.net\.(.+)', r'backbone.\1'),
    (r'proposal_generator\.rpn_head\.conv\.conv(\d+)\.(.+)', r'rpn_head.rpn_conv.\1.conv.\2'),
    (r'proposal_generator\.rpn_head\.conv\.(weight|bias)', r'rpn_head.rpn_conv.\1'),
    (r'proposal_generator\.rpn_head\.objectness_logits\.(.+)', r'rpn_head.rpn_cls.\1'),
    (r'proposal_generator\.rpn_head\.anchor_deltas\.(.+)', r'rpn_head.rpn_reg.\1'),
    (r'roi_heads\.box_predictor\.cls_score\.(.+)', r'roi_head.bbox_head.fc_cls.\1'),
    (r'roi_heads\.box_predictor\.bbox_pred\.(.+)', r'roi_head.bbox_head.fc_reg.\1'),
    (r'roi_heads\.mask_head\.deconv\.(.+)', r'roi_head.mask_head.upsample.\1'),
    (r'roi_heads\.mask_head\.predictor\.(.+)', r'roi_head.mask_head.conv_logits.\1'),
)
# Layers that detectron2 counts from 1 and mmdet from 0.
_COUNTED = {
    'box_head.conv': 'roi_head.bbox_head.shared_convs',
    'box_head.fc': 'roi_head.bbox_head.shared_fcs',
    'mask_head.mask_fcn': 'roi_head.mask_head.convs',
}


def load_vitdet(path: str | Path) -> StateFile:
    """Read a detector's weights under the names of vfd's ViTDet detectors.

    Example:
        >>> load_into(detector, load_vitdet('model_final_61ccd1.pkl'))  # doctest: +SKIP

    Args:
        path: a ``.pkl`` or ``.pth`` of detectron2, a ``.pth`` of mmdet, or any other file that `load_state` reads.

    Raises:
        MissingFileError: the file is absent.
        UserError: see `load_state`.
    """
    return to_mmdet_names(load_state(path))


def to_mmdet_names(file: StateFile) -> StateFile:
    """Rename the tensors to mmdet's names; files of other layouts stay unchanged.

    Args:
        file: what `load_state` gave. It reads a detectron2 pickle as one of Paddle; ``layout`` is corrected, without
            which linear layers would be transposed.

    Returns:
        A new :class:`StateFile`.
    """
    if any(
        re.match(r'(student\.)?(backbone\.net|backbone\.bottom_up|proposal_generator)\.', k)
        for k in file.state
    ):
        state = {_from_detectron2(name): value for name, value in file.state.items()}
        return replace(file, state=state, layout='detectron2')
    # mmdet's project has its own channel norm, which mmcv calls "norm_layer"; layer norms are called "ln".
    state = {name.replace('.norm_layer.', '.ln.'): value for name, value in file.state.items()}
    return replace(file, state=state)


def _from_detectron2(name: str) -> str:
    """Rename one tensor; names without a counterpart (anchors, adapters) stay."""
    name = name.removeprefix('student.')
    if match := re.fullmatch(r'backbone\.simfp_([2-5])\.(\d+)\.(.+)', name):
        scale, layers = _PYRAMID[int(match[1])]
        level, layer = int(match[1]) - 2, int(match[2])
        if layer < layers:
            return f'neck.{scale}.{layer}.{match[3]}'
        return f'neck.{"lateral_convs" if layer == layers else "fpn_convs"}.{level}.{_conv_or_norm(match[3])}'
    if match := re.fullmatch(
        r'roi_heads\.(box_head\.conv|box_head\.fc|mask_head\.mask_fcn)(\d+)\.(.+)', name
    ):
        leaf = match[3] if match[1].endswith('.fc') else _conv_or_norm(match[3])
        return f'{_COUNTED[match[1]]}.{int(match[2]) - 1}.{leaf}'
    for pattern, new in _DETECTRON2:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, new, name)
    return name


def _conv_or_norm(leaf: str) -> str:
    """Rename a convolution or its norm: detectron2 nests the norm, mmcv's module holds both."""
    return f'ln.{leaf.removeprefix("norm.")}' if leaf.startswith('norm.') else f'conv.{leaf}'
