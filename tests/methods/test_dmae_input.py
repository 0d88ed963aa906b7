"""DMAE: which files and settings it takes, which it refuses, and what a bad image does to a run."""

from __future__ import annotations

import pytest
import timm
import torch
from mae_toy import (
    KEPT,
    STUDENT,
    TEACHER,
    TEACHER_NETWORK,
    TokenCounts,
    build,
    changed,
    images,
    one_mask,
    taught_by,
)
from mmengine.structures import BaseDataElement
from safetensors.torch import save_file
from torch.utils.data import Dataset

from vfd.backbones import MaskedAutoencoder
from vfd.engine import Runner
from vfd.errors import UserError
from vfd.methods.dmae.core import feature_distance

# ------------------------------------------------------------------------------------------------- teacher's files


@pytest.fixture(scope='module')
def files(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp('dmae')
    torch.manual_seed(3)
    whole = MaskedAutoencoder(**TEACHER_NETWORK).state_dict()
    encoder = {k: v for k, v in whole.items() if 'decoder' not in k and k != 'mask_token'}
    short = {k: v for k, v in encoder.items() if not k.startswith('blocks.2.')}
    for name, state in {'full': whole, 'encoder': encoder, 'short': short}.items():
        torch.save({'model': state}, folder / f'{name}.pth')
    return {name: str(folder / f'{name}.pth') for name in ('full', 'encoder', 'short')}


def test_a_file_of_the_encoder_is_enough(files):
    whole, encoder = (
        one_mask(build(teacher=taught_by(files[k])))(images(), None, mode='loss') for k in ('full', 'encoder')
    )
    assert torch.equal(whole['loss_distill_s1_t2'], encoder['loss_distill_s1_t2'])


def test_a_file_without_a_tapped_block_is_refused_by_name(files):
    build(teacher=taught_by(files['short']), align=[dict(student=1, teacher=1)])
    with pytest.raises(UserError, match=r'Missing 12 of \d+ needed tensors: blocks\.2\.norm1\.weight'):
        build(teacher=taught_by(files['short']))


def test_other_targets_need_the_teachers_decoder(files):
    build(teacher=taught_by(files['full']), target='difference')
    with pytest.raises(UserError, match='not its decoder'):
        build(teacher=taught_by(files['encoder']), target='difference')


def test_positions_of_another_grid_are_refused(files):
    with pytest.raises(UserError, match=r'pos_embed: file \(1, 17, 32\), model \(1, 65, 32\)'):
        build(
            student=changed(STUDENT, patch_size=4),
            teacher=taught_by(files['encoder'], patch_size=8, img_size=64, embed_dim=32),
        )


def test_a_timm_transformer_teaches(tmp_path):
    """In the layout of DINOv2: patches of 14, layer scale, images resized to the same grid."""
    arguments = dict(img_size=56, patch_size=14, embed_dim=24, depth=4, num_heads=2, init_values=1e-5)
    vit = timm.create_model('vit_small_patch14_dinov2', **arguments).eval()
    save_file(vit.state_dict(), tmp_path / 'vit.safetensors')
    source = dict(type='vfd.TimmSource', model_name='vit_small_patch14_dinov2', **arguments)
    teacher = dict(
        type='vfd.Teacher', source=source, checkpoint=str(tmp_path / 'vit.safetensors'), input_size=56
    )
    model = one_mask(build(teacher=teacher))
    assert len(model.teacher.network.blocks) == 3
    counts = TokenCounts()
    counts.watch(block=model.teacher.network.blocks[0])
    losses = model(images(), None, mode='loss')
    assert counts == {'block': [1 + KEPT]}
    sum(losses.values()).backward()
    # by hand: the whole network on the kept embeddings
    keep = model.draw_mask(images()).ids_keep
    with torch.no_grad():
        large = torch.nn.functional.interpolate(images(), 56, mode='bicubic', antialias=True)
        tokens = vit._pos_embed(vit.patch_embed(large))
        rows = [torch.cat([tokens[b, :1], tokens[b, 1:][keep[b]]]) for b in range(4)]
        taught = vit.blocks[:3](vit.norm_pre(torch.stack(rows)))
        _, tapped = model.student.forward_tokens(images(), keep, [1])
        expected = feature_distance(model.projectors[0](tapped[1]), taught)
    assert losses['loss_distill_s1_t2'].item() == pytest.approx(expected.item(), rel=1e-4)


# --------------------------------------------------------------------------------------------------------- mistakes


TIMM = dict(type='vfd.TimmSource', model_name='test_vit', img_size=64)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(mask_ratio=0.95), r'leaves none of the 16 patches visible'),
        (dict(mask_ratio=0.0), r'hides none of the 16 patches'),
        (dict(mask_ratio=1.0), 'from 0 up to'),
        (dict(mask_ratio=-0.1), 'from 0 up to'),
        (dict(align=[dict(student=3, teacher=2)]), r'student block 3: the network has the blocks 0 to 2'),
        (dict(align=[dict(student=1, teacher=4)]), r'block\.0 to block\.3'),
        (dict(align=[]), r'write align=\[dict'),
        (dict(align=[dict(student=1)]), r'write align=\[dict'),
        (dict(align=[dict(student=1, teacher=2, weight=3)]), r'write align=\[dict'),
        (dict(align=[dict(student=1, teacher=2)] * 2), 'names a pair twice'),
        (dict(projector=None), "student has 24 channels and the teacher 32. Take projector='fc'"),
        (dict(projector='linear'), r"one of \['fc', 'mlp', 'mlp2', None\]"),
        (dict(projector='mlp3'), 'did you mean "mlp'),
        (dict(distance='l3'), r"one of \['l1', 'l2'\]"),
        (dict(target='images'), 'did you mean "image"'),
        (dict(student=changed(STUDENT, img_size=30)), 'not divisible by patch_size 8.*resize the images to 32x32'),
        (dict(student=changed(STUDENT, img_size=64)), 'student has 64 patches, the teacher mae:32 16'),
        (dict(student=changed(STUDENT, patch_size=16, img_size=64)), r'built for images of 32x32 .* gets 64x64'),
        (dict(student=changed(STUDENT, num_heads=5)), 'not divisible by num_heads'),
        (dict(teacher={**TEACHER, 'source': TIMM}, target='teacher'), 'tap "pixels"'),
        (dict(teacher={**TEACHER, 'source': TIMM}), 'built for images of 64x64 .* Set input_size=64'),
        (dict(teacher={**TEACHER, 'source': {**TIMM, 'model_name': 'test_vit4'}}), '1 tokens beside its patches'),
        (dict(teacher={**TEACHER, 'source': dict(type='vfd.TimmSource', model_name='test_resnet')}), 'has the taps'),
        (dict(teacher={**TEACHER, 'checkpoint': 'no/such.pth'}), 'no/such.pth'),
        (dict(teacher={**TEACHER, 'checkpoint': 'pretrained'}), 'give one as checkpoint'),
    ],
)  # fmt: skip
def test_mistakes_are_refused_before_the_first_step(options, message):
    with pytest.raises(UserError, match=message):
        build(**options)


def test_images_of_another_size_are_refused():
    with pytest.raises(UserError, match='images of 40x40 pixels'):
        build()(torch.randn(2, 3, 40, 40), None, mode='loss')


# ------------------------------------------------------------------------------------------------------------ a run


class Photos(Dataset):
    """Images in memory under names; the image ``bad`` is not a number."""

    metainfo: dict = {}  # noqa: RUF012

    def __init__(self, bad: int | None = None) -> None:
        self.images = 127 + 50 * images(12)
        if bad is not None:
            self.images[bad, 0, 0, 0] = float('nan')

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict:
        sample = BaseDataElement(metainfo={'img_path': f'photos/{index}.png'})
        return {'inputs': self.images[index], 'data_samples': sample}


def runner(work_dir, bad: int | None = None) -> Runner:
    return Runner(
        model=build(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=Photos(bad), batch_size=4, sampler=dict(type='DefaultSampler', shuffle=False)
        ),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
        default_scope='mmpretrain',
        log_level='ERROR',
        experiment_name=work_dir.name,
    )


def test_a_run_stops_at_a_loss_that_is_not_finite_and_names_the_files(tmp_path):
    started = runner(tmp_path, bad=6)
    with pytest.raises(
        UserError, match=r'iteration 2 .*photos/4\.png, photos/5\.png, photos/6\.png, photos/7\.png'
    ):
        started.train()
    weights = started.bare_model.state_dict().values()
    assert all(torch.isfinite(value).all() for value in weights)  # nothing was updated with it


def test_a_run_without_bad_images_ends(tmp_path):
    started = runner(tmp_path)
    started.train()
    assert started.iter == 3


def test_a_batch_that_is_a_list_is_explained():
    with pytest.raises(UserError, match='default_collate'):
        build()([*images()], None, mode='loss')


def test_pairs_are_named_and_told_apart_by_their_blocks():
    last = len(build().teacher.network.blocks) - 1
    model = build(align=[dict(student=1, teacher=last - TEACHER_NETWORK['depth'])])
    assert model.names == [f's1_t{last}']
    with pytest.raises(UserError, match='twice'):
        build(
            align=[
                dict(student=1, teacher=last),
                dict(student=1, teacher=last - TEACHER_NETWORK['depth']),
            ]
        )
