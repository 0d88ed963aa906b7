"""SSLDDistiller: what the loss sees, what never moves, what is saved, what is refused."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.optim import OptimWrapper
from mmengine.runner.checkpoint import get_state_dict, load_state_dict
from mmpretrain.datasets import PackInputs
from mmpretrain.structures import DataSample

from vfd.datasets import DropLabels
from vfd.errors import UserError
from vfd.losses import SSLDLoss
from vfd.registry import MODELS
from vfd.students import forward_taps

CLASSES = 6
TIMM_STUDENT = {'type': 'mmpretrain.TimmClassifier', 'model_name': 'test_resnet', 'num_classes': CLASSES}
MM_STUDENT = {
    'type': 'mmpretrain.ImageClassifier',
    '_scope_': 'mmpretrain',
    'backbone': {
        'type': 'ResNet', 'depth': 18, 'stem_channels': 8, 'base_channels': 8, 'out_indices': (2, 3),
    },
    'neck': {'type': 'GlobalAveragePooling'},
    'head': {'type': 'LinearClsHead', 'num_classes': CLASSES, 'in_channels': 64},
}  # fmt: skip


def teacher_config(model_name: str = 'test_efficientnet', classes: int = CLASSES, **options) -> dict:
    source = {'type': 'vfd.TimmSource', 'model_name': model_name, 'num_classes': classes}
    return {'type': 'vfd.Teacher', 'source': source, 'checkpoint': 'random', **options}


def build(student: dict = TIMM_STUDENT, **options):
    torch.manual_seed(0)
    options.setdefault('teacher', teacher_config())
    preprocessor = {
        'type': 'mmpretrain.ClsDataPreprocessor',
        'mean': [123.675, 116.28, 103.53],
        'std': [58.395, 57.12, 57.375],
        'to_rgb': True,
    }
    options.setdefault('data_preprocessor', preprocessor)
    return MODELS.build({'type': 'vfd.SSLDDistiller', 'student': copy.deepcopy(student), **options}).train()


def images(seed: int = 0) -> torch.Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def samples(labels) -> list[DataSample]:
    return [DataSample().set_gt_label(label) for label in labels]


def train(model, steps: int = 2) -> None:
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    for step in range(steps):
        losses = model(images(step), samples([0] * 4), mode='loss')
        wrapper.update_params(sum(losses.values()))


class Counter:
    """Counts the forward passes of a network by its first convolution, whichever way it is entered."""

    def __init__(self, network: torch.nn.Module) -> None:
        self.calls = 0
        first = next(module for module in network.modules() if isinstance(module, torch.nn.Conv2d))
        first.register_forward_hook(self)

    def __call__(self, *args) -> None:
        self.calls += 1


# --------------------------------------------------------------------------------------------------- the loss


@pytest.mark.parametrize('student', [TIMM_STUDENT, MM_STUDENT], ids=['timm', 'mmpretrain'])
@pytest.mark.parametrize('mode', ['js', 'js_legacy', 'ce', 'kl'])
def test_the_loss_compares_both_logits(student, mode):
    model = build(student, distill_loss={'type': 'vfd.SSLDLoss', 'mode': mode}, teacher_bn='eval')
    losses = model(images(), samples([0] * 4), mode='loss')
    assert list(losses) == ['loss_ssld']
    teacher_logits = model.teacher.network(images())
    assert teacher_logits.shape == (4, CLASSES)
    expected = SSLDLoss(mode)(model.student(images(), mode='tensor'), teacher_logits)
    assert losses['loss_ssld'].item() == pytest.approx(expected.item(), rel=1e-5)


def test_labels_change_nothing():
    losses, weights = [], []
    for labels in ([0, 1, 2, 3], [5, 5, 5, 5]):
        model = build()
        losses.append(model(images(), samples(labels), mode='loss')['loss_ssld'])
        losses[-1].backward()
        weights.append([parameter.grad for parameter in model.parameters()])
    assert losses[0].equal(losses[1])
    assert all(a.equal(b) for a, b in zip(*weights, strict=True))
    unlabelled = build()(images(), [DataSample() for _ in range(4)], mode='loss')['loss_ssld']
    assert unlabelled.equal(losses[0])


def test_labelled_and_unlabelled_images_share_a_batch():
    """Labels of the labelled ones are dropped where they are loaded."""
    model = build()
    pack = Compose([DropLabels(), PackInputs()])
    images = [
        dict(img=np.zeros((32, 32, 3), np.uint8), **({'gt_label': 3} if k % 2 else {})) for k in (1, 2, 3, 4)
    ]
    mixed = [pack(image)['data_samples'] for image in images]
    assert not any('gt_label' in sample for sample in mixed) and 'gt_label' in images[0]
    raw = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    logs = model.train_step({'inputs': raw, 'data_samples': mixed}, wrapper)
    assert torch.isfinite(logs['loss_ssld'])
    labelled = model.val_step({'inputs': raw, 'data_samples': samples([3] * 4)})
    assert all(sample.gt_label == 3 for sample in labelled)  # metrics still see labels


def test_a_perfect_student_costs_nothing():
    """A student with the teacher's weights, both in eval mode: loss and gradient vanish."""
    student = {**TIMM_STUDENT, 'model_name': 'test_efficientnet'}
    model = build(student, teacher_bn='eval')
    model.student.model.load_state_dict(model.teacher.network.state_dict())
    model.eval()
    loss = model(images(), None, mode='loss')['loss_ssld']
    loss.backward()
    assert loss.item() < 1e-9
    assert max(p.grad.abs().max() for p in model.parameters() if p.grad is not None) < 1e-4


def test_autocast_gives_a_float32_loss():
    model = build()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = model(images(), None, mode='loss')['loss_ssld']
    assert loss.dtype == torch.float32 and torch.isfinite(loss)


# ------------------------------------------------------------------------------------------------- the teacher


def test_the_teacher_is_in_no_optimizer_and_no_checkpoint():
    model = build()
    mine = {id(p) for p in model.parameters()}
    assert not mine & {id(p) for p in model.teacher.network.parameters()}
    assert all(not p.requires_grad for p in model.teacher.network.parameters())
    assert all(name.startswith('student.') for name in model.state_dict())
    train(model)
    assert all(p.grad is None for p in model.teacher.network.parameters())


@pytest.mark.parametrize('student', [TIMM_STUDENT, MM_STUDENT], ids=['timm', 'mmpretrain'])
def test_eval_statistics_stay_bit_identical_and_the_student_trains(student):
    model = build(student, teacher_bn='eval')
    before = {k: v.clone() for k, v in model.teacher.network.state_dict().items()}
    student_before = {k: v.clone() for k, v in model.student.state_dict().items()}
    train(model)
    assert all(value.equal(before[name]) for name, value in model.teacher.network.state_dict().items())
    assert any(not value.equal(student_before[name]) for name, value in model.student.state_dict().items())


def test_train_statistics_are_those_of_the_batch_and_move():
    model = build()
    assert model.teacher.bn == 'train'  # the published default for batch norm
    network = model.teacher.network
    before = {k: v.clone() for k, v in network.state_dict().items()}
    logits = model.teacher(images())['logits']
    reference = copy.deepcopy(network).train()
    reference.load_state_dict(before)
    torch.testing.assert_close(logits, reference(images()), rtol=1e-4, atol=1e-4)
    moved = {name for name, value in network.state_dict().items() if not value.equal(before[name])}
    assert moved and all('running_' in name or 'num_batches_tracked' in name for name in moved)
    model.eval()
    assert any(
        module.training for module in network.modules()
    )  # eval() of the model leaves the teacher alone


def test_a_vision_transformer_teacher_is_in_eval_mode():
    model = build(teacher=vit_teacher())
    assert model.teacher.bn == 'eval'
    assert not any(module.training for module in model.teacher.network.modules())


def vit_teacher() -> dict:
    config = teacher_config('test_vit')
    config['source']['img_size'] = 32
    return config


@pytest.mark.parametrize('mode', ['predict', 'tensor'])
def test_predict_and_tensor_never_ask_the_teacher(mode):
    model = build().eval()
    student, teacher = Counter(model.student), Counter(model.teacher.network)
    out = model(images(), samples([0] * 4) if mode == 'predict' else None, mode=mode)
    assert len(out) == 4
    assert (student.calls, teacher.calls) == (1, 0)
    if mode == 'predict':
        assert out[0].pred_score.shape == (CLASSES,)
    model(images(), None, mode='loss')
    assert (student.calls, teacher.calls) == (2, 1)


# ------------------------------------------------------------------------------------------- features, freezing


MM_TEACHER = {
    'type': 'vfd.Teacher',
    'source': {'type': 'vfd.MMSource', 'model': MM_STUDENT},
    'checkpoint': 'random',
}


@pytest.mark.parametrize(
    ('student', 'teacher', 'stage'),
    [(TIMM_STUDENT, teacher_config('test_resnet'), 3), (MM_STUDENT, MM_TEACHER, 1)],
    ids=['timm', 'mmpretrain'],
)
def test_a_feature_map_can_be_compared_as_well(student, teacher, stage):
    model = build(
        student,
        teacher=copy.deepcopy(teacher),
        teacher_bn='eval',
        feature_tap=f'stage.{stage}',
        feature_loss={'type': 'vfd.FeatureDistanceLoss', 'mode': 'l1', 'loss_weight': 0.5},
    )
    counter = Counter(model.student)
    losses = model(images(), None, mode='loss')
    assert counter.calls == 1
    assert list(losses) == ['loss_ssld', 'loss_feature']
    answers = model.teacher(images())
    features = forward_taps(model.student, images(), model.taps)
    logits, feature_map = features['logits'], features[f'stage.{stage}']
    assert logits.allclose(model.student(images(), mode='tensor'), atol=1e-6)
    assert feature_map.ndim == 4
    expected = 0.5 * (feature_map - answers[f'stage.{stage}']).abs().mean()
    assert losses['loss_feature'].item() == pytest.approx(expected.item(), rel=1e-5)
    sum(losses.values()).backward()


def test_train_only_freezes_the_rest_with_its_statistics():
    model = build(train_only=['fc.'])
    before = {k: v.clone() for k, v in model.state_dict().items()}
    train(model.train())
    moved = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert moved == {'student.fc.weight', 'student.fc.bias'}


# ------------------------------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize('student', [TIMM_STUDENT, MM_STUDENT], ids=['timm', 'mmpretrain'])
def test_a_checkpoint_comes_back_completely(student):
    trained = build(student)
    train(trained)
    for state in (trained.state_dict(), get_state_dict(trained)):
        other = build(student, teacher_bn='eval')
        train(other, steps=1)
        assert not other.load_state_dict(state).missing_keys
        other_state = other.state_dict()
        assert list(other_state) == list(state)
        assert all(value.equal(other_state[name]) for name, value in state.items())
        load_state_dict(other, state, strict=True)


def test_a_timm_student_is_saved_under_timms_names():
    import timm

    network = timm.create_model('test_resnet', num_classes=CLASSES)
    state = {name.removeprefix('student.'): value for name, value in build().state_dict().items()}
    network.load_state_dict(state)  # strict


def test_names_of_other_tools_load_too():
    state = {
        name.replace('student.', 'student.model.'): value for name, value in build().state_dict().items()
    }
    build().load_state_dict(state)  # strict


# --------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize('student', [TIMM_STUDENT, MM_STUDENT], ids=['timm', 'mmpretrain'])
def test_other_class_counts_are_refused_before_training(student):
    with pytest.raises(UserError, match=r'student has 6 classes, the teacher 9'):
        build(student, teacher=teacher_config(classes=9))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'teacher': vit_teacher(), 'teacher_bn': 'train'}, 'no batch norm'),
        ({'teacher_bn': 'batch'}, 'not one of'),
        ({'teacher': teacher_config(bn='eval'), 'teacher_bn': 'train'}, 'teacher config says'),
        ({'feature_loss': {'type': 'vfd.FeatureDistanceLoss'}}, 'needs feature_tap'),
        ({'teacher': teacher_config(taps=['logits']), 'feature_tap': 'stage.3'}, r"lack \['stage.3'\]"),
        ({'train_only': ['classifier.']}, 'there are: conv1'),
    ],
)
def test_contradictions_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        build(**copy.deepcopy(options))


def test_the_teachers_own_bn_setting_counts():
    assert build(teacher=teacher_config(bn='eval')).teacher.bn == 'eval'
