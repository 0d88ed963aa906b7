"""Vision transformers without heads, as timm builds them."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import timm
import torch
from timm.models.beit import Beit
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import Tensor, nn

from vfd.backbones import RegisterViT
from vfd.checkpoints import load_into
from vfd.errors import UserError
from vfd.export.forms import TimmSpec, tapped
from vfd.export.student import LoadedStudent, OutputSpec, parts_of
from vfd.export.timm_classifier import OTHERS, classifier_form

TOKENS = 'tokens (B, 1+L, D) after the final norm, class token first, patches row by row'
REGISTER_MAP = 'one map (B, D, h, w) of the patches'
REGISTERS = 'tokens (B, 1+m+L, D) after the final norm: class token, registers, patches row by row'
DISTILLED = 'tokens (B, 2+L, D) after the final norm: class token, distillation token, patches row by row'


def encoder_form(student: LoadedStudent) -> TimmSpec:
    """The timm network of a backbone.

    Known: backbones with a ``timm_form`` of their own (`vfd.MaskedViT`, `vfd.ViTDet`, `vfd.BEiTPyramid`,
    `vfd.RegisterViT`), and the vision transformer of a timm classifier.

    Raises:
        UserError: the backbone is no timm network.
    """
    if student.timm is not None:
        return student.timm
    if not hasattr(student.model, 'timm_form'):
        raise UserError(
            f'the backbone {type(student.model).__name__} is no vision transformer of timm. {OTHERS}'
        )
    name, args, state = cast(Any, student.model).timm_form()
    network = timm.create_model(name, **args).eval()
    load_into(network, state, source_name='the student')
    form = TimmSpec(name, args, network, student.output)
    if isinstance(student.model, RegisterViT):
        height, width = args['img_size']
        at = f'for images of {height}x{width} pixels: the rule "{student.model.pos_interp}" for others stays behind'
        form.output = OutputSpec(student.model.tokens, f'{REGISTERS}; {at}')
    elif isinstance(network, VisionTransformerSAM):
        form.taps = (len(network.blocks) - 1,)
        form.output = OutputSpec(student, 'map (B, D, h, w) after the last block')
    elif isinstance(network, Beit):
        form.taps = tuple(cast(Any, student.model).out_indices)
        blocks = ', '.join(map(str, form.taps))
        form.output = OutputSpec(
            tapped(student.model, form.taps), f'maps (B, D, h, w) after blocks {blocks}, no pyramid'
        )
    return form


def classifier_backbone(student: LoadedStudent) -> LoadedStudent:
    """The vision transformer of a timm classifier, without what comes after its last norm.

    A distillation token stays, because the patches attend to it. timm's plain transformer has a place for it: the
    first register token, here without a position.
    """
    whole = classifier_form(student)
    network = cast(VisionTransformer, whole.network)
    name, args = whole.name, dict(whole.args)
    state = whole.network.state_dict()
    if distilled := isinstance(network, VisionTransformerDistilled):
        name, args = 'vit_base_patch16_224', _geometry(network) | {'reg_tokens': 1}
        state['reg_token'] = state.pop('dist_token')
    args.pop('fc_norm', None)
    args |= {'num_classes': 0, 'global_pool': ''}
    if not isinstance(network.norm, nn.LayerNorm):
        args['final_norm'] = False  # its norm comes after the pooling
    backbone: Any = timm.create_model(name, **args).eval()
    report = load_into(backbone, state, source_name='the student')
    trained = cast(VisionTransformer, student.model.model)
    meaning = DISTILLED if distilled else TOKENS
    if not isinstance(network.norm, nn.LayerNorm):
        meaning = meaning.replace('the final norm', 'the last block')

    token_is_last = distilled and not isinstance(
        trained, VisionTransformerDistilled
    )  # in timm it comes second

    def live(images: Tensor) -> Tensor:
        with torch.no_grad():
            tokens = trained.forward_features(images)
        return _second_from_last(tokens) if token_is_last else tokens

    form = TimmSpec(name, args, backbone, OutputSpec(live, meaning))
    return dataclasses.replace(
        student,
        model=backbone,
        config={'type': 'mmpretrain.TIMMBackbone', 'model_name': name, **args},
        part='backbone',
        meaning=meaning,
        image_size=backbone.patch_embed.img_size,
        dropped=student.dropped | parts_of({name: state[name] for name in report.unused}),
        timm=form,
    )


def _second_from_last(tokens: Tensor) -> Tensor:
    """The last token moves to the second place: (B, 2+L, D)."""
    return torch.cat([tokens[:, :1], tokens[:, -1:], tokens[:, 1:-1]], dim=1)


def _geometry(network: VisionTransformer) -> dict[str, Any]:
    """The numbers of a vision transformer, as arguments of ``timm.create_model``."""
    block: Any = network.blocks[0]
    return {
        'img_size': tuple(network.patch_embed.img_size),
        'patch_size': network.patch_embed.patch_size[0],
        'embed_dim': network.embed_dim,
        'depth': len(network.blocks),
        'num_heads': block.attn.num_heads,
        'mlp_ratio': block.mlp.fc1.out_features / network.embed_dim,
    }
