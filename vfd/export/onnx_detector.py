"""ONNX of a detector: one image to boxes, scores, labels and masks.

Input ``images`` (1, 3, H, W), float32, normalised. Outputs ``boxes`` (N, 4) as x1, y1, x2, y2 in pixels of that image
and inside it, ``scores`` (N,), ``labels`` (N,) and, of a detector with masks, ``masks`` (N, H, W), best first. H and W
are free multiples of the stride where the file answers as the live detector does at three sizes, else those of the
images compared: a trace keeps what a network computes from the size alone, such as positions of a transformer.

The graph is traced: torchvision registers ``NonMaxSuppression`` and ``RoiAlign`` there, and tracing takes seconds where
``torch.export``, with a symbol for each unknown number of boxes, takes a minute.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from timm.models.vision_transformer_sam import Attention as SAMAttention
from torch import Tensor, nn

from vfd.errors import UserError
from vfd.export.detections import collate
from vfd.export.detector_graph import detector_graph
from vfd.export.parity import compare
from vfd.export.student import LoadedStudent

INPUT = 'images'
OUTPUTS = ('boxes', 'scores', 'labels', 'masks')
STRIDE = 32  # of images of other sizes
_OPSET = 17
_FREE_SIZE_TOLERANCE = 1e-3  # a baked-in size is wrong by pixels


def write_detector(student: LoadedStudent, path: Path, images: Tensor) -> None:
    """Trace for any image size, or where that answers wrongly at another size, for the size of ``images``.

    Args:
        student: with a model of `vfd.export.detector_graph`.
        path: of the file.
        images: (B, 3, H, W), normalised.
    """
    graph = detector_graph(student.model).eval()
    _trace(graph, path, images[:1], {2: 'height', 3: 'width'})
    try:
        compare(student.output, detector_session(path), detector_batches(path, images), _FREE_SIZE_TOLERANCE)
    except Exception:  # onnxruntime has its own errors for shapes that do not fit
        _trace(graph, path, images[:1], {})


def detector_batches(path: Path, images: Tensor) -> list[Tensor]:
    """The images, and where the file takes any size one image cut to a smaller size and one filled up to a larger."""
    size = session_shape(path)[2:]
    if not all(isinstance(side, str) for side in size):
        return [images]
    height, width = (max(STRIDE, side * 3 // 4 // STRIDE * STRIDE) for side in images.shape[2:])
    smaller = images[:1, :, :height, :width].contiguous()
    return [images, smaller, nn.functional.pad(images[:1], (0, 2 * STRIDE, 0, STRIDE))]


def detector_session(path: Path) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """The file as a function of a batch (B, 3, H, W), in the form of `vfd.export.detections.detect`."""
    run = session(path)
    return lambda images: collate([run({INPUT: image[None].contiguous()}) for image in images])


def session(path: Path) -> Callable[[dict[str, Tensor]], tuple[Tensor, ...]]:
    """An ONNX file as a function of tensors by name, in onnxruntime on the CPU."""
    opened = _open(path)
    return lambda inputs: tuple(
        map(torch.from_numpy, opened.run(None, {name: value.numpy() for name, value in inputs.items()}))
    )


def session_shape(path: Path) -> list[int | str]:
    """The shape of the first input; free sides are names."""
    return _open(path).get_inputs()[0].shape


def _open(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])


def _trace(graph: nn.Module, path: Path, image: Tensor, free: dict[int, str]) -> None:
    with quiet(), torch.no_grad(), written_out(graph):
        try:
            names = list(OUTPUTS[: len(graph(image))])
            torch.onnx.export(
                graph,
                (image,),
                str(path),
                dynamo=False,
                verbose=False,
                opset_version=_OPSET,
                input_names=[INPUT],
                output_names=names,
                dynamic_axes={INPUT: free, **{name: {0: 'objects'} for name in names}},
            )
        except Exception as error:  # the exporter raises whatever the model's code meets
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f'torch cannot trace this detector: {reason}. Use --to mmdet.') from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """torch's exporters announce their successors and every constant."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(level)


@contextlib.contextmanager
def written_out(model: nn.Module) -> Iterator[None]:
    """The attention of timm's SAM blocks folds heads into the batch; fused, the exporters know no such attention."""
    fused = [part for part in model.modules() if isinstance(part, SAMAttention) and part.fused_attn]
    try:
        for part in fused:
            part.__dict__['fused_attn'] = False
        yield
    finally:
        for part in fused:
            part.__dict__['fused_attn'] = True
