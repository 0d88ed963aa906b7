"""The trained student of a config and a checkpoint, alone: the teacher is neither built nor loaded."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import timm
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from vfd.checkpoints import LoadReport, StateFile, load_into, load_state
from vfd.errors import UserError
from vfd.export.detections import NAMES as DETECTION_NAMES
from vfd.export.detections import detect, is_detector
from vfd.export.example_inputs import call
from vfd.registry import MODELS
from vfd.teachers.normalization import Normalization

if TYPE_CHECKING:
    from vfd.export.forms import TimmSpec

# Where images and their preparation are looked up, in this order.
DATA_LOADERS = ('test_dataloader', 'val_dataloader', 'train_dataloader')

Tensors = Tensor | tuple[Tensor, ...]
LOGITS = 'logits (B, classes)'
LOGIT_MAPS = 'logits (B, classes, h, w), before they are resized to the image: its classes are their argmax'
OUTPUTS = 'what the network answers in its "tensor" mode'


@dataclass
class OutputSpec:
    """What an export answers, and who says what is right.

    Attributes:
        ask: the live student: normalised images (B, 3, H, W), or the inputs of `vfd.export.example_inputs`, to one
            tensor or several.
        meaning: what the tensors are, in words.
        names: of the tensors, which are then compared each with its own limit.
    """

    ask: Callable[[Any], Tensors]
    meaning: str
    names: tuple[str, ...] = ()


@dataclass
class LoadedStudent:
    """A student, or a part of one, that can be asked.

    Attributes:
        model: the network on the CPU, in eval mode.
        config: of ``model``, without pretrained weights.
        preprocessor: makes batches; what the student was trained with. None where ``example_inputs`` are given.
        preprocessor_config: of ``preprocessor``.
        scope: the registry scope of the config's nested types.
        pipeline: transforms of the config's test (else validation, else training) data set; empty without
            one.
        training_config: all of it.
        state: the checkpoint.
        report: what was loaded from it.
        part: ``model``, or ``backbone`` for a network without heads.
        meaning: what ``model`` answers, in words.
        image_size: (H, W) of the only images that ``model`` takes; None when it takes any.
        dropped: what of the checkpoint is not in ``model``, with the numbers of values.
        timm: of a backbone that was cut out of a timm classifier, its form there.
    """

    model: nn.Module
    config: dict[str, Any]
    preprocessor: nn.Module | None
    preprocessor_config: dict[str, Any]
    scope: str
    pipeline: list[dict[str, Any]]
    training_config: Config
    state: StateFile
    report: LoadReport
    part: str = 'model'
    meaning: str = LOGITS
    image_size: tuple[int, int] | None = None
    dropped: dict[str, int] = field(default_factory=dict)
    timm: TimmSpec | None = None

    def __call__(self, inputs: Any) -> Tensors:
        """Normalised images (B, 3, H, W) to outputs: (B, C) logits for classifiers; or `example_inputs` to outputs."""
        return self.asking(self.model)(inputs)

    def asking(self, model: nn.Module) -> Callable[[Any], Tensors]:
        """A network like this one as a function of its inputs."""
        if self.is_detector:
            return lambda images: detect(model, images)

        def ask(inputs: Any) -> Tensors:
            with torch.no_grad():
                return call(model, inputs)

        return ask

    @property
    def is_detector(self) -> bool:
        """Whether it answers with boxes."""
        return self.part == 'model' and is_detector(self.model)

    @property
    def output(self) -> OutputSpec:
        """What an export of ``model`` as it is answers."""
        names = DETECTION_NAMES if self.is_detector else ()
        return self.timm.output if self.timm else OutputSpec(self, self.meaning, names)

    def rebuild(self) -> nn.Module:
        """The same network again, with weights of its own."""
        if self.timm is not None:
            return timm.create_model(self.timm.name, **self.timm.args)
        with DefaultScope.overwrite_default_scope(self.scope):
            return MODELS.build(ConfigDict(copy.deepcopy(self.config)))

    @property
    def normalization(self) -> Normalization:
        """What the student's input images look like."""
        assert self.preprocessor is not None, 'only images are normalised'
        own = Normalization.of_image_preprocessor(self.preprocessor)
        swaps = bool(getattr(self.preprocessor, 'channel_conversion', False))  # mmseg's name for it
        return dataclasses.replace(own, rgb=own.rgb or swaps)

    @property
    def classes(self) -> list[str] | None:
        """Class names, where the checkpoint knows them."""
        meta = self.state.meta.get('dataset_meta') or {}
        names = meta.get('classes', meta.get('CLASSES'))
        return list(map(str, names)) if names else None


class TensorFunction(nn.Module):
    """The student as a plain function of tensors, for tracing.

    Args:
        model: the network.
        names: of a dict of inputs; None for one tensor or a tuple of tensors.
    """

    def __init__(self, model: nn.Module, names: tuple[str, ...] | None = None):
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *inputs: Tensor) -> Tensors:
        """Normalised images (B, 3, H, W), or each of the inputs, to outputs."""
        if self.names is not None:
            answer = self.model(dict(zip(self.names, inputs, strict=True)))
        else:
            answer = call(self.model, inputs if len(inputs) > 1 else inputs[0])
        return answer[0] if isinstance(answer, tuple) and len(answer) == 1 else answer


def live_student(config: Config, checkpoint: str | Path) -> LoadedStudent:
    """Build the student of a config and load a checkpoint into it, completely.

    Of a masked autoencoder only the encoder is built: the decoder is of pre-training and differs from method to
    method.

    Args:
        config: of a distiller (``model.student``) or of a plain model, such as the supervised baseline.
        checkpoint: of either, in any format that `vfd.checkpoints.load_state` reads.

    Raises:
        UserError: the config has no model, or the checkpoint lacks a tensor of the student.
    """
    model_config = config.get('model')
    if not model_config:
        raise UserError(f'the config {config.filename or ""} has no "model": there is nothing to export')
    student_config = _without_pretrained(model_config.get('student') or model_config)
    scope = config.get('default_scope') or 'mmpretrain'
    preprocessor_config = copy.deepcopy(
        dict(model_config.get('data_preprocessor') or config.get('data_preprocessor') or {})
    )
    preprocessor_config.setdefault('type', 'mmpretrain.ClsDataPreprocessor')
    if preprocessor_config['type'] in ('vfd.ClsDataPreprocessor', 'vfd.SelfSupDataPreprocessor'):
        # mmpretrain's computes the same numbers, and needs no vfd
        preprocessor_config['type'] = preprocessor_config['type'].replace('vfd.', 'mmpretrain.')
    preprocessor_config.pop('batch_augments', None)  # mixing of training images
    student_config.pop('data_preprocessor', None)
    images = not config.get('example_inputs')
    with DefaultScope.overwrite_default_scope(scope):
        student_config = _encoder_alone(student_config)
        model = MODELS.build(ConfigDict(copy.deepcopy(student_config)))  # mmdet reads it by attributes
        preprocessor = MODELS.build(copy.deepcopy(preprocessor_config)) if images else None
    state = load_state(checkpoint)
    prefix = 'student.' if any(name.startswith('student.') for name in state.state) else ''
    report = load_into(model, state, prefix=prefix)
    model.eval()  # of OpenMMLab's backbones this returns None
    return LoadedStudent(
        model,
        student_config,
        preprocessor,
        preprocessor_config,
        scope,
        _pipeline(config),
        config,
        state,
        report,
        dropped=parts_of({name: state.state[name] for name in report.unused}),
    )


def parts_of(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """The parts of a network that tensors belong to, with their numbers of values."""
    parts: dict[str, int] = {}
    for name, value in tensors.items():
        part = name.removeprefix('student.').split('.')[0]
        parts[part] = parts.get(part, 0) + value.numel()
    return parts


def _encoder_alone(config: dict[str, Any]) -> dict[str, Any]:
    """The config of the encoder, where it is one of a masked autoencoder; the same config else."""
    from vfd.backbones import MaskedAutoencoder, MaskedViT

    kind = MODELS.get(config['type'])
    if not (inspect.isclass(kind) and issubclass(kind, MaskedAutoencoder)):
        return config
    known = inspect.signature(MaskedViT).parameters
    return {'type': 'vfd.MaskedViT'} | {key: value for key, value in config.items() if key in known}


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
    fetching = {'pretrained', 'checkpoint', 'checkpoint_path', 'pretrained_cfg'}
    return {
        key: _without_pretrained(value)
        for key, value in node.items()
        if key not in fetching and not (key == 'init_cfg' and _fetches(value))
    }


def _fetches(init_cfg: Any) -> bool:
    entries = init_cfg if isinstance(init_cfg, (list, tuple)) else [init_cfg]
    return any(isinstance(entry, dict) and entry.get('type') == 'Pretrained' for entry in entries)
