"""The trained student of a config and a checkpoint, alone: the teacher is neither built nor loaded."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from vfd.checkpoints import LoadReport, StateFile, load_into, load_state
from vfd.errors import UserError
from vfd.registry import MODELS
from vfd.teachers.normalization import Normalization

# Where images and their preparation are looked up, in this order.
DATA_LOADERS = ('test_dataloader', 'val_dataloader', 'train_dataloader')


@dataclass
class LiveStudent:
    """A student that can be asked.

    Attributes:
        model: the network on the CPU, in eval mode.
        config: of the student alone, without pretrained weights.
        preprocessor: makes batches; what the student was trained with.
        preprocessor_config: of ``preprocessor``.
        scope: the registry scope of the config's nested types.
        pipeline: transforms of the config's test (else validation, else training) data set; empty without
            one.
        state: the checkpoint.
        report: what was loaded from it.
    """

    model: nn.Module
    config: dict[str, Any]
    preprocessor: nn.Module
    preprocessor_config: dict[str, Any]
    scope: str
    pipeline: list[dict[str, Any]]
    state: StateFile
    report: LoadReport

    def __call__(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) to outputs, (B, C) logits for classifiers."""
        with torch.no_grad():
            return self.model(images)

    @property
    def normalization(self) -> Normalization:
        """What the student's input looks like."""
        return Normalization.of_preprocessor(self.preprocessor)

    @property
    def classes(self) -> list[str] | None:
        """Class names, where the checkpoint knows them."""
        names = (self.state.meta.get('dataset_meta') or {}).get('classes')
        return list(map(str, names)) if names else None


class Outputs(nn.Module):
    """The student as a plain function of one argument, for tracing."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) to outputs."""
        return self.model(images)


def live_student(config: Config, checkpoint: str | Path) -> LiveStudent:
    """Build the student of a config and load a checkpoint into it, completely.

    Args:
        config: of a distiller (``model.student``) or of a plain model, such as the supervised twin.
        checkpoint: of either, in any format that `vfd.checkpoints.load_state` reads.

    Raises:
        UserError: the config has no model, or the checkpoint lacks a tensor of the student.
    """
    model_config = config.get('model')
    if not model_config:
        raise UserError(f'the config {config.filename or ""} has no "model": there is nothing to export')
    student_config = _without_pretrained(model_config.get('student') or model_config)
    scope = config.get('default_scope') or 'mmpretrain'
    default = {'type': 'mmpretrain.ClsDataPreprocessor'}
    preprocessor_config = copy.deepcopy(
        dict(model_config.get('data_preprocessor') or config.get('data_preprocessor') or default)
    )
    preprocessor_config.setdefault('type', default['type'])
    preprocessor_config.pop('batch_augments', None)  # mixing of training images
    student_config.pop('data_preprocessor', None)
    with DefaultScope.overwrite_default_scope(scope):
        model = MODELS.build(copy.deepcopy(student_config))
        preprocessor = MODELS.build(copy.deepcopy(preprocessor_config))
    state = load_state(checkpoint)
    prefix = 'student.' if any(name.startswith('student.') for name in state.state) else ''
    report = load_into(model, state, prefix=prefix)
    return LiveStudent(
        model.eval(),
        student_config,
        preprocessor,
        preprocessor_config,
        scope,
        _pipeline(config),
        state,
        report,
    )


def _pipeline(config: Config) -> list[dict[str, Any]]:
    for loader in DATA_LOADERS:
        dataset = (config.get(loader) or {}).get('dataset') or {}
        while 'dataset' in dataset and 'pipeline' not in dataset:  # a wrapper such as RepeatDataset
            dataset = dataset['dataset']
        if dataset.get('pipeline'):
            return [transform.to_dict() for transform in dataset['pipeline']]
    return []


def _without_pretrained(node: Any) -> Any:
    """A plain copy of a config without anything that would fetch other weights first."""
    if isinstance(node, (list, tuple)):
        return type(node)(_without_pretrained(item) for item in node)
    if not isinstance(node, dict):
        return node
    fetching = {'pretrained', 'checkpoint_path', 'pretrained_cfg'}
    return {
        key: _without_pretrained(value)
        for key, value in node.items()
        if key not in fetching and not (key == 'init_cfg' and _fetches(value))
    }


def _fetches(init_cfg: Any) -> bool:
    entries = init_cfg if isinstance(init_cfg, (list, tuple)) else [init_cfg]
    return any(isinstance(entry, dict) and entry.get('type') == 'Pretrained' for entry in entries)
