import numpy as np
import open_clip
import pytest
import torch
from mmengine.structures import BaseDataElement

from vfd.errors import MissingFileError, UserError
from vfd.stores import Ragged, RaggedField, StoreWriter
from vfd.teachers import StoredTeacher, Teacher

RESNET = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='mmpretrain.ResNet_CIFAR', depth=18, base_channels=8, stem_channels=8, num_stages=4,
                  out_indices=(1, 3)),
    neck=dict(type='mmpretrain.GlobalAveragePooling'),
    head=dict(type='mmpretrain.LinearClsHead', num_classes=3, in_channels=64),
    data_preprocessor=dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], to_rgb=True),
)  # fmt: skip


def test_mmpretrain_teacher(tmp_path):
    source = dict(type='vfd.MMSource', model=RESNET)
    random = Teacher(source, 'random', taps=('logits', 'pooled', 'stage.0', 'stage.1'))
    torch.save({'state_dict': random.network.state_dict(), 'meta': {}}, tmp_path / 'resnet.pth')
    teacher = Teacher(source, str(tmp_path / 'resnet.pth'), taps=('logits', 'pooled', 'stage.0', 'stage.1'))
    assert teacher.weights_sha256 == random.weights_sha256
    assert teacher.normalization.mean == (1.0, 2.0, 3.0) and teacher.normalization.rgb
    assert teacher.num_classes == 3
    answers = teacher(torch.rand(2, 3, 32, 32))
    assert answers['logits'].shape == (2, 3)
    assert answers['pooled'].shape == (2, 64)
    assert answers['stage.1'].shape[1] == 64 and answers['stage.0'].shape[1] == 16


def test_a_bare_backbone_needs_its_normalisation():
    with pytest.raises(UserError, match='mean='):
        Teacher(dict(type='vfd.MMSource', model=RESNET['backbone']), 'random', taps=('stage.0',))


def test_a_bare_backbone():
    source = dict(type='vfd.MMSource', model=RESNET['backbone'], mean=[1, 2, 3], std=[1, 1, 1])
    assert Teacher(source, 'random', taps=('stage.1',))(torch.rand(1, 3, 32, 32))['stage.1'].shape[1] == 64
    with pytest.raises(UserError, match='has the taps'):
        Teacher(source, 'random', taps=('logits',))
    with pytest.raises(UserError, match='pretrained'):
        Teacher(source, 'pretrained', taps=('stage.1',))


@pytest.fixture(scope='module')
def small_clip(tmp_path_factory):
    """A two-block CLIP, registered with open_clip for these tests."""
    folder = tmp_path_factory.mktemp('clip')
    (folder / 'vfd-test-clip.json').write_text(
        '{"embed_dim": 16, "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16, '
        '"head_width": 32},'
        ' "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}}'
    )
    open_clip.add_model_config(folder)
    return 'vfd-test-clip'


def test_open_clip_teacher(small_clip, tmp_path):
    source = dict(type='vfd.OpenCLIPSource', model_name=small_clip)
    model = open_clip.create_model(small_clip).eval()
    torch.save(model.state_dict(), tmp_path / 'clip.pt')
    teacher = Teacher(source, str(tmp_path / 'clip.pt'), taps=('pooled', 'block.1'))
    images = torch.rand(2, 3, 32, 32)
    answers = teacher(images)
    torch.testing.assert_close(answers['pooled'], model.encode_image(images))
    assert answers['block.1'].shape == (2, 1 + 4, 64)
    names = set(teacher.network.state_dict())
    assert names and all(name.startswith('visual.') for name in names)


def test_open_clip_zero_shot_logits(small_clip, tmp_path):
    model = open_clip.create_model(small_clip).eval()
    torch.save(model.state_dict(), tmp_path / 'clip.pt')
    source = dict(type='vfd.OpenCLIPSource', model_name=small_clip, class_names=['cat', 'dog', 'car'])
    teacher = Teacher(source, str(tmp_path / 'clip.pt'), taps=('logits',))
    images = torch.rand(2, 3, 32, 32)
    text = model.encode_text(
        open_clip.get_tokenizer(small_clip)([f'a photo of a {n}.' for n in ('cat', 'dog', 'car')])
    )
    image = model.encode_image(images)
    wanted = model.logit_scale.exp() * torch.nn.functional.cosine_similarity(
        image[:, None], text[None], dim=-1
    )
    torch.testing.assert_close(teacher(images)['logits'], wanted, rtol=1e-4, atol=1e-4)
    assert teacher.num_classes == 3


@pytest.mark.parametrize(
    'change, checkpoint, taps, text',
    [
        (dict(model_name='ViT-B-61'), 'random', ('pooled',), 'did you mean'),
        (dict(model_name='ViT-B-16'), 'pretrained', ('pooled',), 'tag='),
        (dict(model_name='ViT-B-16'), 'random', ('logits',), 'class_names'),
    ],
)
def test_open_clip_mistakes(change, checkpoint, taps, text):
    with pytest.raises(UserError, match=text):
        Teacher(dict(type='vfd.OpenCLIPSource', **change), checkpoint, taps=taps)


@pytest.fixture
def store(tmp_path):
    writer = StoreWriter(tmp_path / 'store', {'logits': ('float32', (3,))}, {'teacher': 'x'})
    writer.append(['a/1.png', 'b/2.png'], logits=np.array([[1, 2, 3], [4, 5, 6]], np.float32))
    writer.close()
    return tmp_path / 'store'


def test_stored_teacher(store, tmp_path):
    teacher = StoredTeacher(str(store), str(tmp_path / 'images'))
    samples = [
        BaseDataElement(metainfo={'img_path': str(tmp_path / 'images' / n)}) for n in ('b/2.png', 'a/1.png')
    ]
    answers = teacher(torch.rand(2, 3, 8, 8), data_samples=samples)
    assert answers['logits'].tolist() == [[4, 5, 6], [1, 2, 3]]
    assert teacher.num_classes == 3
    assert teacher.fingerprint()['store'] == {'teacher': 'x'}
    assert 'logits' in teacher.summary()['taps']


def test_stored_teacher_names_what_is_missing(store, tmp_path):
    teacher = StoredTeacher(str(store), str(tmp_path / 'images'))
    sample = BaseDataElement(metainfo={'img_path': str(tmp_path / 'images/new.png')})
    with pytest.raises(UserError, match=r'new\.png'):
        teacher(torch.rand(1, 3, 8, 8), data_samples=[sample])
    with pytest.raises(UserError, match='no samples'):
        teacher(torch.rand(1, 3, 8, 8))
    with pytest.raises(UserError, match='ids_keep'):
        teacher(torch.rand(1, 3, 8, 8), ids_keep=torch.zeros(1, 1), data_samples=[sample])
    with pytest.raises(UserError, match='no field "features"'):
        StoredTeacher(str(store), str(tmp_path), taps=('features',))
    with pytest.raises(MissingFileError):
        StoredTeacher(str(tmp_path / 'nothing'), str(tmp_path))


def test_a_stored_teacher_gives_ragged_fields_and_keys_of_their_own(tmp_path):
    with StoreWriter(tmp_path / 'store', {'region': RaggedField('float16', (2,))}, {}) as writer:
        rows = [np.ones((2, 2), np.float16), np.zeros((0, 2), np.float16), np.full((1, 2), 3, np.float16)]
        writer.append(['a', 'b', 'c'], region=Ragged.of(rows))
    teacher = StoredTeacher(str(tmp_path / 'store'), taps=('region',))
    samples = [BaseDataElement(metainfo={'sample_key': key}) for key in 'cba']
    answer = teacher({'points': [torch.rand(5, 3)] * 3}, data_samples=samples)['region']
    assert isinstance(answer, Ragged) and answer.counts.tolist() == [1, 0, 2]
    assert answer.values.dtype == torch.float32 and answer.split()[0].tolist() == [[3, 3]]
    assert '(2,)' in teacher.summary()['taps']


def test_symbolic_links_in_a_data_set(store, tmp_path):
    """A record is found under the name that the data set gives, wherever the file lies."""
    (tmp_path / 'disk').mkdir()
    (tmp_path / 'disk/1.png').touch()
    (tmp_path / 'images').mkdir()
    (tmp_path / 'images/a').symlink_to(tmp_path / 'disk')
    teacher = StoredTeacher(str(store), str(tmp_path / 'images'))
    sample = BaseDataElement(metainfo={'img_path': str(tmp_path / 'images/a/1.png')})
    assert teacher(torch.rand(1, 3, 8, 8), data_samples=[sample])['logits'].tolist() == [[1, 2, 3]]
