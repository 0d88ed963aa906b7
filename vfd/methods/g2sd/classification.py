"""G2SD, specific stage for classification: fine-tuning under labels and under a fine-tuned teacher.

Paper: "Generic-to-Specific Distillation of Masked Autoencoders", CVPR 2023, arXiv 2302.14771. The student gets a
distillation token whose head learns the teacher's class, as in DeiT; at test time both heads are averaged. In a
config::

    model = dict(
        type='vfd.G2SDClassifier',
        student=dict(
            type='vfd.ViTClassifier', model_name='vit_small_patch16_224_dist_token',
            checkpoint='work_dirs/g2sd_.../epoch_300.pth'),
        teacher=dict(
            type='vfd.Teacher',
            source=dict(
                type='vfd.TimmSource', model_name='vit_base_patch16_224.mae', global_pool='avg', num_classes=1000),
            checkpoint='checkpoints/mae_finetuned_vit_base.pth'))
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import trunc_normal_
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vfd.errors import UserError
from vfd.losses import NKDLoss
from vfd.methods.base import Distiller
from vfd.registry import MODELS
from vfd.students import check_same_classes, labels_of
from vfd.teachers import StoredTeacher

MODELS.register_module(module=NKDLoss)

LABEL_SMOOTHING = 0.1


@MODELS.register_module()
class G2SDClassifier(Distiller):
    """Trains a pre-trained ``student`` on labels and on the class that ``teacher`` sees in the same mixed image.

    Without ``distill_loss``, hard distillation through the token, as published::

        loss = 0.5 * (CE(logits, labels) + CE(token's logits, argmax of the teacher))

    With it, a student without the token, and that loss alone, which reads the labels too.

    Args:
        student: config of a :class:`vfd.ViTClassifier`; for hard distillation of a ``..._dist_token`` network.
        teacher: config of a :class:`vfd.Teacher` with as many classes. The images are mixed before it sees them, so
            it has to be asked live.
        distill_loss: config of :class:`vfd.NKDLoss`; None distils through the token.
        label_smoothing: of the labels (the published mixing smooths its targets equally); None is 0.1, as published.
            Not for ``distill_loss``, which reads no more than the label's class.
        data_preprocessor: config; mixes the batches for both.
        init_cfg: mmengine's initialisation config.

    Raises:
        UserError: the student has no token where one is needed (or the other way round), class counts differ, or
            settings contradict each other.
    """

    def __init__(
        self,
        student: dict,
        teacher: dict,
        distill_loss: dict | None = None,
        label_smoothing: float | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        if distill_loss is not None and label_smoothing is not None:
            raise UserError(
                'G2SDClassifier: label_smoothing does nothing beside distill_loss, which reads the class of a label '
                'alone: remove one of them.'
            )
        super().__init__(student, {'taps': ('logits',), **teacher}, data_preprocessor, init_cfg)
        self.distill_loss = None if distill_loss is None else MODELS.build(distill_loss)
        self.label_smoothing = LABEL_SMOOTHING if label_smoothing is None else label_smoothing
        self._check_student()
        self._check_teacher()

    def loss(self, inputs: Tensor, data_samples: list | None) -> dict[str, Tensor]:
        """The losses of one batch.

        Args:
            inputs: (B, 3, H, W), preprocessed and mixed.
            data_samples: B samples with a label, or with scores (C,) where images were mixed.

        Returns:
            ``loss_gt`` and ``loss_distill``, each with its weight of one half; ``loss_nkd`` where that is chosen.
        """
        label = labels_of('G2SDClassifier', data_samples)
        teacher = self.teacher(inputs)['logits']  # (B, C), no gradient
        if self.distill_loss is not None:
            return {'loss_nkd': self.distill_loss(self.student(inputs, mode='tensor'), teacher, label)}
        logits, token_logits = map(_full_precision, self.student.model.forward_heads(inputs))
        if label.is_floating_point():
            label = label.to(logits.dtype)
        return {
            'loss_gt': 0.5 * F.cross_entropy(logits, label, label_smoothing=self.label_smoothing),
            'loss_distill': 0.5 * F.cross_entropy(token_logits, teacher.argmax(1)),
        }

    def _check_student(self) -> None:
        network: Any = getattr(self.student, 'model', None)
        has_token = isinstance(network, DistTokenViT)
        if self.distill_loss is None and not has_token:
            raise UserError(
                'G2SDClassifier: the student has no distillation token. Take model_name="vit_small_patch16_224_'
                'dist_token" (tiny, small, base), or distill_loss=dict(type="vfd.NKDLoss"), which needs no token.'
            )
        if self.distill_loss is not None and has_token:
            raise UserError(
                'G2SDClassifier: with distill_loss nothing would train the distillation token. Take the network '
                'without it: leave "_dist_token" out of model_name.'
            )

    def _check_teacher(self) -> None:
        check_same_classes('G2SDClassifier', self.student, self.teacher)
        if isinstance(self.teacher, StoredTeacher):
            raise UserError(
                'G2SDClassifier: a stored teacher knows whole images and not the mixed crops of training: use '
                'vfd.Teacher.'
            )


class DistTokenViT(VisionTransformer):
    """timm's vision transformer with a distillation token behind all others, and a head of its own for it.

    The token has no position, so the position table is that of pre-training. (In timm's DeiT and mmpretrain's
    ``DistilledVisionTransformer`` the token comes second and has one.) Attention does not know the order of tokens:
    this network is DeiT's with a position of zero for the token, see :meth:`timm_form`.

    Args:
        global_pool: must be ``token``: pooled patches would leave both tokens unread.
        kwargs: ``VisionTransformer``'s.

    Raises:
        UserError: another ``global_pool``.
    """

    def __init__(self, global_pool: str = 'token', **kwargs: Any) -> None:
        if global_pool != 'token':
            raise UserError(
                f'global_pool="{global_pool}" does not go with a distillation token, whose network reads both tokens: '
                'use global_pool="token", or a network without "_dist_token" in its name.'
            )
        super().__init__(global_pool='token', **kwargs)
        self.dist_token = nn.Parameter(torch.empty(1, 1, self.embed_dim))
        self.head_dist = nn.Linear(self.embed_dim, self.num_classes)
        trunc_normal_(self.dist_token, std=0.02)
        trunc_normal_(self.head_dist.weight, std=0.02)
        nn.init.zeros_(self.head_dist.bias)

    def forward_heads(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Both heads apart: logits of the class token and of the distillation token, (B, C) each."""
        return self._heads(self.forward_features(images))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The mean of both heads' logits (B, C), or of what they read (B, D), from tokens (B, 2 + L, D)."""
        if pre_logits:
            return self.head_drop(x[:, [0, -1]]).mean(1)
        logits, token_logits = self._heads(x)
        return (logits + token_logits) / 2

    def timm_form(self) -> tuple[str, dict[str, Tensor]]:
        """The name of an equal network of timm alone (DeiT with token), and the tensors that make it equal."""
        state = self.state_dict()
        cls, patches = state['pos_embed'].split([1, state['pos_embed'].shape[1] - 1], dim=1)
        state['pos_embed'] = torch.cat([cls, torch.zeros_like(cls), patches], dim=1)
        architecture = cast(dict[str, Any], self.pretrained_cfg)['architecture']
        return _DEIT[architecture], state

    def _heads(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        return self.head(self.head_drop(tokens[:, 0])), self.head_dist(self.head_drop(tokens[:, -1]))

    def _pos_embed(self, x: Tensor) -> Tensor:
        """Add positions, then put the class token before and the distillation token behind: (B, 2 + L, D)."""
        tokens = super()._pos_embed(x)
        return torch.cat([tokens, self.pos_drop(self.dist_token.expand(len(tokens), -1, -1))], dim=1)


_DEIT = {
    f'vit_{size}_patch16_224_dist_token': f'deit_{size}_distilled_patch16_224'
    for size in ('tiny', 'small', 'base')
}
default_cfgs = generate_default_cfgs(
    {
        name: {
            'num_classes': 1000,
            'input_size': (3, 224, 224),
            'fixed_input_size': True,
            'interpolation': 'bicubic',
            'mean': IMAGENET_DEFAULT_MEAN,
            'std': IMAGENET_DEFAULT_STD,
            'first_conv': 'patch_embed.proj',
            'classifier': ('head', 'head_dist'),
        }
        for name in _DEIT
    }
)


@register_model
def vit_tiny_patch16_224_dist_token(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ViT-Ti/16 with a distillation token at the end: 192 wide, 3 heads (G2SD also ran 12: ``num_heads=12``)."""
    arch = dict(embed_dim=192, depth=12, num_heads=3)
    return _dist_token_vit('vit_tiny_patch16_224_dist_token', pretrained, **{**arch, **kwargs})


@register_model
def vit_small_patch16_224_dist_token(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ViT-S/16 with a distillation token at the end: 384 wide, 6 heads."""
    arch = dict(embed_dim=384, depth=12, num_heads=6)
    return _dist_token_vit('vit_small_patch16_224_dist_token', pretrained, **{**arch, **kwargs})


@register_model
def vit_base_patch16_224_dist_token(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ViT-B/16 with a distillation token at the end: 768 wide, 12 heads."""
    arch = dict(embed_dim=768, depth=12, num_heads=12)
    return _dist_token_vit('vit_base_patch16_224_dist_token', pretrained, **{**arch, **kwargs})


def _dist_token_vit(name: str, pretrained: bool, **kwargs: Any) -> nn.Module:
    return build_model_with_cfg(DistTokenViT, name, pretrained, **kwargs)


def _full_precision(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
