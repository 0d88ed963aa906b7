"""Networks of transformers as teachers, with random weights, each tap against transformers' own."""

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForImageClassification

from vfd.errors import UserError
from vfd.teachers import Teacher

VIT = {
    'hidden_size': 32,
    'num_hidden_layers': 3,
    'num_attention_heads': 2,
    'intermediate_size': 64,
    'patch_size': 16,
}
SWIN = {'embed_dim': 8, 'depths': [1, 2, 1], 'num_heads': [1, 2, 2], 'window_size': 2, 'image_size': 64}
CONVNEXT = {'hidden_sizes': [8, 16, 24, 32], 'depths': [1, 1, 2, 1]}
TRANSFORMERS = {  # model_type: (arguments, where the blocks are, the final norm)
    'dinov2': ({**VIT, 'image_size': 32}, 'encoder.layer', 'layernorm'),
    'dinov3_vit': ({**VIT, 'image_size': 32, 'num_register_tokens': 4}, 'model.layer', 'norm'),
    'siglip_vision_model': ({**VIT, 'image_size': 32}, 'encoder.layers', 'post_layernorm'),
    'siglip2_vision_model': ({**VIT, 'num_patches': 16}, 'encoder.layers', 'post_layernorm'),
    'clip_vision_model': ({**VIT, 'image_size': 32}, 'encoder.layers', None),
    'vit': ({**VIT, 'image_size': 32}, 'layers', 'layernorm'),
    'radio': ({**VIT, 'image_size': 32, 'max_img_size': 64}, 'encoder.layer', None),
}
CONVOLUTIONAL = {
    'convnext': CONVNEXT,
    'convnextv2': CONVNEXT,
    'dinov3_convnext': CONVNEXT,
    'resnet': {
        'hidden_sizes': [8, 16, 24, 32],
        'depths': [1, 1, 1, 1],
        'embedding_size': 8,
        'layer_type': 'basic',
    },
}
IMAGENET = {'mean': [123.675, 116.28, 103.53], 'std': [58.395, 57.12, 57.375]}


def teacher(model_type, *taps, **arguments):
    config = {'model_type': model_type, **arguments}
    return Teacher({'type': 'vfd.HuggingFaceSource', 'config': config, **IMAGENET}, 'random', taps=taps)


def with_weights_of(reference, tapped):
    """Give a teacher the weights that it shares with a network of transformers, which get noise before."""
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    state = reference.state_dict()
    tapped.network.load_state_dict({name: state[name] for name in tapped.network.state_dict()})
    return tapped


def called(reference, images, arguments):
    """transformers' own output; SigLIP 2 reads patches, which are cut out one by one here."""
    if reference.config.model_type != 'siglip2_vision_model':
        return reference(images, **arguments)
    rows = [
        image[:, y : y + 16, x : x + 16].permute(1, 2, 0).flatten()
        for image in images
        for y in range(0, images.shape[2], 16)
        for x in range(0, images.shape[3], 16)
    ]
    patches = torch.stack(rows).unflatten(0, (len(images), -1))
    shapes = torch.tensor([[images.shape[2] // 16, images.shape[3] // 16]] * len(images))
    mask = torch.ones(patches.shape[:2], dtype=torch.long)
    return reference(patches, pixel_attention_mask=mask, spatial_shapes=shapes, **arguments)


@pytest.mark.parametrize('name', TRANSFORMERS)
@torch.inference_mode()
def test_blocks_maps_and_pooled_feature_of_a_transformer(name):
    arguments, blocks, norm = TRANSFORMERS[name]
    torch.manual_seed(0)
    reference = AutoModel.from_config(AutoConfig.for_model(name, **arguments)).eval()
    taps = ('block.0', 'block.-1', 'stage.1', 'pooled')
    tapped = with_weights_of(reference, teacher(name, *taps, **arguments))
    images = torch.randn(2, 3, 32, 32)
    leaving = []
    for block in reference.get_submodule(blocks):
        block.register_forward_hook(lambda module, args, output: leaving.append(output))
    outputs = called(reference, images, {})
    answers = tapped(images)
    torch.testing.assert_close(answers['block.0'], leaving[0])
    torch.testing.assert_close(answers['block.-1'], leaving[2])
    torch.testing.assert_close(answers['stage.1'].flatten(2).transpose(1, 2), leaving[1][:, -4:])
    pooled = outputs.summary if name == 'radio' else outputs.pooler_output
    torch.testing.assert_close(answers['pooled'], pooled)
    if norm:  # the tokens are those before the final norm
        normed = reference.get_submodule(norm)(answers['block.-1'])
        torch.testing.assert_close(normed, outputs.last_hidden_state)
        assert not torch.allclose(answers['block.-1'], outputs.last_hidden_state)
    early = with_weights_of(reference, teacher(name, 'block.1', **arguments))
    leaving.clear()
    called(reference, images, {})
    torch.testing.assert_close(early(images)['block.1'], leaving[1])
    assert early.source.channels('block.1') == 32 and early.source.block_index('block.1') == 1


@pytest.mark.parametrize('name', CONVOLUTIONAL)
@torch.inference_mode()
def test_maps_and_pooled_feature_of_a_convolutional_network(name):
    torch.manual_seed(0)
    reference = AutoModel.from_config(AutoConfig.for_model(name, **CONVOLUTIONAL[name])).eval()
    tapped = with_weights_of(reference, teacher(name, 'stage.0', 'stage.2', 'pooled', **CONVOLUTIONAL[name]))
    images = torch.randn(2, 3, 64, 64)
    outputs = reference(images, output_hidden_states=True)
    answers = tapped(images)
    torch.testing.assert_close(answers['stage.0'], outputs.hidden_states[1])
    torch.testing.assert_close(answers['stage.2'], outputs.hidden_states[3])
    torch.testing.assert_close(answers['pooled'], outputs.pooler_output.flatten(1))
    assert tapped.source.channels('stage.2') == answers['stage.2'].shape[1] == 24


@torch.inference_mode()
def test_maps_of_swin_are_those_before_the_patches_are_merged():
    torch.manual_seed(0)
    reference = AutoModel.from_config(AutoConfig.for_model('swin', **SWIN)).eval()
    tapped = with_weights_of(reference, teacher('swin', 'stage.0', 'stage.1', 'stage.-1', 'pooled', **SWIN))
    leaving = []
    for layer in reference.encoder.layers:
        layer.blocks[-1].register_forward_hook(lambda module, args, output: leaving.append(output))
    images = torch.randn(2, 3, 64, 64)
    outputs = reference(images)
    answers = tapped(images)
    for tap, tokens, side in zip(('stage.0', 'stage.1', 'stage.-1'), leaving, (16, 8, 4), strict=True):
        tokens = tokens[0] if isinstance(tokens, tuple) else tokens
        torch.testing.assert_close(answers[tap], tokens.transpose(1, 2).unflatten(2, (side, side)))
    torch.testing.assert_close(answers['pooled'], outputs.pooler_output)


@pytest.mark.parametrize(
    ('name', 'arguments'),
    [
        ('dinov2', {**VIT, 'image_size': 32}),
        ('convnext', CONVNEXT),
        ('swin', SWIN),
        ('vit', {**VIT, 'image_size': 32}),
    ],
)
@torch.inference_mode()
def test_logits_and_what_the_classifier_reads(name, arguments):
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, **arguments, num_labels=5)
    reference = AutoModelForImageClassification.from_config(config).eval()
    tapped = teacher(name, 'logits', 'pooled', 'stage.0', **arguments, num_labels=5)
    with_weights_of(reference, tapped)
    images = torch.randn(2, 3, 64, 64) if name in ('swin', 'convnext') else torch.randn(2, 3, 32, 32)
    answers = tapped(images)
    assert tapped.num_classes == 5
    torch.testing.assert_close(answers['logits'], reference(images).logits)
    torch.testing.assert_close(reference.classifier(answers['pooled']), answers['logits'])
    assert answers['stage.0'].ndim == 4 and not reference.classifier._forward_pre_hooks


def test_what_no_tap_reads_is_not_built():
    early = teacher('siglip_vision_model', 'block.0', **VIT, image_size=32)
    names = list(early.network.state_dict())
    assert not any('layers.1.' in name or name.startswith('head.') for name in names)
    assert not any(
        name.startswith('pooler') for name in teacher('vit', 'block.0', **VIT).network.state_dict()
    )


@pytest.mark.parametrize(
    ('change', 'taps', 'facts'),
    [
        ({}, ('blok.0',), ['did you mean "block"']),
        ({}, ('block.3',), ['block.0 to block.2']),
        ({'model_type': 'convnext'}, ('block.0',), ['stage.<k>']),
        ({'model_type': 'dinov5'}, ('pooled',), ['dinov5']),
        ({'model_type': 'dinov3_vit'}, ('logits',), ['no classifier', '"pooled"']),
        ({'model_type': None}, ('pooled',), ['model_type']),
        ({'num_attention_heads': 'two'}, ('pooled',), ['num_attention_heads']),
    ],
)
def test_mistakes_in_the_config_are_explained(change, taps, facts):
    config = {'model_type': 'dinov2', **VIT, 'image_size': 32, **change}
    config = {key: value for key, value in config.items() if value is not None}
    with pytest.raises(UserError) as error:
        Teacher({'type': 'vfd.HuggingFaceSource', 'config': config, **IMAGENET}, 'random', taps=taps)
    assert all(fact in str(error.value) for fact in facts)


@pytest.mark.parametrize(
    ('source', 'checkpoint', 'facts'),
    [
        ({}, 'random', ['model_name=', 'config=']),
        ({'config': {'model_type': 'dinov2', **VIT}}, 'random', ['mean=', 'std=', '0..255']),
        ({'config': {'model_type': 'dinov2', **VIT}, 'mean': [0.5] * 3, 'std': [0.5] * 3}, 'random', ['255']),
        (
            {'config': {'model_type': 'dinov2', **VIT}, **IMAGENET},
            'pretrained',
            ['no weights', 'checkpoint='],
        ),
    ],
)
def test_mistakes_in_the_source_are_explained(source, checkpoint, facts):
    with pytest.raises(UserError) as error:
        Teacher({'type': 'vfd.HuggingFaceSource', **source}, checkpoint, taps=('pooled',))
    assert all(fact in str(error.value) for fact in facts)


def test_images_of_another_size():
    with pytest.raises(UserError, match=r'32x32.*48x48.*input_size=32'):
        teacher('vit', 'block.0', **VIT, image_size=32)(torch.rand(1, 3, 48, 48))


@pytest.mark.parametrize(
    ('name', 'arguments'),
    [
        ('swinv2', SWIN),
        ('hiera', {'embed_dim': 8, 'depths': [1] * 4, 'num_heads': [1, 1, 2, 2], 'image_size': [64, 64]}),
    ],
)
def test_maps_that_transformers_does_not_give_are_refused(name, arguments):
    with pytest.raises(UserError, match=r'stage 0.*TimmSource'):
        teacher(name, 'stage.0', **arguments)(torch.rand(1, 3, 64, 64))
