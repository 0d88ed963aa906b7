"""MAESource: what it answers, what it builds and runs, which files it takes."""

from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import save_file

from vfd.backbones import MaskedAutoencoder, make_mask
from vfd.checkpoints.pos_embed import bicubic_position_embedding
from vfd.errors import UserError
from vfd.teachers import Normalization, Teacher

NETWORK = dict(
    img_size=32, patch_size=8, embed_dim=24, depth=4, num_heads=2,
    decoder_embed_dim=16, decoder_depth=3, decoder_num_heads=2,
)  # fmt: skip
SOURCE = dict(type='vfd.MAESource', **NETWORK)
PATCHES = 16


@pytest.fixture(scope='module')
def network() -> MaskedAutoencoder:
    torch.manual_seed(0)
    return MaskedAutoencoder(**NETWORK).eval()


@pytest.fixture(scope='module')
def files(network, tmp_path_factory) -> dict[str, str]:
    """The three kinds of files that were released: whole, encoder alone, encoder with a classifier."""
    folder = tmp_path_factory.mktemp('mae')
    whole = network.state_dict()
    encoder = {k: v for k, v in whole.items() if 'decoder' not in k and k != 'mask_token'}
    finetuned = {k: v for k, v in encoder.items() if not k.startswith('norm.')}
    finetuned |= {'fc_norm.weight': torch.ones(24), 'head.weight': torch.zeros(5, 24)}
    states = {'full': whole, 'encoder': encoder, 'finetuned': finetuned}
    states['short'] = {k: v for k, v in encoder.items() if not k.startswith('blocks.2.')}
    for name, state in states.items():
        torch.save({'model': state, 'epoch': 1}, folder / f'{name}.pth')
    return {name: str(folder / f'{name}.pth') for name in states}


def images(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def visible(ratio: float = 0.75) -> torch.Tensor:
    noise = torch.rand(2, PATCHES, generator=torch.Generator().manual_seed(2))
    return make_mask(noise, ratio).ids_keep


def by_hand(network: MaskedAutoencoder, keep: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """Every tap, block by block, with all patches embedded and the shuffled order undone by a loop."""
    x = network.patch_embed(images()) + network.pos_embed[:, 1:]
    if keep is not None:
        x = torch.stack([x[b, keep[b]] for b in range(len(x))])
    x = torch.cat([(network.cls_token + network.pos_embed[:, :1]).expand(2, -1, -1), x], dim=1)
    answers = {}
    for k, block in enumerate(network.blocks):
        x = answers[f'block.{k}'] = block(x)
    x = answers['latent'] = network.norm(x)
    answers['cls'] = x[:, 0]
    x = network.decoder_embed(x)
    tokens = network.mask_token.repeat(2, PATCHES + 1, 1)
    tokens[:, 0] = x[:, 0]
    for b in range(2):
        for place, patch in enumerate(range(PATCHES) if keep is None else keep[b].tolist()):
            tokens[b, 1 + patch] = x[b, 1 + place]
    x = tokens + network.decoder_pos_embed
    for k, block in enumerate(network.decoder_blocks):
        x = answers[f'decoder.{k}'] = block(x)
    answers['pixels'] = network.decoder_pred(network.decoder_norm(x))[:, 1:]
    return answers


@pytest.mark.parametrize('masked', [True, False])
@pytest.mark.parametrize(
    'taps',
    [
        ('block.0',), ('block.1', 'block.-1'), ('latent',), ('cls',), ('cls', 'block.1'), ('cls', 'block.3'),
        ('block.2', 'latent', 'cls'), ('decoder.1',), ('decoder.-1', 'block.2'), ('pixels',),
        ('pixels', 'block.1', 'decoder.0', 'latent', 'cls'),
    ],
    ids=lambda taps: '+'.join(taps),
)  # fmt: skip
def test_the_answers_are_those_of_the_whole_network(taps, masked, network, files):
    keep = visible() if masked else None
    answers = Teacher(SOURCE, files['full'], taps)(images(), ids_keep=keep)
    reference = by_hand(network, keep)
    reference |= {'block.-1': reference['block.3'], 'decoder.-1': reference['decoder.2']}
    assert set(answers) == set(taps)
    for tap in taps:
        torch.testing.assert_close(answers[tap], reference[tap], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('tap', ['block.1', 'block.-3', 'latent', 'cls', 'decoder.1', 'pixels'])
def test_widths(tap, files):
    teacher = Teacher(SOURCE, files['full'], (tap,))
    assert teacher.source.channels(tap) == teacher(images(), ids_keep=visible())[tap].shape[-1]


# ------------------------------------------------------------------------------------------- no more than needed


def counted(module: torch.nn.Module) -> dict[str, int]:
    """How often every block and norm of a network was entered."""
    runs: dict[str, int] = {}
    for name, part in module.named_modules():
        if name.count('.') <= 1 and name and not isinstance(part, torch.nn.ModuleList):
            part.register_forward_hook(lambda *_, name=name: runs.update({name: runs.get(name, 0) + 1}))
    return runs


def test_blocks_behind_the_last_tap_are_not_built(files):
    teacher = Teacher(SOURCE, files['full'], ('block.0', 'block.-3'))
    names = {name.partition('.')[0] for name in teacher.network.state_dict()}
    assert names == {'cls_token', 'pos_embed', 'patch_embed', 'blocks'}
    assert len(teacher.network.blocks) == 2
    runs = counted(teacher.network)
    teacher(images(), ids_keep=visible())
    assert {name: runs[name] for name in ('blocks.0', 'blocks.1')} == {'blocks.0': 1, 'blocks.1': 1}
    assert 'norm' not in runs


def test_decoder_blocks_behind_the_last_tap_are_not_built(files):
    teacher = Teacher(SOURCE, files['full'], ('decoder.1',))
    assert len(teacher.network.decoder_blocks) == 2
    names = set(teacher.network.state_dict())
    assert not any(name.startswith(('decoder_norm', 'decoder_pred')) for name in names)
    runs = counted(teacher.network)
    teacher(images(), ids_keep=visible())
    once = [
        *(f'blocks.{k}' for k in range(4)),
        'norm',
        'decoder_embed',
        'decoder_blocks.0',
        'decoder_blocks.1',
    ]
    assert all(runs[name] == 1 for name in once), runs


def test_the_blocks_see_the_kept_patches_only(files):
    teacher = Teacher(SOURCE, files['full'], ('block.1',))
    lengths = []
    teacher.network.blocks[0].register_forward_pre_hook(lambda _, args: lengths.append(args[0].shape[1]))
    teacher.network.patch_embed.register_forward_hook(lambda *_: pytest.fail('hidden patches were embedded'))
    keep = visible(0.9)
    teacher(images(), ids_keep=keep)
    assert lengths == [1 + keep.shape[1]]


def test_the_class_token_alone_costs_one_query_in_the_last_block(files):
    teacher = Teacher(SOURCE, files['full'], ('cls',))
    lengths = []
    teacher.network.blocks[-1].mlp.fc1.register_forward_pre_hook(lambda _, a: lengths.append(a[0].shape[1]))
    teacher(images())
    assert lengths == [1]


def test_it_never_drops_paths(files):
    teacher = Teacher({**SOURCE, 'drop_path_rate': 0.9}, files['full'], ('latent',))
    teacher.train()
    once, again = (teacher(images(), ids_keep=visible())['latent'] for _ in range(2))
    assert torch.equal(once, again)
    assert not any(module.training for module in teacher.network.modules())


def test_images_are_renormalised_to_imagenet(files):
    teacher = Teacher(SOURCE, files['full'], ('block.0',))
    assert teacher.normalization == Normalization.from_unit((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


# ----------------------------------------------------------------------------------------------------- the files


@pytest.mark.parametrize('kind', ['full', 'encoder', 'finetuned'])
def test_encoder_taps_take_every_released_file(kind, network, files):
    teacher = Teacher(SOURCE, files[kind], ('block.2',))
    assert teacher.report.missing == []
    answer = teacher(images(), ids_keep=visible())['block.2']
    torch.testing.assert_close(answer, by_hand(network, visible())['block.2'], rtol=1e-5, atol=1e-5)


def test_a_missing_block_is_refused_by_name_only_where_it_is_needed(files):
    Teacher(SOURCE, files['short'], ('block.1',))
    with pytest.raises(UserError, match=r'blocks\.2\.norm1\.weight') as error:
        Teacher(SOURCE, files['short'], ('block.2',))
    assert 'short.pth' in str(error.value) and 'mae:24' in str(error.value)


def test_the_final_norm_is_needed_for_the_latent(files):
    with pytest.raises(UserError, match=r'norm\.weight'):
        Teacher(SOURCE, files['finetuned'], ('latent',))


@pytest.mark.parametrize('tap', ['decoder.1', 'pixels'])
@pytest.mark.parametrize('kind', ['encoder', 'finetuned'])
def test_a_file_without_decoder_is_refused_where_the_decoder_is_needed(kind, tap, files):
    with pytest.raises(UserError, match='not its decoder') as error:
        Teacher(SOURCE, files[kind], (tap,))
    for part in (files[kind], tap, 'mae_pretrain_vit_base_full.pth', 'mae_visualize_vit_base.pth'):
        assert part in str(error.value)


def test_a_shorter_decoder_is_refused_by_name(network, tmp_path):
    state = {k: v for k, v in network.state_dict().items() if not k.startswith('decoder_blocks.2.')}
    save_file(state, tmp_path / 'short.safetensors')
    Teacher(SOURCE, str(tmp_path / 'short.safetensors'), ('decoder.1',))
    with pytest.raises(UserError, match=r'decoder_blocks\.2\.'):
        Teacher(SOURCE, str(tmp_path / 'short.safetensors'), ('decoder.2',))


def test_a_file_of_another_width_is_refused(files):
    with pytest.raises(UserError, match='Another shape'):
        Teacher({**SOURCE, 'embed_dim': 32}, files['full'], ('block.0',))


def test_positions_of_another_grid_are_refused_or_resized(files, network):
    larger = {**SOURCE, 'img_size': 48}
    with pytest.raises(UserError, match='resize_pos_embed=True'):
        Teacher(larger, files['encoder'], ('block.1',))
    teacher = Teacher(larger, files['encoder'], ('block.1',), resize_pos_embed=True)
    assert teacher.report.reshaped == ['pos_embed']
    assert torch.equal(teacher.network.pos_embed[:, :1], network.pos_embed[:, :1])
    assert torch.isfinite(teacher(torch.randn(1, 3, 48, 48))['block.1']).all()
    grid = teacher.network.grid
    torch.testing.assert_close(teacher.network.pos_embed, bicubic_position_embedding(network.pos_embed, grid))
    decoding = Teacher(larger, files['full'], ('decoder.0',), resize_pos_embed=True)
    assert decoding.report.reshaped == ['pos_embed', 'decoder_pos_embed']


def test_a_timm_file_is_an_encoder_file(tmp_path):
    """timm publishes the same encoders under the same names."""
    vit = timm.create_model(
        'vit_tiny_patch16_224', img_size=32, patch_size=8, embed_dim=24, depth=4, num_heads=2
    )
    vit = vit.eval()
    save_file(vit.state_dict(), tmp_path / 'vit.safetensors')
    teacher = Teacher(SOURCE, str(tmp_path / 'vit.safetensors'), ('block.3', 'latent'))
    torch.testing.assert_close(
        teacher(images())['latent'], vit.forward_features(images()), rtol=1e-5, atol=1e-5
    )


# -------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ('change', 'taps', 'message'),
    [
        ({}, ('block.4',), r'block\.0 to block\.3'),
        ({}, ('block.-5',), r'block\.0 to block\.3'),
        ({}, ('block.x',), r'block\.<number>'),
        ({}, ('decoder.3',), r'decoder\.0 to decoder\.2'),
        ({}, ('blok.1',), 'did you mean "block"'),
        ({}, ('logits',), r'has the taps block\.<k>'),
        ({'img_size': 30}, ('block.0',), 'not divisible by patch_size 8'),
        ({'num_heads': 5}, ('block.0',), 'not divisible by num_heads'),
        ({'decoder_num_heads': 3}, ('decoder.0',), 'not divisible by decoder_num_heads'),
        ({'arch': 'bas', 'embed_dim': None}, ('block.0',), 'did you mean "base"'),
    ],
)
def test_mistakes_are_explained(change, taps, message):
    with pytest.raises(UserError, match=message):
        Teacher({**SOURCE, **change}, 'random', taps)


def test_pretrained_is_refused_with_the_name_of_a_file():
    with pytest.raises(UserError, match='give one as checkpoint'):
        Teacher(SOURCE, 'pretrained', ('block.0',))


def test_images_of_another_size_are_refused(files):
    with pytest.raises(UserError, match='images of 40x40 pixels'):
        Teacher(SOURCE, files['full'], ('block.0',))(torch.randn(1, 3, 40, 40), ids_keep=visible()[:1])


# ---------------------------------------------------------------------------- what DMAE also needs of a timm network


def test_a_timm_transformer_knows_its_patches_and_width():
    source = Teacher(
        dict(type='vfd.TimmSource', model_name='test_vit', img_size=32), 'random', ('block.1',)
    ).source
    assert (source.num_patches, source.channels('block.1')) == (4, 64)
    network = dict(type='vfd.TimmSource', model_name='test_resnet')
    assert Teacher(network, 'random', ('stage.1',)).source.num_patches is None


def test_numbers_from_the_end_mean_the_whole_network(tmp_path):
    """Also after the blocks behind the last tap are gone."""
    vit = timm.create_model('test_vit', img_size=32)
    save_file(vit.state_dict(), tmp_path / 'vit.safetensors')
    source = dict(type='vfd.TimmSource', model_name='test_vit', img_size=32)
    ends = Teacher(source, str(tmp_path / 'vit.safetensors'), ('block.-2', 'stage.-3'))(images())
    starts = Teacher(source, str(tmp_path / 'vit.safetensors'), ('block.4', 'stage.3'))(images())
    assert torch.equal(ends['block.-2'], starts['block.4'])
    assert torch.equal(ends['stage.-3'], starts['stage.3'])
