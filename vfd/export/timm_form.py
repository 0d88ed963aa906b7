"""The timm network inside a student."""

from __future__ import annotations

import json

from vfd.errors import UserError
from vfd.export.forms import TimmSpec
from vfd.export.student import LoadedStudent
from vfd.export.timm_classifier import OTHERS, classifier_form
from vfd.export.timm_encoder import encoder_form


def timm_form(student: LoadedStudent) -> TimmSpec:
    """Find or assemble the timm network of a student. The comparison with the live student decides in the end.

    Raises:
        UserError: the student is no timm network, or was trained on BGR images, which timm never feeds.
    """
    if not student.normalization.rgb:
        raise UserError(
            'the student was trained on BGR images and timm feeds RGB: train with '
            'data_preprocessor.to_rgb=True (bgr_to_rgb=True for mmdet and mmseg). ' + OTHERS
        )
    form = encoder_form(student) if student.part == 'backbone' else classifier_form(student)
    try:
        json.dumps(form.args)
    except TypeError as error:
        raise UserError(f'an argument of {form.name} cannot be written down ({error}). {OTHERS}') from None
    return form
