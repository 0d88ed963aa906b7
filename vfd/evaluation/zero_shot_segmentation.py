"""Zero-shot segmentation with CLIP: every patch is compared with the names of the classes.

A model for mmseg's data sets and ``IoUMetric``. In a config::

    model = dict(
        type='vfd.ZeroShotSegmentor',
        backbone=dict(type='vfd.RegisterCLIP', ...),
        class_names='configs/ph_reg/_base_/class_names/voc21.txt',
        text_model='ViT-B-16-quickgelu',
        text_weights='openai',
        prob_thd=0.1,
        data_preprocessor=dict(type='mmseg.SegDataPreProcessor', ...))
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmengine.structures import PixelData
from torch import Tensor, nn

from vfd.errors import UserError
from vfd.evaluation import zero_shot
from vfd.evaluation.frozen import FrozenBackbone, read_any_checkpoint
from vfd.evaluation.pamr import refine
from vfd.evaluation.text_queries import check_text_tower, read_class_names, text_features
from vfd.evaluation.zero_shot import SoftmaxOver
from vfd.registry import MODELS


@MODELS.register_module()
class ZeroShotSegmentor(BaseModel):
    """Labels pixels by the class name whose text feature is nearest to their patch. It has nothing to train.

    Args:
        backbone: config of a network whose last map is aligned with text: (B, D, h, w), D that of the text features.
            It is evaluated as it is. Checkpoints of distillations, whose
            ``student`` is the backbone, and released files can be tested.
        class_names: file of names or list, see :func:`~vfd.evaluation.text_queries.read_class_names`.
        text_model: open_clip's name of the CLIP model whose text tower encodes the names.
        text_weights: open_clip's tag, a weight file, or ``'random'``, which is never the default.
            The tower is built at the first image and not kept.
        crop_size: side of a window in pixels, or height and width.
        stride: step between windows in pixels.
        logit_scale: factor of the cosines before the softmax (published: 40).
        softmax_over: ``classes``, each scored by its best name, or all ``queries``, before the best name is taken; see
            :func:`~vfd.evaluation.zero_shot.class_scores`.
        prob_thd: a pixel whose best class is less likely becomes class 0, background. Published: 0.1 for the 21
            classes of VOC.
        pamr_steps: rounds of pixel-adaptive mask refinement (:func:`~vfd.evaluation.pamr.refine`) on the scores of
            the resized image [ours: the place]. 0 is what the published tables are made with; the released code's
            own default is 10.
        data_preprocessor: config of mmseg's ``SegDataPreProcessor``.
        init_cfg: mmengine's initialisation config.

    Raises:
        UserError: class names, text tower or sizes are wrong.
    """

    def __init__(
        self,
        backbone: dict,
        class_names: str | Path | Sequence[str],
        text_model: str,
        text_weights: str | None = None,
        crop_size: int | tuple[int, int] = 336,
        stride: int | tuple[int, int] = 112,
        logit_scale: float = 40.0,
        softmax_over: SoftmaxOver = 'classes',
        prob_thd: float = 0.0,
        pamr_steps: int = 0,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.classes = read_class_names(class_names)
        check_text_tower(text_model, text_weights)
        self.text = (text_model, str(text_weights))
        self.crop_size, self.stride = _pair(crop_size, 'crop_size'), _pair(stride, 'stride')
        if any(step > side for step, side in zip(self.stride, self.crop_size, strict=True)):
            raise UserError(
                f'stride {self.stride} is larger than crop_size {self.crop_size}: pixels would be left out'
            )
        if not 0 <= prob_thd < 1:
            raise UserError(f'prob_thd={prob_thd} is a probability: 0 <= prob_thd < 1')
        if pamr_steps < 0:
            raise UserError(f'pamr_steps={pamr_steps}: a number of rounds, 0 for none')
        if softmax_over not in get_args(SoftmaxOver):
            raise UserError(f'softmax_over={softmax_over!r}: one of {", ".join(get_args(SoftmaxOver))}')
        self.softmax_over: SoftmaxOver = softmax_over
        self.prob_thd, self.pamr_steps = prob_thd, pamr_steps
        # A parameter, though nothing trains: DDP raises for a model without any.
        self.logit_scale = nn.Parameter(torch.tensor(float(logit_scale)))
        self.backbone = FrozenBackbone.around(backbone)
        read_any_checkpoint(self)
        self.queries: Tensor | None
        self.register_buffer('queries', None, persistent=False)  # (Q, D), made at the first image
        class_indices = [index for index, names in enumerate(self.classes) for _ in names]
        self.class_of_query: Tensor
        self.register_buffer('class_of_query', torch.tensor(class_indices), persistent=False)

    @torch.no_grad()
    def forward(self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor') -> Any:
        """Run one batch in a mode of mmseg's models.

        Args:
            inputs: (B, 3, H, W), preprocessed.
            data_samples: B of mmseg's samples, needed to predict.
            mode: ``tensor`` gives the cosines (B, Q, H, W), ``predict`` the samples with ``pred_sem_seg`` (1, h, w)
                and ``seg_logits`` (C, h, w), in the size of the original image.

        Raises:
            UserError: the mode is ``loss``: there is nothing to train.
        """
        if mode == 'loss':
            raise UserError('vfd.ZeroShotSegmentor has nothing to train: run `vfd test` with this config')
        logits = zero_shot.slide(inputs, self.crop_size, self.stride, self._scores)
        if mode == 'tensor':
            return logits
        assert data_samples is not None and mode == 'predict', mode
        for image, scores, sample in zip(inputs, logits, data_samples, strict=True):
            self._label(image, scores, sample)
        return data_samples

    def _scores(self, windows: Tensor) -> Tensor:
        maps = self.backbone(windows)[-1]
        queries = self._queries(maps)
        if maps.shape[1] != queries.shape[1]:
            raise UserError(
                f'the backbone gives maps of {maps.shape[1]} channels, the text tower {self.text[0]} features of '
                f'{queries.shape[1]}: take the text tower of the CLIP model that the backbone comes from'
            )
        return zero_shot.query_scores(maps, queries)

    def _queries(self, like: Tensor) -> Tensor:
        if self.queries is None:
            names = [name for names in self.classes for name in names]
            self.queries = text_features(names, *self.text, device=like.device).to(like)
        return self.queries

    def _label(self, image: Tensor, scores: Tensor, sample: Any) -> None:
        """Label every pixel of one image; padding that the preprocessor added is cut off."""
        meta = sample.metainfo
        if not scores.isfinite().all():
            raise UserError(f'the features of {meta.get("img_path")} are not finite: no class can be chosen')
        _, right, _, bottom = meta.get('img_padding_size', meta.get('padding_size', (0, 0, 0, 0)))
        height, width = image.shape[-2] - bottom, image.shape[-1] - right
        image, scores = (maps[None, :, :height, :width] for maps in (image, scores))
        scores = refine(image, scores, self.pamr_steps)
        scores = F.interpolate(scores, tuple(meta['ori_shape']), mode='bilinear', align_corners=False)[0]
        logits, probabilities = zero_shot.class_scores(
            scores, self.class_of_query, float(self.logit_scale), self.softmax_over
        )
        self._check_labels(sample)
        sample.seg_logits = PixelData(data=logits)
        sample.pred_sem_seg = PixelData(data=zero_shot.choose_class(probabilities, self.prob_thd))

    def _check_labels(self, sample: Any) -> None:
        """Refuse labels beyond the last class, which mmseg's metric would count as wrong without a message."""
        if 'gt_sem_seg' not in sample:
            return
        labels = sample.gt_sem_seg.data
        largest = int(labels[labels != 255].max()) if (labels != 255).any() else 0
        if largest >= len(self.classes):
            raise UserError(
                f'{sample.metainfo.get("img_path")} has label {largest}, but there are only {len(self.classes)} class '
                'names: is the file of names that of this data set?'
            )


def _pair(size: int | Sequence[int], name: str) -> tuple[int, int]:
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or min(pair) < 1:
        raise UserError(f'{name}={size}: give pixels, or height and width')
    return pair[0], pair[1]
