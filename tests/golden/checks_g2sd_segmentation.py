"""G2SD, segmentation: checks of the golden files."""

from __future__ import annotations

import json

import torch
from golden_tools import close, drawn, equal, floats

from vfd.backbones.beit_pyramid import BEiTPyramid
from vfd.checkpoints.beit_layout import backbone_tensors
from vfd.engine.layer_decay import layer_id
from vfd.losses.channel_wise import ChannelWiseLoss
from vfd.losses.qkv_relation import qkv_relation

# Arguments of the published network that ours has no choice about.
FIXED = {
    'qkv_bias': True,
    'use_abs_pos_emb': True,
    'use_rel_pos_bias': True,
}


def check_seg_losses(case) -> None:
    case['seed']
    tags = [key.removesuffix('_meta') for key in case if key.endswith('_meta')]
    assert tags
    for tag in tags:
        channels, teacher_channels, height, width, temperature, weight = case[f'{tag}_meta'].tolist()
        teacher = floats(case[f'{tag}_pred_t'])
        assert teacher.shape[1:] == (teacher_channels, height, width)
        aligned = f'{tag}_align_w' in case
        align = (int(channels), int(teacher_channels)) if aligned else None
        for mode in ('cwd', 'kl'):
            loss = ChannelWiseLoss(mode, temperature, weight, align).double()
            if loss.align is not None:
                loss.align.weight.data = floats(case[f'{tag}_align_w'])
                loss.align.bias.data = floats(case[f'{tag}_align_b'])
            student = floats(case[f'{tag}_pred_s']).requires_grad_()
            value = loss(student, teacher)
            value.backward()
            close(value, case[f'{tag}_{mode}_loss'], name=f'{tag} {mode}')
            close(student.grad, case[f'{tag}_{mode}_grad'], name=f'{tag} {mode} gradient')


def check_seg_backbone(case) -> None:
    cfg = json.loads(str(case['cfg']))
    for name, value in FIXED.items():
        assert cfg.pop(name) == value, name
    cfg.pop('init_values')  # the gammas are stored
    network = BEiTPyramid(**cfg, norm_cfg={'type': 'BN'}).double().eval()
    state = backbone_tensors(
        {name: torch.from_numpy(value) for name, value in case.under('w/').items()}, network
    )
    network.load_state_dict(state, strict=True)
    for block in network.blocks:
        equal(block.attn.relative_position_index, case['relative_position_index'])
    maps = network(floats(case['imgs']))
    assert {f'feat_{i}' for i in range(len(maps))} == {key for key in case if key.startswith('feat_')}
    for i, answer in enumerate(maps):
        close(answer, case[f'feat_{i}'], name=f'feat_{i}')


def check_seg_layer_ids(case) -> None:
    depth = int(case['num_layers']) - 2
    for names, ids in (('names', 'ids'), ('names_distill', 'ids_distill')):
        equal([layer_id(name, depth) for name in case[names].tolist()], case[ids])
    scale = [float(case['decay']) ** (depth + 1 - layer_id(name, depth)) for name in case['names'].tolist()]
    close(scale, case['scale'], 1e-15)  # another power function may differ in the last bit


def check_gd_relation_unused(case) -> None:
    seed = int(case['seed'])
    batch, tokens, width, teacher_width = case['shape'].tolist()
    student, teacher = (
        [[drawn(seed + start + 3 * i + j, batch, tokens, channels) for j in range(3)] for i in range(2)]
        for start, channels in ((60, width), (70, teacher_width))
    )
    close([float(qkv_relation(student, teacher, heads)) for heads in case['Ar'].tolist()], case['loss'])


CHECKS: dict = {
    'seg_losses': check_seg_losses,
    'seg_backbone': check_seg_backbone,
    'seg_layer_ids': check_seg_layer_ids,
    'gd_relation_unused': check_gd_relation_unused,
}
