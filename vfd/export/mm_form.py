"""Vision transformers as mmpretrain builds them: its classes, its names, the same numbers."""

from __future__ import annotations

import re
from typing import Any, cast

from timm.models.beit import Beit
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import Tensor, nn

from vfd.backbones import RegisterBackbone
from vfd.checkpoints import load_into
from vfd.errors import UserError
from vfd.export.forms import MMSpec, TimmSpec
from vfd.export.student import LoadedStudent, OutputSpec
from vfd.export.timm_encoder import encoder_form
from vfd.registry import MODELS

# timm's names to mmpretrain's; the first pattern that fits counts.
_NAMES = (
    (r'^patch_embed\.proj\.', 'patch_embed.projection.'),
    (r'^blocks\.(\d+)\.norm([12])\.', r'layers.\1.ln\2.'),
    (r'^blocks\.(\d+)\.mlp\.fc1\.', r'layers.\1.ffn.layers.0.0.'),
    (r'^blocks\.(\d+)\.mlp\.fc2\.', r'layers.\1.ffn.layers.1.'),
    (r'^blocks\.', 'layers.'),
    (r'^norm\.', 'ln1.'),
    (r'^reg_token$', 'dist_token'),
)


def is_plain(student: LoadedStudent) -> bool:
    """Whether a backbone is a vision transformer of tokens, rather than one of maps or no transformer at all."""
    return isinstance(student.model, VisionTransformer)


def mm_form(student: LoadedStudent, maps: bool = False) -> MMSpec:
    """The backbone of a student in mmpretrain's classes.

    ``VisionTransformer``, ``DistilledVisionTransformer`` (class and distillation token), ``ViTSAM`` (windows and
    relative positions of ViTDet) and ``BEiTViT`` (absolute positions, and relative ones in every block). For registers
    mmpretrain has no class of its own, and builds timm's in ``TIMMBackbone``.

    Args:
        student: a backbone.
        maps: a plain transformer gives the patches as one map, instead of all tokens.

    Raises:
        UserError: none of these classes is this network.
    """
    form = encoder_form(student)
    network: Any = form.network
    output = form.output
    if isinstance(student.model, RegisterBackbone):
        state = {f'timm_model.{name}': value for name, value in network.state_dict().items()}
        kept = {'type': 'mmpretrain.TIMMBackbone', 'model_name': form.name, **form.args}
        return MMSpec(kept, state, output)
    config = _common(student, form)
    if isinstance(network, VisionTransformerSAM):
        config |= {'type': 'mmpretrain.ViTSAM', 'out_channels': 0, 'out_type': 'featmap'}
        windows = [cast(int, block.window_size) for block in network.blocks]
        config['arch']['global_attn_indexes'] = [k for k, window in enumerate(windows) if not window]
        config['window_size'] = max(windows)
    elif isinstance(network, Beit):
        config |= {'type': 'mmpretrain.BEiTViT', 'use_abs_pos_emb': True, 'final_norm': False}
        config |= {'layer_scale_init_value': 1.0, 'out_type': 'featmap', 'out_indices': list(form.taps)}
    else:
        kind = 'DistilledVisionTransformer' if network.reg_token is not None else 'VisionTransformer'
        config |= {'type': f'mmpretrain.{kind}', 'out_type': 'featmap' if maps else 'raw'}
        config['final_norm'] = isinstance(network.norm, nn.LayerNorm)
        output = patch_map(form) if maps else output
    module = MODELS.build(dict(config))
    ends = ('neck.', 'norm.') if form.taps else ()  # maps are read before timm's last norm
    state = {_renamed(k): v for k, v in network.state_dict().items() if not k.startswith(ends)}
    try:
        report = load_into(module, state, needed=lambda name: not name.endswith('relative_position_index'))
    except UserError as error:
        raise UserError(f'{config["type"]} is another network than the student: {error}') from None
    if report.unused:
        raise UserError(f'{config["type"]} has no place for {", ".join(report.unused[:4])} of the student')
    return MMSpec(config, module.state_dict(), output)


def patch_map(form: TimmSpec) -> OutputSpec:
    """The patches of a plain transformer as one map (B, D, h, w), from the tokens that the live student gives."""
    vit = cast(VisionTransformer, form.network)
    prefix, grid = vit.num_prefix_tokens, tuple(vit.patch_embed.grid_size)

    def live(images: Tensor) -> Tensor:
        tokens = cast(Tensor, form.output.ask(images))
        return tokens[:, prefix:].transpose(1, 2).unflatten(2, grid)

    end = 'the final norm' if isinstance(vit.norm, nn.LayerNorm) else 'the last block'
    return OutputSpec(live, f'map (B, D, h, w) of the patches after {end}')


def _common(student: LoadedStudent, form: TimmSpec) -> dict[str, Any]:
    """What all four classes are told in the same way."""
    network: Any = form.network
    block = network.blocks[0]
    arch = {
        'embed_dims': network.embed_dim,
        'num_layers': len(network.blocks),
        'num_heads': block.attn.num_heads,
        'feedforward_channels': block.mlp.fc1.out_features,
    }
    eps = next(part.eps for part in student.model.modules() if isinstance(part, nn.LayerNorm))
    return {
        'arch': arch,
        'img_size': tuple(network.patch_embed.img_size),
        'patch_size': network.patch_embed.patch_size[0],
        'norm_cfg': {'type': 'LN', 'eps': eps},  # timm has no argument for it, mmpretrain has
    }


def _renamed(name: str) -> str:
    for pattern, replacement in _NAMES:
        name, found = re.subn(pattern, replacement, name)
        if found:
            break
    return name
