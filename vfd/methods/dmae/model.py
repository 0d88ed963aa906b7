"""DMAE: a small masked autoencoder learns pixels, and one block's features of a big one.

Paper: "Masked Autoencoders Enable Efficient Knowledge Distillers", CVPR 2023, arXiv 2208.12256. Student and teacher
see the same visible patches; a block output of the student, projected to the teacher's width, is pulled to a block
output of the frozen teacher. In a config::

    model = dict(
        type='vfd.DMAE',
        student=dict(type='vfd.MaskedAutoencoder', arch='base'),
        teacher=dict(
            type='vfd.Teacher',
            source=dict(type='vfd.MAESource', arch='large'),
            checkpoint='checkpoints/mae_visualize_vit_large.pth'),
        align=[dict(student=8, teacher=17)])
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from vfd.backbones import PatchMask, check_masked_student, predict_images, random_mask
from vfd.errors import UserError, did_you_mean
from vfd.losses.pixel import pixel_loss
from vfd.methods.base import Distiller, masked_baseline
from vfd.registry import MODELS
from vfd.teachers.patches import check_same_patches

from .core import (
    OUTPUTS,
    TARGETS,
    Distance,
    Projector,
    Target,
    build_projector,
    feature_distance,
    reconstruction_target,
)


@MODELS.register_module()
class DMAE(Distiller):
    """Pre-trains a masked autoencoder under a bigger one.

    Args:
        student: config of a :class:`vfd.MaskedAutoencoder`.
        teacher: config of a :class:`vfd.Teacher` whose source has ``block.<k>`` taps for visible patches:
            :class:`vfd.MAESource` or a transformer of :class:`vfd.TimmSource` with the same grid of patches. The taps
            are filled in.
        align: pairs of blocks (from 0; negative ones count from the end) whose outputs are compared.
        projector: head on the student's features, one a pair: ``fc`` (published), ``mlp``, ``mlp2``, or None for
            equal widths.
        distance: ``l1`` (published) or ``l2``.
        normalize: compare directions only: every token is brought to length 1. None does so with a projector and
            not without, as the released code; False with a projector is the paper's text.
        loss_weight: of each pair's term; 1 as published.
        mask_ratio: share of hidden patches.
        norm_pix: normalise the pixels of every target patch.
        target: what the pixel head predicts, see :func:`~vfd.methods.dmae.core.reconstruction_target`.
        target_weights: a and b of the ``weighted`` target.
        data_preprocessor: config; makes the batches for both.
        init_cfg: mmengine's initialisation config.

    Raises:
        UserError: settings that contradict each other, blocks that do not exist, grids that differ.
    """

    def __init__(
        self,
        student: dict,
        teacher: dict,
        align: Sequence[dict[str, int]] = ({'student': 8, 'teacher': 17},),
        projector: Projector | None = 'fc',
        distance: Distance = 'l1',
        normalize: bool | None = None,
        loss_weight: float = 1.0,
        mask_ratio: float = 0.75,
        norm_pix: bool = False,
        target: Target = 'image',
        target_weights: Sequence[float] = (0.5, 0.5),
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        _check_choices(projector=projector, distance=distance, target=target)
        if not align or any(set(pair) != {'student', 'teacher'} for pair in align):
            raise UserError(f'DMAE: align={align!r}; write align=[dict(student=8, teacher=17)]')
        taps = [f'block.{pair["teacher"]}' for pair in align]
        needs_pixels = target in ('teacher', 'difference', 'weighted', 'disentangled')
        teacher = {**teacher, 'taps': tuple(dict.fromkeys([*taps, *(['pixels'] if needs_pixels else [])]))}
        student = {**student, 'pixel_outputs': OUTPUTS.get(target, 1)}
        super().__init__(student, teacher, data_preprocessor, init_cfg)
        check_masked_student('DMAE', self.student, mask_ratio)
        self.mask_ratio = mask_ratio
        check_same_patches('DMAE', self.student, self.teacher)
        self.pairs = [
            (self.student.tap_index(pair['student'], 'align: student block'), tap)
            for pair, tap in zip(align, taps, strict=True)
        ]
        self.names = [f's{block}_t{self.teacher.source.block_index(tap)}' for block, tap in self.pairs]
        if len(set(self.names)) < len(self.names):
            raise UserError(f'DMAE: align names a pair twice: {list(align)}')
        self.projectors = self._build_projectors(projector)
        self.distance: Distance = distance
        self.normalize = projector is not None if normalize is None else normalize
        self.loss_weight = loss_weight
        self.norm_pix = norm_pix
        self.target: Target = target
        self.target_weights = (float(target_weights[0]), float(target_weights[1]))

    def loss(self, inputs: Tensor, data_samples: list | None = None) -> dict[str, Tensor]:
        """Compute the pixel loss of the hidden patches, and the distance to the teacher on the visible ones.

        Args:
            inputs: (B, 3, H, W), preprocessed.
            data_samples: not read.

        Returns:
            ``loss_pixel`` and, for each pair, ``loss_distill_s<i>_t<j>``: scalars.
        """
        mask = self.draw_mask(inputs)
        target = self.teacher(inputs, ids_keep=mask.ids_keep)  # {block.<k>: (B, 1+K, Dt)}
        blocks = [block for block, _ in self.pairs]
        latent, tapped = self.student.forward_tokens(inputs, mask.ids_keep, blocks)  # (B, 1+K, Ds)
        predicted = self.student.pixels(self.student.decode_masked(latent, mask))  # (B, L-K, P)
        pixels = reconstruction_target(
            self.target,
            inputs,
            self.student.patch_size,
            norm_pix=self.norm_pix,
            teacher_pixels=target.get('pixels'),
            weights=self.target_weights,
            index=mask.ids_masked,
        )
        losses = {'loss_pixel': pixel_loss(predicted, pixels)}
        for name, (block, tap), project in zip(self.names, self.pairs, self.projectors, strict=True):
            term = feature_distance(project(tapped[block]), target[tap], self.distance, self.normalize)
            losses[f'loss_distill_{name}'] = self.loss_weight * term
        return losses

    def draw_mask(self, inputs: Tensor) -> PatchMask:
        """Draw a fresh random mask for every image of the batch."""
        return random_mask('DMAE', self.student, inputs, self.mask_ratio)

    def predict(self, inputs: Tensor, data_samples: list | None = None) -> list[BaseDataElement]:
        """Hide random patches and predict all, see :func:`vfd.backbones.predict_images`."""
        return predict_images(self.student, inputs, self.draw_mask(inputs), self.norm_pix)

    @classmethod
    def baseline(cls, model: dict) -> dict:
        """Give the masked autoencoder that learns pixels, without a teacher."""
        return masked_baseline(model, norm_pix=model.get('norm_pix', False))

    @torch.no_grad()
    def compared(self, inputs: Tensor) -> dict[str, Tensor]:
        """Return what the distance of the first pair compares, on whole images: for pictures.

        Returns:
            ``student`` and ``teacher``: (B, L, Dt), tokens of length 1 if ``normalize``.
        """
        block, tap = self.pairs[0]
        _, tapped = self.student.forward_tokens(inputs, taps=[block])
        sides = {'student': self.projectors[0](tapped[block]), 'teacher': self.teacher(inputs)[tap]}
        return {
            name: (F.normalize(tokens, dim=-1) if self.normalize else tokens)[:, 1:]
            for name, tokens in sides.items()
        }

    def _build_projectors(self, kind: Projector | None) -> nn.ModuleList:
        width = self.student.embed_dim
        widths = [self.teacher.source.channels(tap) for _, tap in self.pairs]
        if kind is None and any(other != width for other in widths):
            raise UserError(
                f'DMAE: projector=None compares features of equal width, but the student has {width} channels and the '
                f"teacher {', '.join(map(str, widths))}. Take projector='fc'."
            )
        return nn.ModuleList(
            nn.Identity() if kind is None else build_projector(kind, width, other) for other in widths
        )


def _check_choices(**given: str | None) -> None:
    choices: dict[str, tuple[str | None, ...]] = {
        'projector': ('fc', 'mlp', 'mlp2', None),
        'distance': ('l1', 'l2'),
        'target': TARGETS,
    }
    for name, value in given.items():
        known = [choice for choice in choices[name] if choice is not None]
        if value not in choices[name]:
            raise UserError(
                f'DMAE: {name}={value!r}{did_you_mean(str(value), known)}; one of {list(choices[name])}'
            )
