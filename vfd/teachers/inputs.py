"""Further inputs of a teacher beside the images: their names, their shapes, and what resizing does to them.

B images of H x W pixels, n boxes of an image, K visible patches, S seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vfd.errors import UserError, did_you_mean

INPUTS = {
    'ids_keep': '(B, K) whole numbers, the visible patches of a transformer; they are gathered before the blocks',
    'boxes': 'for each image (n, 4) floating, corners (x1, y1, x2, y2) in pixels of the batch',
    'prompt': '(B, 1, H, W) floating, a sparse map such as metric depth, 0 where nothing is known',
    'seed': '(B, S) whole numbers, seeds of what the teacher draws for each image',
}  # further inputs of a teacher, by name


def check_inputs(inputs: dict[str, Any], reads: Set[str], name: str, images: Tensor) -> dict[str, Any]:
    """Drop inputs that are None; raise for those that a teacher does not read, and for wrong shapes.

    Args:
        inputs: by name.
        reads: the names that the teacher reads.
        name: of the teacher, for the message.
        images: (B, ...), the batch that they belong to.

    Returns:
        The inputs that were given.

    Raises:
        UserError: an input that the teacher does not read, or whose type or shape is not that of :data:`INPUTS`.
    """
    given = {key: value for key, value in inputs.items() if value is not None}
    for key in sorted(given.keys() - reads):
        known = ', '.join(sorted(reads)) or 'images alone'
        hint = '' if key in INPUTS else did_you_mean(key, reads or INPUTS)
        raise UserError(f'{name} does not read {key}{hint}; it reads {known}')
    for key, value in given.items():
        if not _FITS[key](value, images):
            raise UserError(
                f'{name}: the input {key} is {_shown(value)} for images {tuple(images.shape)}; expected {INPUTS[key]}'
            )
    return given


def resize_inputs(inputs: dict[str, Any], old: tuple[int, int], new: tuple[int, int]) -> dict[str, Any]:
    """Transform the inputs as resizing transformed their images.

    Boxes are scaled. A prompt is resized to the nearest pixel, because a mean with unknown pixels means nothing. Patch
    numbers count patches of the resized images already.

    Args:
        inputs: by name, as :func:`check_inputs` gives them.
        old: (H, W) of the batch.
        new: (H, W) of the resized images.
    """
    resized = dict(inputs)
    if 'boxes' in inputs:
        rows, columns = new[0] / old[0], new[1] / old[1]
        resized['boxes'] = [box * box.new_tensor([columns, rows, columns, rows]) for box in inputs['boxes']]
    if 'prompt' in inputs:
        resized['prompt'] = F.interpolate(inputs['prompt'], new, mode='nearest-exact')
    return resized


def _is_whole(value: Any) -> bool:
    return isinstance(value, Tensor) and not (
        value.is_floating_point() or value.is_complex() or value.dtype == torch.bool
    )


def _rows_fit(value: Any, images: Tensor) -> bool:
    return _is_whole(value) and value.ndim == 2 and len(value) == len(images)


def _boxes_fit(value: Any, images: Tensor) -> bool:
    return (
        isinstance(value, Sequence)
        and len(value) == len(images)
        and all(isinstance(box, Tensor) and box.ndim == 2 and box.shape[1] == 4 for box in value)
        and all(box.is_floating_point() for box in value)
    )


def _prompt_fits(value: Any, images: Tensor) -> bool:
    return (
        isinstance(value, Tensor)
        and value.is_floating_point()
        and value.shape == (len(images), 1, *images.shape[-2:])
    )


_FITS: dict[str, Callable[[Any, Tensor], bool]] = {
    'ids_keep': _rows_fit,
    'boxes': _boxes_fit,
    'prompt': _prompt_fits,
    'seed': _rows_fit,
}
assert _FITS.keys() == INPUTS.keys()


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f'{tuple(value.shape)} {str(value.dtype).removeprefix("torch.")}'
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f'a {type(value).__name__} of {len(value)}: {", ".join(_shown(item) for item in value[:3])}'
    return f'a {type(value).__name__}'
