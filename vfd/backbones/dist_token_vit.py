"""Vision transformers with a distillation token behind all others, as G2SD fine-tunes them (arXiv 2302.14771)."""

from __future__ import annotations

from typing import Any, cast

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import trunc_normal_
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vfd.errors import UserError


class DistTokenViT(VisionTransformer):
    """timm's vision transformer with a distillation token behind all others, and a head of its own for it.

    The token has no position, so the position table is that of pre-training. (In timm's DeiT and mmpretrain's
    ``DistilledVisionTransformer`` the token comes second and has one.) Attention ignores the order of tokens:
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
        """Return the logits of the class token and of the distillation token, (B, C) each."""
        return self._heads(self.forward_features(images))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return the mean of both heads' logits (B, C), or of their inputs (B, D), from tokens (B, 2 + L, D)."""
        if pre_logits:
            return self.head_drop(x[:, [0, -1]]).mean(1)
        logits, token_logits = self._heads(x)
        return (logits + token_logits) / 2

    def timm_form(self) -> tuple[str, dict[str, Tensor]]:
        """Return the name of an equal network of timm alone (DeiT with token), and the tensors that make it equal."""
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
    """Build ViT-Ti/16 with a distillation token at the end: 192 wide, 3 heads (G2SD also ran 12: ``num_heads=12``)."""
    arch = dict(embed_dim=192, depth=12, num_heads=3)
    return _dist_token_vit('vit_tiny_patch16_224_dist_token', pretrained, **{**arch, **kwargs})


@register_model
def vit_small_patch16_224_dist_token(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Build ViT-S/16 with a distillation token at the end: 384 wide, 6 heads."""
    arch = dict(embed_dim=384, depth=12, num_heads=6)
    return _dist_token_vit('vit_small_patch16_224_dist_token', pretrained, **{**arch, **kwargs})


@register_model
def vit_base_patch16_224_dist_token(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Build ViT-B/16 with a distillation token at the end: 768 wide, 12 heads."""
    arch = dict(embed_dim=768, depth=12, num_heads=12)
    return _dist_token_vit('vit_base_patch16_224_dist_token', pretrained, **{**arch, **kwargs})


def _dist_token_vit(name: str, pretrained: bool, **kwargs: Any) -> nn.Module:
    return build_model_with_cfg(DistTokenViT, name, pretrained, **kwargs)
