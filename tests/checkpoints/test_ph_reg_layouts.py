"""Hugging Face's DINOv2 and the released PH-Reg files: read, written, damaged."""

from __future__ import annotations

import pytest
import timm
import torch

from vfd.backbones import RegisterCLIP, RegisterViT
from vfd.checkpoints import load_state
from vfd.checkpoints.dinov2_layout import from_hugging_face_dinov2, to_hugging_face_dinov2
from vfd.checkpoints.ph_reg_layouts import to_ph_reg_clip, to_ph_reg_dinov2
from vfd.errors import UserError


def vit(seed: int = 0, **options) -> RegisterViT:
    torch.manual_seed(seed)
    settings = dict(
        num_registers=3, img_size=28, patch_size=7, embed_dim=24, depth=2, num_heads=2, init_values=1.0
    )
    network = RegisterViT('vit_small_patch14_dinov2', **{**settings, **options})
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter))
    return network


def clip(seed: int = 0, **options) -> RegisterCLIP:
    torch.manual_seed(seed)
    numbers = dict(layers=2, width=24, head_width=12, patch_size=7, image_size=28)
    return RegisterCLIP('ViT-B-16-quickgelu', 3, embed_dim=10, vision_cfg=numbers, **options)


def same(ours, theirs) -> bool:
    return all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())


@pytest.mark.parametrize('prefix', ['', 'dinov2.'])
def test_hugging_faces_file(prefix, tmp_path):
    """Values are compared with those of the library in the golden tests; here, the whole way from a file."""
    network = vit(num_registers=0)
    state = to_hugging_face_dinov2({**network.state_dict(), 'mask_token': torch.zeros(1, 24)})
    state = {prefix + name: value for name, value in state.items()}
    if prefix:
        state['classifier.weight'] = torch.zeros(5, 48)
    torch.save(state, tmp_path / 'hf.pth')
    file = load_state(tmp_path / 'hf.pth')
    assert file.layout == 'hf-dinov2'
    loaded = vit(1, num_registers=0)
    assert loaded.load_weights(file).unused == ['mask_token', *(['classifier.weight'] if prefix else [])]
    assert same(network, loaded)


def test_dinov2_with_registers_of_its_own_is_left_alone(tmp_path):
    state = to_hugging_face_dinov2(vit(num_registers=0).state_dict())
    state['embeddings.register_tokens'] = torch.zeros(1, 4, 24)
    torch.save(state, tmp_path / 'hf.pth')
    assert load_state(tmp_path / 'hf.pth').layout == 'plain'


def test_names_go_there_and_back():
    state = {name: value for name, value in vit().state_dict().items() if name != 'reg_token'}
    there = to_hugging_face_dinov2(state)
    assert 'encoder.layer.1.attention.attention.key.bias' in there and 'encoder.layer.0.norm1.weight' in there
    back = from_hugging_face_dinov2(there)
    assert set(back) == set(state) and all(torch.equal(back[name], state[name]) for name in state)


def test_a_swiglu_file_gets_timms_names():
    names = ['mlp.weights_in.weight', 'mlp.weights_out.bias']
    renamed = from_hugging_face_dinov2({f'encoder.layer.0.{name}': torch.zeros(1) for name in names})
    assert set(renamed) == {'blocks.0.mlp.fc1.weight', 'blocks.0.mlp.fc2.bias'}


def test_a_file_without_the_keys_says_what_is_missing(tmp_path):
    state = to_hugging_face_dinov2({k: v for k, v in vit().state_dict().items() if k != 'reg_token'})
    del state['encoder.layer.1.attention.attention.key.weight']
    torch.save(state, tmp_path / 'short.pth')
    with pytest.raises(UserError, match=r'blocks\.1\.attn\.qkv\.weight'):
        vit(1).load(tmp_path / 'short.pth')


def test_the_released_dinov2_file(tmp_path):
    network = vit()
    state = to_ph_reg_dinov2(network.state_dict())
    assert {
        'registers',
        'model.embeddings.mask_token',
        'embed.cls_token',
        'encoder.layer.0.mlp.fc1.bias',
    } <= set(state)
    torch.save(state, tmp_path / 'student.pth')
    file = load_state(tmp_path / 'student.pth')
    assert file.layout == 'ph-reg-dinov2'
    loaded = vit(1)
    loaded.load(tmp_path / 'student.pth')
    assert same(network, loaded)
    again = to_ph_reg_dinov2(loaded.state_dict())
    assert set(again) == set(state) and all(torch.equal(again[name], state[name]) for name in state)


@torch.no_grad()
def test_a_released_file_leaves_for_timm(tmp_path):
    network = vit().eval()
    torch.save(to_ph_reg_dinov2(network.state_dict()), tmp_path / 'student.pth')
    loaded = vit(1).eval()
    loaded.load(tmp_path / 'student.pth')
    name, arguments, tensors = loaded.timm_form()
    model = timm.create_model(name, **arguments).eval()
    model.load_state_dict(tensors)
    images = torch.randn(2, 3, 28, 28)
    torch.testing.assert_close(model(images), network.tokens(images))


def test_second_copies_that_differ_are_refused(tmp_path):
    state = to_ph_reg_dinov2(vit().state_dict())
    state['layernorm.bias'] = state['layernorm.bias'] + 1
    torch.save(state, tmp_path / 'edited.pth')
    with pytest.raises(UserError, match=r'model\.layernorm\.bias and layernorm\.bias'):
        load_state(tmp_path / 'edited.pth')


def test_the_released_file_of_what_was_trained(tmp_path):
    """It fits the transformer it was trained from, and is refused where it would leave the rest random."""
    network, base = vit(), vit(1, unlock_last_blocks=1)
    base.load_weights({name: value for name, value in base.state_dict().items() if name != 'reg_token'})
    assert base.unloaded == ['reg_token']
    whole = to_ph_reg_dinov2(network.state_dict())
    trained = ('registers', 'model.embeddings.position', 'model.embeddings.patch', 'model.encoder.layer.1.')
    part = {name: value for name, value in whole.items() if name.startswith(trained)}
    optimizer = {'state': {0: {'exp_avg': torch.zeros(3)}}, 'param_groups': [{'lr': 1e-4}]}
    torch.save({'trainable_state_dict': part, 'optimizer_state_dict': optimizer}, tmp_path / 'part.pth')
    frozen = {name: p.clone() for name, p in base.named_parameters() if not p.requires_grad}
    base.load(tmp_path / 'part.pth')
    for name, parameter in base.named_parameters():
        expected = network.state_dict()[name] if parameter.requires_grad else frozen[name]
        assert torch.equal(parameter, expected), name
    assert base.unloaded == []
    with pytest.raises(UserError, match='only what was trained'):
        vit(2).load(tmp_path / 'part.pth')
    with pytest.raises(
        UserError, match='only what was trained, not cls_token'
    ):  # also of a network that is frozen
        vit(2, frozen=True).load(tmp_path / 'part.pth')


@pytest.mark.parametrize('tower', ['vit.', 'original_image_encoder.'])
@pytest.mark.parametrize('leading_axis', [False, True])
def test_the_released_clip_files(tower, leading_axis, tmp_path):
    network = clip(img_size=42)
    state = {
        name.replace('vit.', tower): value for name, value in to_ph_reg_clip(network.state_dict()).items()
    }
    table = f'{tower}positional_embedding'
    assert state[table].shape == (37, 24)
    if leading_axis:
        state[table] = state[table][None]
    torch.save({'state_dict': state}, tmp_path / 'student.pth')
    assert load_state(tmp_path / 'student.pth').layout == 'ph-reg-clip'
    loaded = clip(1, img_size=42)
    loaded.load(tmp_path / 'student.pth')
    assert same(network, loaded)


def test_what_vfd_writes_is_read_back(tmp_path):
    for network, fresh in ((vit(), vit(1)), (clip(), clip(1))):
        state = {f'student.{name}': value for name, value in network.state_dict().items()}
        torch.save({'state_dict': state, 'meta': {}}, tmp_path / 'epoch_1.pth')
        fresh.load(tmp_path / 'epoch_1.pth')
        assert same(network, fresh)
