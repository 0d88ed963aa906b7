"""Transformers with added registers: tokens, positions, files, and their life as backbones."""

from __future__ import annotations

import copy
from typing import Any

import open_clip
import pytest
import timm
import torch
import torch.nn.functional as F

from vfd.backbones.registers import resample_positions
from vfd.errors import UserError
from vfd.registry import MODELS

P, SIDE = 7, 28  # 4 x 4 patches
VIT = dict(
    type='vfd.RegisterViT', model_name='vit_small_patch14_dinov2', num_registers=3,
    img_size=SIDE, patch_size=P, embed_dim=24, depth=3, num_heads=2, init_values=1.0,
)  # fmt: skip
CLIP = dict(
    type='vfd.RegisterCLIP', model_name='ViT-B-16-quickgelu', embed_dim=10, num_registers=3,
    vision_cfg=dict(layers=3, width=24, head_width=12, patch_size=P, image_size=SIDE),
)  # fmt: skip
CONFIGS = {'vit': VIT, 'clip': CLIP, 'naclip': {**CLIP, 'head': 'naclip'}}
EACH = pytest.mark.parametrize('kind', CONFIGS)


def build(kind: str, seed: int = 0, **options) -> Any:
    torch.manual_seed(seed)
    network = MODELS.build(copy.deepcopy({**CONFIGS[kind], **options})).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return network


def images(count: int = 2, height: int = SIDE, width: int = SIDE) -> torch.Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


# ----------------------------------------------------------------------------------------------------------- tokens


@EACH
@torch.no_grad()
def test_the_order_of_tokens_does_not_matter(kind):
    network = build(kind).double()
    expected = network.dense(images().double())
    registers = network.reg_token if kind == 'vit' else network.register_tokens
    registers.copy_(registers.flip(-2))
    torch.testing.assert_close(network.dense(images().double()), expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_the_place_of_class_token_and_registers_does_not_matter():
    network = build('vit').double()
    patches = network.embed(images().double()).flatten(1, 2)
    tokens = network.sequence(patches, (4, 4))
    moved = torch.cat([tokens[:, 1:4], tokens[:, :1], tokens[:, 4:]], dim=1)  # the released order
    ours = network.norm(network.blocks(moved))[:, 4:]
    torch.testing.assert_close(ours, network.dense(images().double()), rtol=0, atol=1e-12)


@EACH
@torch.no_grad()
def test_registers_change_the_patches(kind):
    network = build(kind)
    before = network.dense(images())
    registers = network.reg_token if kind == 'vit' else network.register_tokens
    registers.copy_(registers.roll(1, dims=-1))
    assert (network.dense(images()) - before).abs().max() > 1e-3


@torch.no_grad()
def test_without_registers_a_vit_is_timms():
    arguments = {k: v for k, v in VIT.items() if k not in ('type', 'model_name', 'num_registers')}
    network = build('vit', num_registers=0)
    vit = timm.create_model(VIT['model_name'], num_classes=0, global_pool='', **arguments).eval()
    vit.load_state_dict(network.state_dict())
    torch.testing.assert_close(network.tokens(images()), vit(images()))


@pytest.mark.parametrize('name', ['ViT-B-16-quickgelu', 'ViT-B-16'])
@torch.no_grad()
def test_without_registers_the_whole_last_block_is_open_clips(name):
    network = build('clip', num_registers=0, head='vanilla', model_name=name)
    activation = open_clip.transformer.QuickGELU if 'quick' in name else torch.nn.GELU
    tower = open_clip.transformer.VisionTransformer(
        SIDE, P, 24, 3, 2, 4.0, output_dim=10, output_tokens=True, act_layer=activation
    ).eval()
    tower.load_state_dict(network.state_dict())
    pooled, _ = tower(images())
    torch.testing.assert_close(network.tokens(images())[:, 0], pooled)


@torch.no_grad()
def test_the_two_activations_differ():
    quick, exact = build('clip'), build('clip', quick_gelu=False)
    assert (quick.dense(images()) - exact.dense(images())).abs().max() > 1e-4


@pytest.mark.parametrize('head', ['naclip', 'kk', 'csa', 'vanilla'])
@torch.no_grad()
def test_heads_against_attention_written_out(head):
    network = build('clip', head=head).double()
    patches = network.embed(images().double()).flatten(1, 2)
    tokens = network.sequence(patches, (4, 4))
    *blocks, last = network.transformer.resblocks
    for block in blocks:
        tokens = block(tokens)
    normed = last.ln_1(tokens)
    projected = normed @ last.attn.in_proj_weight.T + last.attn.in_proj_bias
    q, k, v = (part.unflatten(2, (2, 12)).transpose(1, 2) for part in projected.chunk(3, dim=-1))
    scale = 12**-0.5

    def attend(a, b):
        return (a @ b.transpose(-1, -2) * scale).softmax(dim=-1)

    bonus = torch.zeros(20, 20, dtype=torch.float64)
    for i in range(16):
        for j in range(16):
            squared = (i // 4 - j // 4) ** 2 + (i % 4 - j % 4) ** 2
            bonus[1 + i, 1 + j] = torch.exp(torch.tensor(-squared / 50.0))
    near = (k @ k.transpose(-1, -2) * scale + bonus).softmax(dim=-1)
    weights = {
        'naclip': near, 'kk': attend(k, k), 'csa': attend(q, q) + attend(k, k), 'vanilla': attend(q, k)
    }[head]  # fmt: skip
    mixed = last.attn.out_proj((weights @ v).transpose(1, 2).flatten(2))
    if head in ('csa', 'vanilla'):
        mixed = tokens + mixed
        mixed = mixed + last.mlp(last.ln_2(mixed))
    expected = network.ln_post(mixed) @ network.proj
    torch.testing.assert_close(network.tokens(images().double()), expected, rtol=0, atol=1e-7)


# ---------------------------------------------------------------------------------------------------------- positions


def cubic(distance: torch.Tensor, a: float = -0.75) -> torch.Tensor:
    """torch's bicubic kernel."""
    d = distance.abs()
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return torch.where(d <= 1, near, torch.where(d < 2, far, 0.0))


def interpolated(line: torch.Tensor, count: int, scale: float) -> torch.Tensor:
    """One axis, from the formula: output i samples at (i + 0.5) / scale - 0.5, edges repeated."""
    result = []
    for i in range(count):
        at = (i + 0.5) / scale - 0.5
        base = int(torch.tensor(at).floor())
        taps = [min(max(base + k, 0), len(line) - 1) for k in range(-1, 3)]
        weights = cubic(torch.tensor([at - (base + k) for k in range(-1, 3)], dtype=torch.float64))
        result.append((line[taps] * weights).sum())
    return torch.stack(result)


@pytest.mark.parametrize(('rule', 'extra'), [('scale01', 0.1), ('size', 0.0)])
def test_rules_of_interpolation(rule, extra):
    line = torch.randn(5, dtype=torch.float64)
    table = line[:, None].expand(5, 4).reshape(20, 1)  # constant along the other axis
    ours = resample_positions(table, (5, 4), (8, 3), rule).view(8, 3)
    torch.testing.assert_close(ours[:, 1], interpolated(line, 8, (8 + extra) / 5))


def test_rules_differ_and_keep_the_same_grid():
    table = torch.randn(16, 5)
    found = [resample_positions(table, (4, 4), (3, 6), rule) for rule in ('scale01', 'size', 'timm')]
    assert all(found[i].shape == (18, 5) for i in range(3))
    assert all((found[i] - found[j]).abs().max() > 1e-4 for i, j in ((0, 1), (0, 2), (1, 2)))
    assert all(
        resample_positions(table, (4, 4), (4, 4), rule) is table for rule in ('scale01', 'size', 'timm')
    )


@EACH
@torch.no_grad()
def test_other_sizes(kind):
    (answer,) = build(kind)(images(1, 3 * P, 5 * P))
    assert answer.shape == (1, 24 if kind == 'vit' else 10, 3, 5)


@EACH
def test_sizes_that_do_not_divide_are_explained(kind):
    with pytest.raises(UserError, match=f'multiples of patch_size={P}.*to 28'):
        build(kind)(images(1, 3 * P, 4 * P + 1))


# -------------------------------------------------------------------------------------------------------------- files


@EACH
@torch.no_grad()
def test_a_plain_file_leaves_the_registers_as_drawn(kind, tmp_path):
    plain = build(kind, num_registers=0)
    torch.save({'state_dict': plain.state_dict()}, tmp_path / 'plain.pth')
    network = MODELS.build({**CONFIGS[kind], 'checkpoint': str(tmp_path / 'plain.pth')})
    registers = (network.reg_token if kind == 'vit' else network.register_tokens).clone()
    network.init_weights()
    for name, value in plain.state_dict().items():
        assert torch.equal(network.state_dict()[name], value)
    assert torch.equal(network.reg_token if kind == 'vit' else network.register_tokens, registers)


@EACH
def test_another_number_of_registers_is_refused(kind, tmp_path):
    torch.save(build(kind).state_dict(), tmp_path / 'three.pth')
    for count in (0, 4):
        with pytest.raises(
            UserError, match=r'has 3 registers, this Register\w+ ' + f'{count}: set num_registers=3'
        ):
            build(kind, num_registers=count).load(tmp_path / 'three.pth')


@EACH
def test_a_file_without_a_tensor_is_refused_and_nothing_is_loaded(kind, tmp_path):
    state = build(kind).state_dict()
    name = 'norm.weight' if kind == 'vit' else 'ln_post.weight'
    torch.save({k: v for k, v in state.items() if k != name}, tmp_path / 'short.pth')
    network = build(kind, seed=1)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(UserError, match=f'Missing 1 of .*: {name}'):
        network.load(tmp_path / 'short.pth')
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


@torch.no_grad()
def test_open_clips_whole_file_with_its_text_tower(tmp_path):
    tower = build('clip', num_registers=0)
    text = {
        'positional_embedding': torch.randn(77, 24),
        'ln_final.weight': torch.ones(24),
        'logit_scale': torch.ones(()),
    }
    state = text | {f'visual.{name}': value for name, value in tower.state_dict().items()}
    torch.save(state, tmp_path / 'clip.pth')
    network = build('clip', seed=1, img_size=6 * P)
    network.load(tmp_path / 'clip.pth')
    expected = resample_positions(tower.positional_embedding[1:], (4, 4), (6, 6), 'scale01')
    assert torch.equal(network.positional_embedding[1:], expected)
    assert torch.equal(network.positional_embedding[0], tower.positional_embedding[0])
    assert torch.equal(network.proj, tower.proj)
    # what is interpolated once equals what the tower interpolates at every use
    bare = build('clip', seed=1, num_registers=0, img_size=6 * P)
    bare.load(tmp_path / 'clip.pth')
    torch.testing.assert_close(bare.dense(images(1, 6 * P, 6 * P)), tower.dense(images(1, 6 * P, 6 * P)))


@torch.no_grad()
def test_a_vits_file_of_another_grid_is_interpolated_once(tmp_path):
    plain = build('vit', num_registers=0)
    torch.save(plain.state_dict(), tmp_path / 'vit.pth')
    larger = build('vit', seed=1, num_registers=0, img_size=6 * P)
    larger.load(tmp_path / 'vit.pth')
    assert larger.pos_embed.shape == (1, 37, 24)
    torch.testing.assert_close(larger.dense(images(1, 6 * P, 6 * P)), plain.dense(images(1, 6 * P, 6 * P)))


def test_of_a_distillers_file_the_student_is_taken(tmp_path):
    student, other = build('vit'), build('vit', seed=1)
    both = {
        f'{who}.{k}': v for who, n in (('a', other), ('student', student)) for k, v in n.state_dict().items()
    }
    torch.save(both, tmp_path / 'both.pth')
    network = build('vit', seed=2)
    network.load(tmp_path / 'both.pth')
    assert torch.equal(network.reg_token, student.reg_token)
    torch.save({k.replace('student', 'b'): v for k, v in both.items()}, tmp_path / 'two.pth')
    with pytest.raises(UserError, match=r'several networks: a\., b\.'):
        network.load(tmp_path / 'two.pth')


# ------------------------------------------------------------------------------------------------------------- export


@torch.no_grad()
def test_timms_form_folds_the_class_tokens_position():
    network = build('vit')
    name, arguments, state = network.timm_form()
    vit = timm.create_model(name, **arguments).eval()
    vit.load_state_dict(state)
    assert vit.reg_token.shape == (1, 3, 24) and vit.pos_embed.shape == (1, 16, 24)
    torch.testing.assert_close(vit(images()), network.tokens(images()))
    assert network.pos_embed.shape == (1, 17, 24)  # nothing was folded here


# ------------------------------------------------------------------------------------------------------------ backbone


@EACH
def test_a_segmentors_backbone(kind):
    width = 24 if kind == 'vit' else 10
    model = MODELS.build(
        dict(
            type='mmseg.EncoderDecoder',
            backbone={**CONFIGS[kind], 'frozen': True},
            decode_head=dict(
                type='mmseg.FCNHead', in_channels=width, channels=width, in_index=0, num_convs=0,
                concat_input=False, num_classes=3, norm_cfg=dict(type='BN'),
            ),
            data_preprocessor=dict(type='mmseg.SegDataPreProcessor'),
        )
    )  # fmt: skip
    assert model(images(), mode='tensor').shape == (2, 3, 4, 4)
    assert not any(p.requires_grad for p in model.backbone.parameters())


def test_drop_path_only_in_training():
    network = build('vit', drop_path_rate=0.5)
    assert torch.equal(network.dense(images()), network.dense(images()))
    network.train()
    assert not torch.equal(network.dense(images()), network.dense(images()))


@EACH
def test_gradients_reach_what_is_unlocked(kind):
    network = build(kind, unlock_last_blocks=1)
    F.mse_loss(network.dense(images()), torch.zeros(())).backward()
    assert all((p.grad is not None) == p.requires_grad for p in network.parameters())
