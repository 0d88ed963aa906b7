import copy

import pytest
import timm
import torch
from mmengine.model import BaseModel
from safetensors.torch import save_file
from torch import nn

from vfd.errors import MissingFileError, UserError
from vfd.methods.base import Distiller
from vfd.registry import MODELS
from vfd.teachers import Normalization, Teacher

CNN = dict(type='vfd.TimmSource', model_name='test_resnet', num_classes=5)
VIT = dict(type='vfd.TimmSource', model_name='test_vit', num_classes=5, img_size=32)
IMAGENET = Normalization.from_unit((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.fixture
def cnn_file(tmp_path):
    torch.manual_seed(0)
    network = timm.create_model('test_resnet', num_classes=5)
    save_file(network.state_dict(), tmp_path / 'cnn.safetensors')
    return tmp_path / 'cnn.safetensors', network.eval()


@pytest.fixture
def vit_file(tmp_path):
    torch.manual_seed(0)
    network = timm.create_model('test_vit', num_classes=5, img_size=32)
    save_file(network.state_dict(), tmp_path / 'vit.safetensors')
    return tmp_path / 'vit.safetensors', network.eval()


# --- contract 1: never trains


def test_frozen_and_eval_whatever_is_asked(cnn_file):
    teacher = Teacher(CNN, str(cnn_file[0]))
    teacher.train()
    assert not teacher.network.training
    assert not any(p.requires_grad for p in teacher.network.parameters())
    images = torch.rand(2, 3, 32, 32, requires_grad=True)
    assert not teacher(images)['logits'].requires_grad


def test_batch_statistics_move_only_in_train_mode(cnn_file):
    before = {k: v.clone() for k, v in cnn_file[1].state_dict().items()}
    for mode, moves in (('eval', False), ('train', True)):
        teacher = Teacher(CNN, str(cnn_file[0]), bn=mode)
        teacher(torch.rand(4, 3, 32, 32))
        after = teacher.network.state_dict()
        changed = {k for k in before if not torch.equal(before[k], after[k])}
        assert all('running' in k or 'num_batches' in k for k in changed)
        assert bool(changed) is moves
        dropout = [m for m in teacher.network.modules() if isinstance(m, nn.Dropout)]
        assert not any(m.training for m in dropout)


# --- contract 2: never travels


class ToyDistiller(Distiller):
    def loss(self, inputs, data_samples=None):
        return {'loss': (self.student(inputs) - self.teacher(inputs)['logits']).square().mean()}


@pytest.fixture
def distiller(cnn_file):
    @MODELS.register_module(name='ToyStudentForTeacherTests', force=True)
    class Student(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = timm.create_model('test_resnet', num_classes=5)

        def forward(self, inputs, data_samples=None, mode='tensor'):
            return self.network(inputs)

    yield ToyDistiller(
        dict(type='vfd.ToyStudentForTeacherTests'),
        dict(type='vfd.Teacher', source=CNN, checkpoint=str(cnn_file[0])),
    )
    MODELS._module_dict.pop('ToyStudentForTeacherTests')


def test_nothing_of_the_teacher_is_in_the_model(distiller):
    assert isinstance(distiller, BaseModel)
    assert all(name.startswith('student.') for name in distiller.state_dict())
    assert all(name.startswith('student.') for name, _ in distiller.named_parameters())
    assert not any('teacher' in name for name, _ in distiller.named_modules())
    assert not any('teacher' in name for name, _ in distiller.named_buffers())


def test_the_teacher_goes_where_the_model_goes(distiller):
    distiller.double()
    assert next(distiller.teacher.network.parameters()).dtype == torch.float64
    assert distiller.teacher(torch.rand(1, 3, 32, 32, dtype=torch.float64))['logits'].dtype == torch.float64


def test_copies_share_the_teacher(distiller):
    assert copy.deepcopy(distiller).teacher is distiller.teacher


def test_train_mode_reaches_the_student_only(distiller):
    distiller.train()
    assert distiller.student.training and not distiller.teacher.network.training


def test_only_loss_asks_the_teacher(distiller):
    calls = []
    distiller.teacher.network.register_forward_hook(lambda *_: calls.append(1))
    distiller.teacher.network.conv1.register_forward_hook(lambda *_: calls.append(1))
    images = torch.rand(2, 3, 32, 32)
    distiller(images, mode='tensor')
    distiller(images, mode='predict')
    assert not calls
    distiller(images, mode='loss')
    assert calls


# --- contract 3: the teacher you meant


def test_answers_are_those_of_the_file(cnn_file):
    teacher = Teacher(CNN, str(cnn_file[0]))
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(teacher.source.network(images), cnn_file[1](images))
    assert teacher.report.missing == [] and len(teacher.report.loaded) == len(cnn_file[1].state_dict())


@pytest.mark.parametrize('spoil', ['another model', 'partial', 'classes'])
def test_a_wrong_file_is_refused(tmp_path, cnn_file, spoil):
    state = dict(cnn_file[1].state_dict())
    if spoil == 'another model':
        state = timm.create_model('test_vit', num_classes=5).state_dict()
    elif spoil == 'partial':
        state.pop('layer2.0.conv1.weight')
    else:
        state = timm.create_model('test_resnet', num_classes=7).state_dict()
    save_file(state, tmp_path / 'wrong.safetensors')
    with pytest.raises(UserError, match=r'wrong\.safetensors') as error:
        Teacher(CNN, str(tmp_path / 'wrong.safetensors'))
    assert 'test_resnet' in str(error.value)
    if spoil == 'partial':
        assert 'layer2.0.conv1.weight' in str(error.value)


def test_an_absent_file_is_named():
    with pytest.raises(MissingFileError, match=r'nowhere\.pth'):
        Teacher(CNN, 'nowhere.pth')


def test_random_only_by_name():
    teacher = Teacher(CNN, 'random')
    assert 'RANDOM' in teacher.summary()['teacher loaded']
    with pytest.raises(TypeError):
        Teacher(CNN)


def test_fingerprint_tells_weights_apart(tmp_path, cnn_file):
    one = Teacher(CNN, str(cnn_file[0])).fingerprint()
    assert one == Teacher(CNN, str(cnn_file[0])).fingerprint()
    state = {k: v.clone() for k, v in cnn_file[1].state_dict().items()}
    state['fc.bias'][0] += 1
    save_file(state, tmp_path / 'other.safetensors')
    assert (
        Teacher(CNN, str(tmp_path / 'other.safetensors')).fingerprint()['weights_sha256']
        != one['weights_sha256']
    )


@pytest.mark.parametrize(
    'change, text',
    [
        (dict(taps=()), 'at least one tap'),
        (dict(taps=('logit',)), 'did you mean "logits"'),
        (dict(taps=('block.0',)), 'has the taps'),
        (dict(taps=('stage.9',)), 'stage.0 to stage.4'),
        (dict(taps=('stage.x',)), r'stage\.<number>'),
        (dict(dtype='float8'), 'float32'),
        (dict(bn='off'), 'eval'),
        (dict(source=dict(CNN, model_name='resnet5O')), 'did you mean'),
        (dict(source=dict(CNN, numclasses=3)), 'numclasses'),
    ],
)
def test_mistakes_are_explained(change, text):
    arguments = {'source': CNN, 'checkpoint': 'random', **change}
    with pytest.raises(UserError, match=text):
        Teacher(**arguments)


# --- contract 4: sees what it was trained on


def test_batches_are_renormalised(cnn_file):
    from mmpretrain.models import ClsDataPreprocessor

    teacher = Teacher(CNN, str(cnn_file[0]))
    preprocessor = ClsDataPreprocessor(mean=[127.5] * 3, std=[127.5] * 3, to_rgb=False)
    teacher.bind(preprocessor)
    bgr = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    seen = []
    teacher.network.conv1.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    teacher(preprocessor({'inputs': bgr})['inputs'])
    wanted = Normalization().convert(bgr.flip(1).float(), teacher.normalization)
    torch.testing.assert_close(seen[0], wanted, rtol=1e-5, atol=1e-5)


def test_images_are_resized_for_the_teacher(cnn_file):
    teacher = Teacher(CNN, str(cnn_file[0]), input_size=64)
    seen = []
    teacher.network.conv1.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape))
    teacher(torch.rand(2, 3, 28, 28))
    assert seen[0][-2:] == (64, 64)


# --- contract 5: runs only what the taps need


def count_runs(modules):
    runs = [0] * len(modules)

    def counter(i):
        def hook(*_):
            runs[i] += 1

        return hook

    for i, module in enumerate(modules):
        module.register_forward_hook(counter(i))
    return runs


def test_taps_of_a_cnn(cnn_file):
    network = cnn_file[1]
    images = torch.rand(2, 3, 64, 64)
    teacher = Teacher(CNN, str(cnn_file[0]), taps=('logits', 'pooled', 'stage.2', 'stage.-1'))
    answers = teacher(images)
    features, maps = network.forward_intermediates(images)
    torch.testing.assert_close(answers['logits'], network(images))
    torch.testing.assert_close(answers['pooled'], network.forward_head(features, pre_logits=True))
    torch.testing.assert_close(answers['stage.2'], maps[2])
    torch.testing.assert_close(answers['stage.-1'], maps[-1])


def test_a_pruned_cnn_answers_the_same(cnn_file):
    images = torch.rand(2, 3, 64, 64)
    teacher = Teacher(CNN, str(cnn_file[0]), taps=('stage.2',))
    torch.testing.assert_close(teacher(images)['stage.2'], cnn_file[1].forward_intermediates(images)[1][2])
    assert sum(p.numel() for p in teacher.network.parameters()) < sum(
        p.numel() for p in cnn_file[1].parameters()
    )


def test_taps_of_a_vit(vit_file):
    network = vit_file[1]
    images = torch.rand(2, 3, 32, 32)
    count = len(network.blocks)
    teacher = Teacher(VIT, str(vit_file[0]), taps=('block.1', 'stage.1', 'logits', 'pooled'))
    answers = teacher(images)
    streams = network.forward_intermediates(
        images, output_fmt='NLC', return_prefix_tokens=True, intermediates_only=True
    )
    tokens, prefix = streams[1]
    torch.testing.assert_close(answers['block.1'], torch.cat([prefix, tokens], dim=1))
    maps = network.forward_intermediates(images, intermediates_only=True)
    torch.testing.assert_close(answers['stage.1'], maps[1])
    torch.testing.assert_close(answers['logits'], network(images))
    assert count > 2


def test_blocks_behind_the_last_tap_do_not_exist(vit_file):
    teacher = Teacher(VIT, str(vit_file[0]), taps=('block.1',))
    assert len(teacher.network.blocks) == 2
    assert teacher.num_classes is None


def test_an_encoder_without_its_end_is_enough_for_an_early_tap(vit_file, tmp_path):
    state = {
        k: v
        for k, v in vit_file[1].state_dict().items()
        if not k.startswith(('blocks.3', 'blocks.4', 'norm', 'head', 'fc_norm'))
    }
    save_file(state, tmp_path / 'encoder.safetensors')
    Teacher(VIT, str(tmp_path / 'encoder.safetensors'), taps=('block.0',))
    with pytest.raises(UserError, match='Missing'):
        Teacher(VIT, str(tmp_path / 'encoder.safetensors'), taps=('logits',))


def test_patches_are_gathered_before_the_blocks(vit_file):
    """Attention is between the kept patches alone: equal to running the blocks on the kept embeddings."""
    network = vit_file[1]
    images = torch.rand(2, 3, 32, 32)
    keep = torch.tensor([[0, 3], [2, 1]])
    teacher = Teacher(VIT, str(vit_file[0]), taps=('block.1',))
    runs = []
    teacher.network.blocks[0].register_forward_pre_hook(lambda module, args: runs.append(args[0].shape[1]))
    got = teacher(images, ids_keep=keep)['block.1']
    embedded = network._pos_embed(network.patch_embed(images))
    prefix = network.num_prefix_tokens
    rows = [torch.cat([embedded[b, :prefix], embedded[b, prefix:][keep[b]]]) for b in range(2)]
    wanted = network.blocks[:2](network.norm_pre(torch.stack(rows)))
    torch.testing.assert_close(got, wanted)
    assert runs == [prefix + 2]


def test_patches_of_a_cnn_cannot_be_dropped(cnn_file):
    teacher = Teacher(CNN, str(cnn_file[0]))
    with pytest.raises(UserError, match='ids_keep'):
        teacher(torch.rand(1, 3, 32, 32), ids_keep=torch.zeros(1, 1, dtype=torch.long))


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_half_precision_answers_in_float32(cnn_file, dtype):
    full = Teacher(CNN, str(cnn_file[0]))
    half = Teacher(CNN, str(cnn_file[0]), dtype=dtype)
    images = torch.rand(2, 3, 32, 32)
    assert half(images)['logits'].dtype == torch.float32
    torch.testing.assert_close(half(images)['logits'], full(images)['logits'], rtol=0.1, atol=0.1)


def test_auto_follows_autocast_and_float32_does_not(cnn_file):
    auto, exact = Teacher(CNN, str(cnn_file[0])), Teacher(CNN, str(cnn_file[0]), dtype='float32')
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        wanted = cnn_file[1](images)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            wanted_half = cnn_file[1](images)
            answers = auto(images)['logits'], exact(images)['logits']
    assert torch.equal(answers[1], wanted) and torch.equal(auto(images)['logits'], wanted)
    assert torch.equal(answers[0], wanted_half.float()) and answers[0].dtype == torch.float32
    assert not torch.equal(wanted_half.float(), wanted)


def test_time_is_counted(cnn_file):
    teacher = Teacher(CNN, str(cnn_file[0]))
    assert teacher.seconds == 0
    teacher(torch.rand(1, 3, 32, 32))
    assert teacher.seconds > 0


def test_compile_goes_through_torch_compile(cnn_file, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, 'compile', lambda function: compiled.append(function) or function)
    teacher = Teacher(CNN, str(cnn_file[0]), compile=True)
    images = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(teacher(images)['logits'], cnn_file[1](images))
    assert compiled == [teacher.source.forward_taps]


def test_a_position_embedding_is_resized_only_when_asked(vit_file):
    larger = dict(VIT, img_size=64)
    with pytest.raises(UserError, match='resize_pos_embed=True'):
        Teacher(larger, str(vit_file[0]))
    teacher = Teacher(larger, str(vit_file[0]), resize_pos_embed=True)
    assert teacher.report.reshaped == ['pos_embed']


def test_weights_that_cannot_be_downloaded(monkeypatch):
    def offline(*args, **kwargs):
        raise OSError('no route to host')

    monkeypatch.setattr(timm, 'create_model', offline)
    with pytest.raises(UserError, match=r'timm:resnet18 could not be fetched \(no route to host\)'):
        Teacher(dict(type='vfd.TimmSource', model_name='resnet18'), 'pretrained')


def test_an_unpublished_tag_names_the_published_ones():
    with pytest.raises(UserError, match=r'resnet10t\.c3_in1k'):
        Teacher(dict(type='vfd.TimmSource', model_name='resnet10t.nothing'), 'random')
