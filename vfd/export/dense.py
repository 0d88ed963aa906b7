"""mmdet and mmseg: a config and a checkpoint of the backbone alone."""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import load_checkpoint
from torch import Tensor

from vfd.compat.packages import require
from vfd.errors import UserError
from vfd.export.forms import MMForm
from vfd.export.mm_form import is_plain, mm_form
from vfd.export.mmpretrain import annotate
from vfd.export.student import Answer, LiveStudent, Output
from vfd.export.timm_form import OTHERS

CONFIG_NAME = 'student.py'
# What a config has to import before another package's registry finds a class of this scope.
_IMPORTS = {
    'mmpretrain': 'mmpretrain.models',
    'vfd': 'vfd.registry',
    'mmdet': 'mmdet.models',
    'mmseg': 'mmseg.models',
}


class DenseTarget:
    """The target of one package. Its backbones answer with feature maps.

    A plain vision transformer becomes mmpretrain's; any other backbone stays the class that it is, and the config says
    with ``custom_imports`` which package has it.

    Args:
        package: ``mmdet`` or ``mmseg``.
    """

    TOLERANCE = 1e-6
    annotate = staticmethod(annotate)

    def __init__(self, package: str) -> None:
        self.package = package

    def check(self, student: LiveStudent) -> None:
        """Only backbones, and only where the package is installed."""
        require(self.package)
        if student.part != 'backbone':
            raise UserError(f'{self.package} takes the backbone of a student.')
        self._form(student)

    def output(self, student: LiveStudent) -> Output:
        """The maps."""
        return self._form(student).output

    def write(self, student: LiveStudent, folder: Path, images: Tensor) -> Path:
        """Write ``student.py`` with ``backbone``, and ``student.pth``."""
        form = self._form(student)
        scope = form.config['type'].partition('.')[0]
        content: dict[str, Any] = {}
        if scope != self.package:
            content['custom_imports'] = {'imports': [_IMPORTS[scope]], 'allow_failed_imports': False}
        normalization = student.normalization
        content['backbone'] = form.config
        content['data_preprocessor'] = {
            'mean': list(normalization.mean),
            'std': list(normalization.std),
            'bgr_to_rgb': normalization.rgb,
        }
        Config(content).dump(folder / CONFIG_NAME)
        path = folder / 'student.pth'
        torch.save({'state_dict': form.state, 'meta': {}}, path)
        return path

    def reload(self, artefact: Path, student: LiveStudent) -> Callable[[Tensor], Answer]:
        """Let the package build the backbone from the written config."""
        registry = importlib.import_module(f'{self.package}.registry').MODELS
        with contextlib.redirect_stdout(io.StringIO()):  # mmengine prints the path of the temporary folder
            model = registry.build(Config.fromfile(artefact.with_name(CONFIG_NAME)).backbone)
            load_checkpoint(model, str(artefact), map_location='cpu', strict=True)
        model.eval()  # of OpenMMLab's backbones this returns None
        return model

    def snippet(self, artefact: Path, student: LiveStudent) -> str:
        """The lines that load it."""
        return (
            f'from {self.package}.registry import MODELS\n'
            'from mmengine.config import Config\n'
            'from mmengine.runner import load_checkpoint\n'
            f"model = MODELS.build(Config.fromfile('{artefact.with_name(CONFIG_NAME)}').backbone)\n"
            f"load_checkpoint(model, '{artefact}', map_location='cpu', strict=True)\n"
            'model.eval()'
        )

    def _form(self, student: LiveStudent) -> MMForm:
        if is_plain(student):
            return mm_form(student, maps=True)
        if student.config['type'].partition('.')[0] not in _IMPORTS:
            raise UserError(f'{self.package} cannot build {student.config["type"]}. {OTHERS}')
        return MMForm(student.config, student.model.state_dict(), student.output)
