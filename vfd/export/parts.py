"""What leaves: the whole model, or its backbone without heads."""

from __future__ import annotations

import dataclasses
from typing import Any

from timm.models.vision_transformer import VisionTransformer
from torch import nn

from vfd.backbones import MaskedViT, RegisterBackbone
from vfd.errors import MissingPackageError, UserError
from vfd.evaluation.frozen import FrozenBackbone
from vfd.export.detections import MEANING as DETECTIONS
from vfd.export.detections import is_detector, is_segmentor
from vfd.export.student import LOGIT_MAPS, OUTPUTS, LoadedStudent, parts_of
from vfd.export.target import Target
from vfd.export.timm_encoder import REGISTER_MAP, TOKENS, classifier_backbone

PARTS = ('model', 'backbone')


def choose_part(
    student: LoadedStudent, target: Target, wanted: str | None = None
) -> tuple[LoadedStudent, str]:
    """The part of a student that is exported.

    Args:
        student: as it was trained.
        target: the form.
        wanted: ``model`` or ``backbone``; None takes the model where the student is one with heads and the target can
            build it, else the backbone.

    Returns:
        The part, and why it is not the whole model (empty where it is, or where it was asked for).

    Raises:
        UserError: the student has no such part, or the target cannot build it.
    """
    if wanted is not None:
        part = extract_part(student, wanted)
        target.check(part)
        return part, ''
    try:
        whole = extract_part(student, 'model')
    except UserError as error:
        backbone = extract_part(student, 'backbone')
        target.check(backbone)
        return backbone, str(error)

    try:
        target.check(whole)
        return whole, ''
    except MissingPackageError:
        raise
    except UserError as error:
        try:
            backbone = extract_part(student, 'backbone')
            target.check(backbone)
        except UserError as also:
            raise UserError(f'{error} As a backbone: {also}') from None
        return backbone, str(error)


def extract_part(student: LoadedStudent, part: str) -> LoadedStudent:
    """A part of a student, as a student of its own.

    Raises:
        UserError: it has no such part.
    """
    if part not in PARTS:
        raise UserError(f'--part {part}: one of {", ".join(PARTS)}')
    encoder = isinstance(student.model, MaskedViT)
    registers = isinstance(student.model, RegisterBackbone)
    if part == 'model':
        if encoder:
            raise UserError('the student is a masked autoencoder: its encoder is what leaves')
        if registers:
            raise UserError('the student is a backbone, which has no head')
        if is_detector(student.model):
            return dataclasses.replace(student, meaning=DETECTIONS)  # takes images of any size
        meaning = LOGIT_MAPS if is_segmentor(student.model) else student.meaning
        if student.preprocessor is None:
            meaning = OUTPUTS
        size = _image_size(getattr(student.model, 'backbone', None))
        return dataclasses.replace(student, meaning=meaning, image_size=size)
    if encoder or registers:
        rule = getattr(student.model, 'pos_interp', '')
        meaning = TOKENS if encoder else f'{REGISTER_MAP}, positions of other grids by the rule "{rule}"'
        return dataclasses.replace(student, part=part, meaning=meaning, image_size=_image_size(student.model))
    if isinstance(getattr(student.model, 'model', None), VisionTransformer):
        return classifier_backbone(student)
    backbone = getattr(student.model, 'backbone', None)
    if not isinstance(backbone, nn.Module) or 'backbone' not in student.config:
        raise UserError(
            f'{type(student.model).__name__} has no backbone of its own that could be exported alone; --part model '
            'exports it as a whole'
        )
    config = dict(student.config['backbone'])
    inside = f'{student.report.prefix}backbone.'
    meaning = 'feature maps (B, D, h, w)'
    if isinstance(backbone, FrozenBackbone):
        backbone, config = backbone.network, dict(config.get('backbone', config))
        if isinstance(backbone, RegisterBackbone):
            meaning = f'{REGISTER_MAP}, positions of other grids by the rule "{backbone.pos_interp}"'
    if '.' not in config['type']:
        config['type'] = f'{_package(backbone, student.scope)}.{config["type"]}'
    outside = {name: value for name, value in student.state.state.items() if not name.startswith(inside)}
    return dataclasses.replace(
        student,
        model=backbone,
        config=config,
        part=part,
        meaning=meaning,
        image_size=_image_size(backbone),
        dropped=parts_of(outside),
    )


def _image_size(backbone: Any) -> tuple[int, int] | None:
    """The size that a transformer with a position table was built for; None for any other network."""
    if isinstance(backbone, FrozenBackbone):
        backbone = backbone.network
    if not hasattr(backbone, 'timm_form'):
        return None
    size = backbone.timm_form()[1]['img_size']
    return (size, size) if isinstance(size, int) else tuple(size)


def _package(module: nn.Module, scope: str) -> str:
    """The registry scope of a class: that of the package that defines it."""
    package = type(module).__module__.split('.')[0]
    return package if package in ('mmpretrain', 'mmdet', 'mmseg', 'vfd') else scope
