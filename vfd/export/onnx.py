"""ONNX: ``student.onnx``, checked in onnxruntime.

Input ``images`` (B, C, H, W), float32, already normalised: the file's metadata hold size, mean, std, channel order and
class names. Output ``outputs`` with a free batch size: (B, C) logits of classifiers, (B, C, h, w) of segmentors;
``map_0``, ``map_1`` ... where there are several. Detectors: see `vfd.export.onnx_detector`. Students without images
have the inputs that `vfd.export.example_inputs` names, of fixed shapes.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vfd.errors import MissingPackageError, UserError
from vfd.export.detector_graph import detector_graph
from vfd.export.example_inputs import named_inputs
from vfd.export.onnx_detector import (
    INPUT,
    detector_batches,
    detector_session,
    quiet,
    session,
    write_detector,
    written_out,
)
from vfd.export.parity import two_batches
from vfd.export.student import LoadedStudent, OutputSpec, TensorFunction, Tensors
from vfd.export.timm_classifier import traceable

TOLERANCE = 1e-4
OUTPUT = 'outputs'
_LARGEST_FILE = 2**31 - 2**20  # a protobuf message ends at 2 GiB


def check(student: LoadedStudent) -> None:
    """The three optional packages, and the size that one file can have."""
    packages = ('onnx', 'onnxscript', 'onnxruntime')
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        names = ', '.join(missing)
        raise MissingPackageError(f'--to onnx needs {names}; install with: pip install "vfdistill[export]"')
    size = sum(value.numel() * value.element_size() for value in student.model.state_dict().values())
    if size > _LARGEST_FILE:
        raise UserError(
            f'the weights take {size / 1e9:.1f} GB, an ONNX file at most 2 GB; use --to torchscript'
        )
    if student.is_detector:
        detector_graph(student.model)


def output(student: LoadedStudent) -> OutputSpec:
    """What the network itself answers."""
    return student.output


def write(student: LoadedStudent, folder: Path, images: Any) -> Path:
    """Export the graph that torch.export captures, of a detector the one that is traced."""
    path = folder / 'student.onnx'
    if student.is_detector:
        write_detector(student, path, images)
        return path
    if isinstance(images, Tensor) and student.preprocessor is not None:
        # one image would fix the batch size
        example = {INPUT: images if len(images) > 1 else images.repeat(2, 1, 1, 1)}
        shapes: Any = {'inputs': ({0: torch.export.Dim('batch')},)}
        answer = student(example[INPUT])
    else:
        example, shapes, answer = named_inputs(images), None, student(images)
    network = traceable(student)
    names = tuple(example) if isinstance(images, dict) else None
    with quiet(), torch.no_grad(), written_out(network):
        try:
            torch.onnx.export(
                TensorFunction(network, names).eval(),
                tuple(example.values()),
                str(path),
                dynamo=True,
                verbose=False,
                external_data=False,
                dynamic_shapes=shapes,
                input_names=list(example),
                output_names=_names(answer),
            )
        except Exception as error:  # the exporter raises whatever the model's code meets
            raise UserError(
                f'torch cannot export this network to ONNX: {_reason(error)}. Use --to torchscript.'
            ) from error
    return path


def batches(artefact: Path, student: LoadedStudent, images: Any) -> list[Any]:
    """What is compared: two batch sizes, of a detector whose file takes any image size three."""
    return detector_batches(artefact, images) if student.is_detector else two_batches(images)


def annotate(artefact: Path, text: str) -> None:
    """Into the file's ``metadata_props``: all under ``vfd``, and what an image needs under keys of their own."""
    import onnx

    model = onnx.load(str(artefact))
    own = {entry.key: entry.value for entry in model.metadata_props}
    report = json.loads(text)
    plain = report['preprocessing'] | {'classes': report['classes']}
    keys = {'size': 'input_size', 'mean': 'mean', 'std': 'std', 'channel_order': 'channel_order'}
    keys |= {'classes': 'classes'}
    own |= {key: json.dumps(plain[name]) for name, key in keys.items() if plain.get(name) is not None}
    onnx.helper.set_model_props(model, own | {'vfd': text})
    onnx.save(model, str(artefact))


def reload(artefact: Path, student: LoadedStudent) -> Callable[[Any], Tensors]:
    """Run the file in onnxruntime on the CPU."""
    if student.is_detector:
        return detector_session(artefact)
    run = session(artefact)
    return lambda inputs: run(named_inputs(inputs, INPUT if student.preprocessor is not None else 'inputs'))


def snippet(artefact: Path, student: LoadedStudent) -> str:
    """The lines that run it."""
    load = f"import onnxruntime\nsession = onnxruntime.InferenceSession('{artefact}')\n"
    if student.preprocessor is None:
        return f'{load}outputs = session.run(None, inputs)  # inputs: arrays by name, session.get_inputs()'
    if student.is_detector:
        names = 'boxes, scores, labels' + (', masks' if getattr(student.model, 'with_mask', False) else '')
        return f"{load}{names} = session.run(None, {{'{INPUT}': images}})  # one image, float32, normalised"
    return f"{load}outputs = session.run(None, {{'{INPUT}': images}})  # images: float32, normalised"


def _names(answer: Tensors) -> list[str]:
    """``outputs`` for one tensor, a number each for several."""
    if isinstance(answer, Tensor) or len(answer) == 1:
        return [OUTPUT]
    return [f'map_{index}' for index in range(len(answer))]


def _reason(error: BaseException) -> str:
    """The innermost cause: the exporter wraps it in advice to its own developers."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
