"""ONNX: ``student.onnx`` with a free batch size, checked in onnxruntime.

Input ``images`` (B, C, H, W), float32, already normalised: the file's metadata (``vfd``) holds size, mean,
std and channel order. Output ``outputs``, (B, C) logits for classifiers; ``map_0``, ``map_1`` ... for several maps.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from timm.models.vision_transformer_sam import Attention as SAMAttention
from torch import Tensor, nn

from vfd.errors import MissingPackageError, UserError
from vfd.export.student import Answer, LiveStudent, Output, Outputs
from vfd.export.timm_classifier import traceable

TOLERANCE = 1e-4
INPUT, OUTPUT = 'images', 'outputs'
_LARGEST_FILE = 2**31 - 2**20  # a protobuf message ends at 2 GiB


def check(student: LiveStudent) -> None:
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


def output(student: LiveStudent) -> Output:
    """What the network itself answers."""
    return student.output


def write(student: LiveStudent, folder: Path, images: Tensor) -> Path:
    """Export the graph that torch.export captures."""
    path = folder / 'student.onnx'
    example = images if len(images) > 1 else images.repeat(2, 1, 1, 1)  # one image would fix the batch size
    network, answer = traceable(student), student(example)
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), torch.no_grad(), _written_out(network):
            warnings.simplefilter('ignore')
            torch.onnx.export(
                Outputs(network).eval(),
                (example,),
                str(path),
                dynamo=True,
                verbose=False,
                external_data=False,
                dynamic_shapes={'images': {0: torch.export.Dim('batch')}},
                input_names=[INPUT],
                output_names=_names(answer),
            )
    except Exception as error:  # the exporter raises whatever the model's code meets
        raise UserError(
            f'torch cannot export this network to ONNX: {_reason(error)}. Use --to torchscript.'
        ) from error
    finally:
        logging.disable(level)
    return path


def annotate(artefact: Path, text: str) -> None:
    """Into the file's ``metadata_props``, under ``vfd``."""
    import onnx

    model = onnx.load(str(artefact))
    own = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, own | {'vfd': text})
    onnx.save(model, str(artefact))


def reload(artefact: Path, student: LiveStudent) -> Callable[[Tensor], Answer]:
    """Run the file in onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session: Any = onnxruntime.InferenceSession(str(artefact), options, providers=['CPUExecutionProvider'])
    return lambda images: tuple(map(torch.from_numpy, session.run(None, {INPUT: images.numpy()})))


def snippet(artefact: Path, student: LiveStudent) -> str:
    """The lines that run it."""
    return (
        'import onnxruntime\n'
        f"session = onnxruntime.InferenceSession('{artefact}')\n"
        f"outputs = session.run(None, {{'{INPUT}': images}})  # images: float32, normalised"
    )


def _names(answer: Answer) -> list[str]:
    """``outputs`` for one tensor, a number each for several."""
    if isinstance(answer, Tensor) or len(answer) == 1:
        return [OUTPUT]
    return [f'map_{index}' for index in range(len(answer))]


@contextlib.contextmanager
def _written_out(model: nn.Module) -> Iterator[None]:
    """The attention of timm's SAM blocks folds heads into the batch; fused, the exporter knows no such attention."""
    fused = [part for part in model.modules() if isinstance(part, SAMAttention) and part.fused_attn]
    try:
        for part in fused:
            part.__dict__['fused_attn'] = False
        yield
    finally:
        for part in fused:
            part.__dict__['fused_attn'] = True


def _reason(error: BaseException) -> str:
    """The innermost cause: the exporter wraps it in advice to its own developers."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
