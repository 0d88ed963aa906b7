"""The masked ViT and the masked autoencoder: shapes, shortcuts that equal the whole, files, mistakes."""

from __future__ import annotations

import pytest
import timm
import torch

from vfd.backbones import MaskedAutoencoder, MaskedViT, check_mask_ratio, keep_count, make_mask
from vfd.backbones.partial_block import block_at
from vfd.errors import UserError

TINY = {'img_size': 16, 'patch_size': 4, 'embed_dim': 24, 'depth': 3, 'num_heads': 3}
DECODER = {'decoder_embed_dim': 16, 'decoder_depth': 2, 'decoder_num_heads': 2}


@pytest.fixture
def network() -> MaskedAutoencoder:
    torch.manual_seed(0)
    return MaskedAutoencoder(**TINY, **DECODER).double()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)).double()


@pytest.fixture
def mask():
    return make_mask(torch.rand(2, 16, generator=torch.Generator().manual_seed(2)), 0.75)


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


# ------------------------------------------------------------------------------------------- values


def test_shapes(network, images, mask):
    latent, taps = network.forward_tokens(images, mask.ids_keep, (0, 2))
    assert latent.shape == (2, 5, 24) and {k: tuple(v.shape) for k, v in taps.items()} == {
        0: (2, 5, 24),
        2: (2, 5, 24),
    }
    assert network.decode(latent, mask.ids_keep).shape == (2, 17, 16)
    assert network.reconstruct(images, mask).shape == (2, 16, 48)
    assert network(images).shape == (2, 17, 24)


def test_hidden_patches_alone_are_those_of_the_whole_decoder(network, images, mask):
    latent, _ = network.forward_tokens(images, mask.ids_keep)
    alone = network.pixels(network.decode_masked(latent, mask))
    whole = network.reconstruct(images, mask)
    close(alone, whole.gather(1, mask.ids_masked[:, :, None].expand(-1, -1, 48)))


def test_visible_patches_are_embedded_as_all_of_them(network, images, mask):
    close(
        network.embed(images, mask.ids_keep),
        network.embed(images).gather(1, mask.ids_keep[:, :, None].expand(-1, -1, 24)),
    )


def test_hidden_patches_do_not_reach_the_prediction(network, images, mask):
    changed = images.clone()
    row, column = divmod(int(mask.ids_masked[0, 0]), 4)
    changed[0, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 5
    close(network.reconstruct(changed, mask), network.reconstruct(images, mask))


def test_encoder_is_timms(network, images):
    vit = timm.create_model(
        'vit_tiny_patch16_224', num_classes=0, **{key: TINY[key] for key in TINY}
    ).double()
    vit.load_state_dict(
        {name: value for name, value in network.state_dict().items() if name in vit.state_dict()}
    )
    close(network(images), vit.forward_features(images))


@pytest.mark.parametrize('index', [[[0], [0]], [[3, 1], [4, 0]], [[0, 1, 2, 3, 4]] * 2])
def test_part_of_a_block(network, index):
    tokens, index = torch.randn(2, 5, 24).double(), torch.tensor(index)
    block = network.blocks[0]
    close(block_at(block, tokens, index), block(tokens).gather(1, index[:, :, None].expand(-1, -1, 24)))


def test_part_of_a_block_has_the_whole_blocks_gradients(network):
    tokens = torch.randn(2, 5, 24).double().requires_grad_()
    first = torch.zeros(2, 1, dtype=torch.long)
    block = network.blocks[0]
    parameters = [tokens, *block.parameters()]
    ours = torch.autograd.grad(block_at(block, tokens, first).square().sum(), parameters)
    theirs = torch.autograd.grad(block(tokens)[:, :1].square().sum(), parameters)
    for one, other in zip(ours, theirs, strict=True):
        close(one, other)


def test_blocks_behind_the_last_tap_do_not_run(network, images):
    runs = []
    for k, block in enumerate(network.blocks):
        block.register_forward_hook(lambda module, args, output, k=k: runs.append(k))
    network.forward_blocks(images, None, [1])
    assert runs == [0, 1]


def test_drop_path_rises_and_only_in_training(images):
    vit = MaskedViT(**TINY, drop_path_rate=0.2).double()
    rates = [getattr(block.drop_path1, 'drop_prob', 0.0) for block in vit.blocks]
    assert rates == pytest.approx([0, 0.1, 0.2])
    vit.eval()
    assert torch.equal(vit(images), vit(images))


def test_position_tables_are_frozen_and_rectangles_work():
    vit = MaskedViT(**{**TINY, 'img_size': (8, 16)})
    assert vit.grid == (2, 4) and vit(torch.zeros(1, 3, 8, 16)).shape == (1, 9, 24)
    assert not vit.pos_embed.requires_grad


# ------------------------------------------------------------------------------------------- files


def test_file_with_decoder(network, tmp_path):
    torch.save({'model': network.state_dict()}, tmp_path / 'full.pth')
    same = MaskedAutoencoder(**TINY, **DECODER, checkpoint=str(tmp_path / 'full.pth'))
    theirs = network.float().state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in same.state_dict().items())


def test_file_of_the_encoder_alone(network, tmp_path):
    encoder = {
        name: value
        for name, value in network.state_dict().items()
        if 'decoder' not in name and name != 'mask_token'
    }
    torch.save(encoder, tmp_path / 'encoder.pth')
    MaskedViT(**TINY, checkpoint=str(tmp_path / 'encoder.pth'))
    with pytest.raises(UserError, match='decoder'):
        MaskedAutoencoder(**TINY, **DECODER, checkpoint=str(tmp_path / 'encoder.pth'))


def test_positions_of_another_grid(network, tmp_path):
    torch.save(network.state_dict(), tmp_path / 'full.pth')
    larger = {**TINY, 'img_size': 24, 'checkpoint': str(tmp_path / 'full.pth')}
    with pytest.raises(UserError, match='resize_pos_embed'):
        MaskedViT(**larger)
    vit = MaskedViT(**larger, resize_pos_embed=True)
    assert torch.equal(vit.pos_embed[:, 0], network.pos_embed[:, 0].float())


# ------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ('settings', 'text'),
    [
        ({'arch': 'bsae'}, 'did you mean "base"'),
        ({'arch': None, 'embed_dim': None}, 'give arch='),
        ({'img_size': 18}, 'not divisible by patch_size 4'),
        ({'num_heads': 5}, 'not divisible by num_heads'),
        ({'embed_dim': 27, 'num_heads': 3}, 'divisible by 4'),
        ({'decoder_num_heads': 3}, 'decoder_num_heads'),
    ],
)
def test_numbers_that_do_not_fit(settings, text):
    with pytest.raises(UserError, match=text):
        MaskedAutoencoder(**{**TINY, **DECODER, **settings})


def test_images_and_blocks_that_are_not_there(network, mask):
    with pytest.raises(UserError, match='built for 16x16'):
        network.embed(torch.zeros(2, 3, 20, 20), mask.ids_keep)
    assert network.tap_index(-1) == 2
    with pytest.raises(UserError, match='0 to 2'):
        network.tap_index(3)


@pytest.mark.parametrize(('patches', 'ratio', 'kept'), [(196, 0.75, 49), (100, 0.9, 9), (10, 0.9, 0)])
def test_visible_patches_are_the_float_product_cut_off(patches, ratio, kept):
    assert keep_count(patches, ratio) == kept


@pytest.mark.parametrize(
    ('ratio', 'text'), [(0.97, 'leaves none'), (0.0, 'hides none'), (1.0, 'from 0'), (-0.1, 'from 0')]
)
def test_mask_ratios_that_cannot_work(ratio, text):
    with pytest.raises(UserError, match=text):
        check_mask_ratio(16, ratio)
