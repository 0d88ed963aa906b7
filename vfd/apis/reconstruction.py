"""Show a masked autoencoder's predictions for an image: from a config and a checkpoint of its training."""

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
from torch import Tensor

from vfd.apis.config import load_config
from vfd.backbones import MaskedAutoencoder
from vfd.checkpoints import load_into, load_state
from vfd.datasets import read_image
from vfd.errors import BadDataError, MissingFileError, UserError
from vfd.registry import MODELS
from vfd.teachers import Normalization
from vfd.visualization import Reconstruction

_PREPROCESSOR = {'type': 'mmpretrain.ClsDataPreprocessor'}


class ReconstructionInferencer:
    """Hides patches of an image and shows what is predicted there, and the features of student and teacher.

    Args:
        config: of a pre-training whose student is a :class:`vfd.MaskedAutoencoder`. Its model draws masks
            (``draw_mask``), predicts pixels where the student has a pixel head, and gives the features that its loss
            compares (``compared``) where it has a teacher; it is built with its class's ``inference_settings``.
        checkpoint: what that training wrote, or a released file of a masked autoencoder for the student.
        mask_ratio: share of hidden patches; default: the config's.

    Raises:
        UserError: the config is of another kind of model, or the checkpoint lacks tensors.
    """

    def __init__(
        self, config: str | Path | Config, checkpoint: str | Path, mask_ratio: float | None = None
    ) -> None:
        loaded = config if isinstance(config, Config) else load_config(config)
        settings: Any = copy.deepcopy(loaded.get('model') or {})
        student = MODELS.get(str((settings.get('student') or {}).get('type')))
        if not (inspect.isclass(student) and issubclass(student, MaskedAutoencoder)):
            raise UserError(
                f'{loaded.filename or "the config"} trains no masked autoencoder: model.student has to be a '
                'vfd.MaskedAutoencoder.'
            )
        settings.student.pop('checkpoint', None)  # all weights come from the file of the training
        if mask_ratio is not None:
            settings.mask_ratio = mask_ratio
        settings.update(getattr(MODELS.get(settings.type), 'inference_settings', {}))
        settings.setdefault('data_preprocessor', loaded.get('data_preprocessor') or _PREPROCESSOR)
        self.notes: list[str] = []
        self._has_teacher_weights = self._find_teacher(settings.get('teacher'))
        with DefaultScope.overwrite_default_scope(loaded.get('default_scope') or 'mmpretrain'):
            self.model: Any = MODELS.build(settings).eval()
        self._load(checkpoint)

    def _find_teacher(self, teacher: dict | None) -> bool:
        """Return whether the teacher's weights are there; without them it is built, at random, but not shown."""
        if teacher is None:
            return False
        file = str(teacher.get('checkpoint'))
        if file == 'random':
            self.notes.append('The teacher of this config is random and is not shown.')
        elif file != 'pretrained' and not Path(file).expanduser().is_file():
            self.notes.append(f'The teacher is not shown: {file} is not there.')
            teacher['checkpoint'] = 'random'
        return teacher['checkpoint'] != 'random'

    def _load(self, checkpoint: str | Path) -> None:
        file = load_state(checkpoint)
        trained_here = any(name.startswith('student.') for name in file.state)
        load_into(self.model if trained_here else self.model.student, file)
        others = [name for name, _ in self.model.named_parameters() if not name.startswith('student.')]
        if not trained_here and others:
            self._has_teacher_weights = False
            self.notes.append('The file holds no projector, so that the teacher cannot be compared.')

    def __call__(self, image: str | Path, seed: int = 0) -> Reconstruction:
        """Look at one image: its largest central part of the network's shape, resized.

        Args:
            image: the file.
            seed: of the mask.

        Raises:
            MissingFileError: there is no such file.
            UserError: it is no image.
        """
        if not Path(image).is_file():
            raise MissingFileError(f'no image at {image}')
        try:
            pixels = read_image(image)  # BGR
        except BadDataError as error:
            raise UserError(f'{image} cannot be read as an image: {error}') from error
        model, student = self.model, self.model.student
        pixels = _central(pixels, tuple(student.patch_embed.img_size))
        batch = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        notes = list(self.notes)
        with torch.no_grad():
            inputs = model.data_preprocessor({'inputs': batch}, False)['inputs']
            hidden = _drawn(seed, lambda: model.draw_mask(inputs)).mask[0]
            predicted = None
            if student.pixel_outputs:
                predicted = self._pixels(_drawn(seed, lambda: model.predict(inputs))[0].pred_image)
            features = _drawn(seed, lambda: self._features(inputs))
        if predicted is not None and model.norm_pix:
            notes.insert(
                0, 'The network predicts normalised patches: each takes mean and deviation of the true one.'
            )
        if getattr(model, 'target', 'image') not in ('image', 'cls', 'all'):
            notes.insert(0, f'The pixel head was trained for the target "{model.target}".')
        if predicted is None:
            notes.insert(
                0, 'Features are what the loss compares: tokens of the decoders, of hidden patches too.'
            )
        rows, columns = student.grid
        return Reconstruction(
            image=np.ascontiguousarray(pixels[..., ::-1]).astype(np.float32) / 255,
            hidden=hidden.reshape(rows, columns).bool().numpy(),
            predicted=predicted,
            features={
                name: tokens[0].T.reshape(-1, rows, columns).float().numpy()
                for name, tokens in features.items()
            },
            notes=notes,
        )

    def _pixels(self, image: Tensor) -> np.ndarray:
        """Convert a normalised image (3, H, W) to RGB (H, W, 3), 0..1 where it is a possible colour."""
        own = Normalization.of_image_preprocessor(self.model.data_preprocessor)
        return own.convert(image[None], Normalization())[0].permute(1, 2, 0).numpy() / 255

    def _features(self, inputs: Tensor) -> dict[str, Tensor]:
        """Return the features (1, L, D) of the student, and of the teacher in the same space."""
        if not hasattr(self.model, 'compared'):
            return {'student': self.model.student(inputs)[:, 1:]}
        features = self.model.compared(inputs)
        return features if self._has_teacher_weights else {'student': features['student']}


def _drawn(seed: int, work: Any) -> Any:
    """Run ``work()`` with torch's generator at a seed; restore the generator afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return work()


def _central(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Cut the largest central part of the shape of ``size`` (height, width) and resize it to that size."""
    (height, width), (rows, columns) = pixels.shape[:2], size
    scale = min(height / rows, width / columns)
    cut_height, cut_width = max(1, round(rows * scale)), max(1, round(columns * scale))
    top, left = (height - cut_height) // 2, (width - cut_width) // 2
    part = pixels[top : top + cut_height, left : left + cut_width]
    method = cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC
    return cv2.resize(part, (columns, rows), interpolation=method)
