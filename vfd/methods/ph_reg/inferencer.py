"""Show how registers change the dense features of a transformer: from a config and a checkpoint of its training."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.structures import DataSample
from torch import Tensor

from vfd.apis.config import load_config
from vfd.apis.device import choose_device
from vfd.checkpoints import load_into, load_state
from vfd.datasets import read_image
from vfd.errors import BadDataError, MissingFileError, UserError
from vfd.methods.ph_reg.model import PHReg
from vfd.methods.ph_reg.pictures import RegisterMaps
from vfd.registry import MODELS

_PREPROCESSOR = {
    'type': 'mmpretrain.SelfSupDataPreprocessor',
    'mean': [123.675, 116.28, 103.53],
    'std': [58.395, 57.12, 57.375],
    'to_rgb': True,
}


class RegisterInferencer:
    """Compares a transformer, its denoised features, and the transformer with registers.

    Args:
        config: of a training with ``vfd.PHReg``.
        checkpoint: what that training wrote, or a released PH-Reg file for the student.
        device: where the networks run; default: the GPU if there is one.

    Raises:
        UserError: the config is of another method, or the checkpoint lacks tensors.
    """

    def __init__(
        self, config: str | Path | Config, checkpoint: str | Path, device: str | None = None
    ) -> None:
        loaded = config if isinstance(config, Config) else load_config(config)
        settings: Any = copy.deepcopy(loaded.get('model') or {})
        kind = MODELS.get(str(settings.get('type')))
        if not (inspect.isclass(kind) and issubclass(kind, PHReg)):
            raise UserError(
                f'{loaded.filename or "the config"} trains {settings.get("type") or "nothing"}; this shows what '
                'vfd.PHReg trains, as in configs/ph_reg/ph-reg_*.py.'
            )
        settings.setdefault('data_preprocessor', loaded.get('data_preprocessor') or _PREPROCESSOR)
        self.notes: list[str] = []
        if settings.teacher.get('checkpoint') == 'random':
            self.notes.append('The teacher of this config is random: its features mean nothing.')
        with DefaultScope.overwrite_default_scope(loaded.get('default_scope') or 'mmpretrain'):
            self.model: Any = MODELS.build(settings).eval()
        file = load_state(checkpoint)
        if any(name.startswith('student.') for name in file.state):
            load_into(self.model, file)
        else:
            self.model.student.load_weights(file)
        self.model.to(choose_device(device))

    @torch.no_grad()
    def __call__(self, image: str | Path, size: int | None = None, seed: int = 0) -> RegisterMaps:
        """Look at one image.

        Args:
            image: the file.
            size: pixels of the short side, rounded to whole patches; None takes what the network was trained with.
            seed: of the views.

        Raises:
            MissingFileError: there is no such file.
            UserError: it is no image, or the size is smaller than a few patches.
        """
        if not Path(image).is_file():
            raise MissingFileError(f'no image at {image}')
        try:
            pixels = read_image(image)  # BGR
        except BadDataError as error:
            raise UserError(f'{image} cannot be read as an image: {error}') from error
        student = self.model.student
        patch = student.patch_size
        if size is not None and size < 2 * patch:
            raise UserError(f'size={size}: at least two patches of {patch} pixels')
        pixels = _whole_patches(pixels, size or min(student.grid) * patch, patch)
        batch = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        inputs = self.model.data_preprocessor({'inputs': batch, 'data_samples': [DataSample()]}, False)[
            'inputs'
        ]
        grid = (pixels.shape[0] // patch, pixels.shape[1] // patch)
        generator = torch.Generator().manual_seed(seed)
        seeds = torch.randint(0, 2**31 - 1, (1, 3), generator=generator)
        teacher = self.model.teacher

        def as_map(tokens: Tensor) -> np.ndarray:
            return tokens[0].T.unflatten(1, grid).float().cpu().numpy()

        return RegisterMaps(
            image=np.ascontiguousarray(pixels[..., ::-1]).astype(np.float32) / 255,
            teacher=as_map(teacher.undenoised(inputs)[self.model.tap]),
            denoised=as_map(teacher(inputs, seed=seeds)[self.model.tap]),
            student=as_map(student.dense(inputs)),
            notes=list(self.notes),
        )


def _whole_patches(pixels: np.ndarray, short: int, patch: int) -> np.ndarray:
    """Resize so that the short side is about ``short`` and both are whole patches."""
    scale = short / min(pixels.shape[:2])
    rows, columns = (max(1, round(side * scale / patch)) * patch for side in pixels.shape[:2])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(pixels, (columns, rows), interpolation=method)
