"""The record of an export: what it came from, how it was checked, how to use it."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

import vfd
from vfd.export.example_inputs import named_inputs
from vfd.export.parity import Parity
from vfd.export.student import LoadedStudent
from vfd.export.timm_form import timm_form

FILE_NAME = 'certificate.json'


@dataclass
class ExportReport:
    """Written beside the artefact as ``certificate.json`` and, but for the hashes of ``files``, into its
    metadata.

    Attributes:
        target: the form.
        part: of the student: ``model``, or ``backbone`` without heads.
        output: what the artefact answers, in words.
        dropped: what of the checkpoint is not in the artefact, with the numbers of values.
        artefact: the file to load.
        max_error: largest absolute difference from the live student's outputs.
        mean_error: mean absolute difference.
        limit: ``max_error`` allowed: ``tolerance`` times the largest output (at least 1).
        tolerance: as given or the target's default.
        batch_sizes: compared at.
        input_shapes: of each batch.
        outputs: of a detector the largest and mean error and the limit of boxes, scores, labels and masks apart.
        images: names of the images that were compared.
        preprocessing: how an image becomes the input: size, mean and std of pixels in 0..255, channel order; of other
            inputs their names, shapes and types. Of a detector ``any_size`` says whether other sizes were compared.
        classes: class names, if the checkpoint knows them.
        student: network, number of parameters and, for timm, the arguments of ``create_model``.
        checkpoint: name and SHA-256 of the source, and what was loaded from it.
        config: name and SHA-256.
        teacher: reference and fingerprint, from the checkpoint; None for a model trained without a teacher.
        versions: of the packages involved.
        snippet: Python lines that load the artefact.
        files: SHA-256 of the exported files.
    """

    target: str
    part: str
    output: str
    dropped: dict[str, int]
    artefact: Path
    max_error: float
    mean_error: float
    limit: float
    tolerance: float
    batch_sizes: list[int]
    input_shapes: list[list[int]]
    outputs: dict[str, dict[str, float]]
    images: list[str]
    preprocessing: dict[str, Any]
    classes: list[str] | None
    student: dict[str, Any]
    checkpoint: dict[str, str]
    config: dict[str, str]
    teacher: Any
    versions: dict[str, str]
    snippet: str
    files: dict[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """The certificate as JSON; the artefact's path shrinks to its name: the folder can be moved."""
        entries = dataclasses.asdict(self) | {'artefact': self.artefact.name}
        return json.dumps(entries, indent=2, default=str)


def certify(
    target: str,
    artefact: Path,
    student: LoadedStudent,
    output: str,
    config: Config,
    parity: Parity,
    tolerance: float,
    inputs: Any,
    names: list[str],
    snippet: str,
) -> ExportReport:
    """Collect everything about one export."""
    content = json.dumps(config.to_dict(), sort_keys=True, default=str)
    return ExportReport(
        target=target,
        part=student.part,
        output=output,
        dropped=student.dropped,
        artefact=artefact,
        max_error=parity.max_error,
        mean_error=parity.mean_error,
        limit=parity.limit,
        tolerance=tolerance,
        batch_sizes=parity.batch_sizes,
        input_shapes=parity.input_shapes,
        outputs=parity.outputs,
        images=names,
        preprocessing=preprocessing(student, inputs, parity),
        classes=student.classes,
        student=_network(target, student),
        checkpoint={
            'name': student.state.path.name,
            'sha256': student.state.sha256,
            'loaded': student.report.summary().partition(': ')[2],
        },
        config={
            'name': Path(config.filename).name if config.filename else '',
            'sha256': hashlib.sha256(content.encode()).hexdigest(),
        },
        teacher=(student.state.meta.get('vfd') or {}).get('teacher'),
        versions=versions(target),
        snippet=snippet,
    )


def _network(target: str, student: LoadedStudent) -> dict[str, Any]:
    """Name and size of the network and, where timm builds it, the arguments that it is built with."""
    described: dict[str, Any] = {
        'network': network_name(student),
        'parameters': sum(p.numel() for p in student.model.parameters()),
    }
    if target == 'timm':
        described['arguments'] = timm_form(student).args
    return described


def network_name(student: LoadedStudent) -> str:
    """The timm name where there is one, else the type of the backbone or model."""
    part = student.config.get('backbone') or student.config
    return str(part.get('model_name') or part['type'])


def preprocessing(student: LoadedStudent, inputs: Any, parity: Parity) -> dict[str, Any]:
    """How an image becomes the exported network's input, or what other inputs are."""
    if student.preprocessor is None:
        tensors = named_inputs(inputs).items()
        shapes = {name: [*tensor.shape, str(tensor.dtype).removeprefix('torch.')] for name, tensor in tensors}
        return {'input': 'tensors as they are', 'inputs': shapes}
    normalization = student.normalization
    detector = (
        {'any_size': len({tuple(shape[2:]) for shape in parity.input_shapes}) > 1}
        if student.is_detector
        else {}
    )
    return {
        'input': '(pixel - mean) / std for pixels in 0..255, float32, (batch, channel, height, width)',
        'size': list(inputs.shape[1:]),
        'mean': [_decimal(value) for value in normalization.mean],
        'std': [_decimal(value) for value in normalization.std],
        'channel_order': 'RGB' if normalization.rgb else 'BGR',
        **detector,
    }


def _decimal(value: float) -> float:
    """The short decimal that was rounded to float32 when the preprocessor stored it."""
    return float(f'{value:.7g}')


def versions(target: str) -> dict[str, str]:
    """Versions of vfd, torch, timm and the target's own packages."""
    own: dict[str, tuple[str, ...]] = {'hf': ('transformers',)}
    own |= {'onnx': ('onnx', 'onnxscript', 'onnxruntime'), 'mmpretrain': ('mmpretrain', 'mmengine')}
    own |= {
        'mmdet': ('mmdet', 'mmpretrain', 'mmengine'),
        'mmseg': ('mmsegmentation', 'mmpretrain', 'mmengine'),
    }
    names = ('timm', 'safetensors', *own.get(target, ()))
    found = {'vfd': vfd.__version__, 'torch': str(torch.__version__)}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):  # transformers is optional
            found[name] = metadata.version(name)
    return found
