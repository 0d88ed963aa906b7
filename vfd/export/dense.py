"""mmdet and mmseg: a config and a checkpoint, of the whole detector or segmentor or of the backbone alone."""

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
from vfd.export.detections import is_detector, is_segmentor
from vfd.export.forms import MMSpec
from vfd.export.mm_form import is_plain, mm_form
from vfd.export.mmpretrain import annotate
from vfd.export.student import LoadedStudent, OutputSpec, Tensors
from vfd.export.timm_form import OTHERS
from vfd.export.whole_model import CONFIG_NAME, model_config, reload_model, snippet, write_model

# What a config has to import before another package's registry finds a class of this scope.
_IMPORTS = {
    'mmpretrain': 'mmpretrain.models',
    'vfd': 'vfd.backbones',
    'mmdet': 'mmdet.models',
    'mmseg': 'mmseg.models',
}


class DenseTarget:
    """The target of one package. Its models answer with boxes or class maps, its backbones with feature maps.

    As a backbone a plain vision transformer becomes mmpretrain's; any other backbone stays the class that it is, and
    the config says with ``custom_imports`` which package has it.

    Args:
        package: ``mmdet`` or ``mmseg``.
    """

    TOLERANCE = 1e-6
    annotate = staticmethod(annotate)

    def __init__(self, package: str) -> None:
        self.package = package

    def check(self, student: LoadedStudent) -> None:
        """Models of the package and backbones, and only where the package is installed."""
        require(self.package)
        if student.part == 'backbone':
            self._form(student)
            return
        kind = {'mmdet': is_detector, 'mmseg': is_segmentor}[self.package]
        if not kind(student.model):
            raise UserError(
                f'{self.package} takes the backbone of this student: as a whole it is no model of {self.package}.'
            )
        model_config(student, self.package)

    def output(self, student: LoadedStudent) -> OutputSpec:
        """Boxes or class maps of a model, maps of a backbone."""
        return student.output if student.part == 'model' else self._form(student).output

    def write(self, student: LoadedStudent, folder: Path, images: Tensor) -> Path:
        """Write ``student.py`` with ``model`` or ``backbone``, and ``student.pth``."""
        if student.part == 'model':
            return write_model(student, self.package, folder)
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

    def reload(self, artefact: Path, student: LoadedStudent) -> Callable[[Tensor], Tensors]:
        """Let the package build model or backbone from the written config."""
        if student.part == 'model':
            return reload_model(artefact, student, self.package)
        registry = importlib.import_module(f'{self.package}.registry').MODELS
        with contextlib.redirect_stdout(io.StringIO()):  # mmengine prints the path of the temporary folder
            model = registry.build(Config.fromfile(artefact.with_name(CONFIG_NAME)).backbone)
            load_checkpoint(model, str(artefact), map_location='cpu', strict=True)
        model.eval()  # of OpenMMLab's backbones this returns None
        return model

    def snippet(self, artefact: Path, student: LoadedStudent) -> str:
        """The lines that load it."""
        if student.part == 'model':
            return snippet(artefact, self.package)
        return (
            f'from {self.package}.registry import MODELS\n'
            'from mmengine.config import Config\n'
            'from mmengine.runner import load_checkpoint\n'
            f"model = MODELS.build(Config.fromfile('{artefact.with_name(CONFIG_NAME)}').backbone)\n"
            f"load_checkpoint(model, '{artefact}', map_location='cpu', strict=True)\n"
            'model.eval()'
        )

    def _form(self, student: LoadedStudent) -> MMSpec:
        if is_plain(student):
            return mm_form(student, maps=True)
        if student.config['type'].partition('.')[0] not in _IMPORTS:
            raise UserError(f'{self.package} cannot build {student.config["type"]}. {OTHERS}')
        return MMSpec(student.config, student.model.state_dict(), student.output)
