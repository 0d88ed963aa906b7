"""SSLD against the authors' published code: losses, gradients, schedule, training steps, mining."""

from __future__ import annotations

import re

import numpy as np
import torch
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from vfd.datasets.mining import mine_topk
from vfd.engine.schedulers import WarmupCosineByIter
from vfd.losses import SSLDLoss, feature_distance
from vfd.methods.ssld import SSLDDistiller
from vfd.registry import MODELS
from vfd.teachers import Normalization

GOLDEN = 'ssld'


def test_golden(golden_case):
    golden_case.check(CHECKS)


# ------------------------------------------------------------------------------------------------------ losses


def smoothed_logits_ce(student: Tensor, teacher: Tensor, smoothing: float) -> Tensor:
    """The published cross-entropy with label smoothing: it smooths the raw teacher logits (a quirk, not ours)."""
    target = (1 - smoothing) * teacher + smoothing / teacher.shape[-1]
    return -(target * student.log_softmax(-1)).sum(-1).mean()


def loss_of(name: str):
    """The loss that a key of the file means, such as ``dml_eps1e6`` or ``kl_T4``."""
    fixed = {
        'dml': lambda: SSLDLoss('js'),
        'dml_sumclass': lambda: SSLDLoss('js', sum_across_class_dim=True),
        'dml_sigmoid': lambda: SSLDLoss('js', act='sigmoid'),
        'js_legacy': lambda: SSLDLoss('js_legacy'),
        'ce_soft': lambda: SSLDLoss('ce'),
        'wrap_DistillationDMLLoss': lambda: SSLDLoss('js'),
        'wrap_DistillationCELoss': lambda: SSLDLoss('ce'),
        'wrap_DistillationKLDivLoss': lambda: SSLDLoss('kl'),
    }
    if name in fixed:
        return fixed[name]()
    if match := re.fullmatch(r'dml_eps1e(\d+)', name):
        return SSLDLoss('js', eps=10.0 ** -int(match[1]))
    if match := re.fullmatch(r'kl_T(\d+(?:\.\d+)?)', name):
        return SSLDLoss('kl', temperature=float(match[1]))
    if match := re.fullmatch(r'ce_soft_eps(\d)(\d+)', name):
        smoothing = float(f'{match[1]}.{match[2]}')
        return lambda student, teacher: smoothed_logits_ce(student, teacher, smoothing)
    raise AssertionError(f'the file holds a loss of unknown name {name!r}')


def check_losses(case) -> None:
    student, teacher = case['student_logits'], case['teacher_logits']
    for key in [key for key in case if re.search(r'_float(32|64)$', key) and '_grad_' not in key]:
        name, dtype = key.rsplit('_', 1)
        logits = torch.from_numpy(student).to(getattr(torch, dtype)).requires_grad_()
        loss = loss_of(name)(logits, torch.from_numpy(teacher).to(logits.dtype))
        loss.backward()
        tolerance = 1e-10 if dtype == 'float64' else 1e-5
        if 'ce_soft_eps' in name:
            tolerance = 1e-6 if dtype == 'float64' else 1e-5
        for ours, reference in ((loss, case[key]), (logits.grad, case[f'{name}_grad_{dtype}'])):
            assert ours.dtype == logits.dtype
            scale = float(np.abs(reference).max())
            np.testing.assert_allclose(
                ours.detach().numpy(), reference, rtol=tolerance, atol=tolerance * scale, err_msg=key
            )
    for key in [key for key in case if key.startswith('wrap_') and not key.endswith('_key')]:
        value = loss_of(key)(torch.from_numpy(student), torch.from_numpy(teacher))
        np.testing.assert_allclose(float(value), case[key].item(), rtol=1e-10, err_msg=key)
        assert 'Student_Teacher' in case[f'{key}_key'].item()


def check_feature_distance(case) -> None:
    for key in [key for key in case if not key.startswith('feat_') and not key.endswith('_grad')]:
        mode, act = key.rsplit('_', 1)
        student = torch.from_numpy(case['feat_student']).requires_grad_()
        loss = feature_distance(
            student, torch.from_numpy(case['feat_teacher']), mode, None if act == 'None' else act
        )
        loss.backward()
        np.testing.assert_allclose(loss.item(), case[key], rtol=0, atol=1e-9, err_msg=key)
        np.testing.assert_allclose(student.grad.numpy(), case[f'{key}_grad'], rtol=0, atol=1e-9, err_msg=key)


# ---------------------------------------------------------------------------------------------------- schedule


def sgd(parameters, lr: float, l2: float = 0.0, momentum: float = 0.0) -> torch.optim.SGD:
    return torch.optim.SGD(parameters, lr=lr, momentum=momentum, weight_decay=l2)


def schedule(optimizer, epochs: float, steps: int, warmup: float) -> WarmupCosineByIter:
    return WarmupCosineByIter.build_iter_from_epoch(optimizer, warmup=warmup, end=epochs, epoch_length=steps)


def check_lr_schedule(case) -> None:
    names = [key.removesuffix('_lr_per_iter') for key in case if key.endswith('_lr_per_iter')]
    assert names
    for name in names:
        epochs, steps, base_lr, warmup = case[f'{name}_epochs_steps_lr_warmup'].tolist()
        optimizer = sgd([nn.Parameter(torch.zeros(1))], base_lr)
        scheduler = schedule(optimizer, epochs, int(steps), warmup)
        reference = case[f'{name}_lr_per_iter']
        ours = []
        for _ in reference:
            ours.append(optimizer.param_groups[0]['lr'])
            optimizer.step()
            scheduler.step()
        np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-12, err_msg=name)


# ------------------------------------------------------------------------------------------------------ training


class TinyNet(nn.Module):
    """Convolution, batch norm, ReLU, mean, linear: widths and weights as stored in Paddle's layout."""

    def __init__(self, tensors: dict[str, np.ndarray]) -> None:
        super().__init__()
        width, _, kernel, _ = tensors['conv.weight'].shape
        self.conv = nn.Conv2d(3, width, kernel, stride=2, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.fc = nn.Linear(*tensors['fc.weight'].shape)
        self.double()
        state = {key: torch.from_numpy(value) for key, value in from_paddle(tensors).items()}
        self.load_state_dict(state | {'bn.num_batches_tracked': torch.tensor(0)})

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.bn(self.conv(images)).relu().mean((2, 3)))


def from_paddle(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = {'bn._mean': 'bn.running_mean', 'bn._variance': 'bn.running_var'}
    return {names.get(key, key): value.T if key == 'fc.weight' else value for key, value in tensors.items()}


def biased_running_var(bn: nn.BatchNorm2d, initial: np.ndarray, samples: int) -> np.ndarray:
    """What the running variance would be, had torch averaged biased batch variances as Paddle does."""
    kept = initial * (1 - bn.momentum) ** int(bn.num_batches_tracked)
    return kept + (bn.running_var.numpy() - kept) * (samples - 1) / samples


@MODELS.register_module(force=True)
class GoldenStudent(BaseModel):
    """The stored student with a classifier's ``tensor`` mode."""

    def __init__(self, tensors: dict[str, np.ndarray]) -> None:
        super().__init__()
        self.model = TinyNet(tensors)

    def forward(self, inputs: Tensor, data_samples=None, mode: str = 'tensor') -> Tensor:
        assert mode == 'tensor'
        return self.model(inputs)


@MODELS.register_module(force=True)
class GoldenSource:
    """The stored teacher."""

    name = 'golden'
    normalization = Normalization(rgb=False)  # the batches come as stored

    def __init__(self, tensors: dict[str, np.ndarray], taps, pretrained: bool) -> None:
        self.network = TinyNet(tensors)
        self.num_classes = self.network.fc.out_features

    def forward_taps(self, images: Tensor, taps) -> dict[str, Tensor]:
        return {'logits': self.network(images)}


def check_train_steps(case) -> None:
    epochs, steps, base_lr, warmup, l2, momentum = case['hyper_epochs_steps_lr_warmup_l2_momentum'].tolist()
    initial = {who: case.under(f'init/{who}.') for who in ('Student', 'Teacher')}
    final = {who: case.under(f'final/{who}.') for who in ('Student', 'Teacher')}
    # Statistics that moved show in which mode the teacher ran.
    moved = not np.array_equal(initial['Teacher']['bn._mean'], final['Teacher']['bn._mean'])
    source = {'type': 'GoldenSource', 'tensors': initial['Teacher']}
    distiller = SSLDDistiller(
        student={'type': 'GoldenStudent', 'tensors': initial['Student']},
        teacher={'type': 'Teacher', 'source': source, 'checkpoint': 'random'},
        teacher_bn='train' if moved else 'eval',
    )
    distiller.double().train()
    student, teacher = distiller.student.model, distiller.teacher.network
    teacher.load_state_dict(TinyNet(initial['Teacher']).state_dict())  # the teacher went through float32

    wrapper = OptimWrapper(sgd(distiller.parameters(), base_lr, l2, momentum))
    scheduler = schedule(wrapper, epochs, int(steps), warmup)
    images = torch.from_numpy(case['images'])
    outputs: dict[str, Tensor] = {}
    for who, net in (('student', student), ('teacher', teacher)):
        net.register_forward_hook(lambda net, args, output, who=who: outputs.update({who: output.detach()}))
    for step, batch in enumerate(images):
        lr = wrapper.param_groups[0]['lr']
        np.testing.assert_allclose(lr, case['lr_used'][step], rtol=0, atol=1e-6)
        losses = distiller(batch, None, mode='loss')
        (loss,) = losses.values()
        wrapper.zero_grad()
        wrapper.backward(loss)
        close = {'rtol': 0, 'atol': 1e-6, 'err_msg': f'step {step}'}
        np.testing.assert_allclose(loss.item(), case['losses'][step], **close)
        for who, logits in outputs.items():
            np.testing.assert_allclose(logits.numpy(), case[f'{who}_logits'][step], **close)
        if step == 0:
            for name, reference in from_paddle(case.under('grad0/Student.')).items():
                gradient = student.get_parameter(name).grad.numpy()
                np.testing.assert_allclose(gradient, reference, rtol=0, atol=1e-6, err_msg=name)
        wrapper.step()
        scheduler.step()

    samples = images.shape[1] * -(-images.shape[3] // 2) * -(-images.shape[4] // 2)
    for who, net in (('Student', student), ('Teacher', teacher)):
        for name, reference in from_paddle(final[who]).items():
            ours = net.state_dict()[name].numpy()
            if name == 'bn.running_var':
                ours = biased_running_var(net.bn, initial[who]['bn._variance'], samples)
            np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-6, err_msg=f'{who} {name}')


# ------------------------------------------------------------------------------------------------------ mining


def check_topk_mining(case) -> None:
    soft_labels, keep = case['soft_labels'], case['keep_after_dedup']
    np.testing.assert_array_equal(soft_labels.argmax(1), case['pred_class'])
    np.testing.assert_array_equal(soft_labels.max(1), case['score'])
    indices, counts = mine_topk(soft_labels, keep, int(case['k']))
    np.testing.assert_array_equal(indices, case['selected_flat'])
    np.testing.assert_array_equal(counts, case['selected_class_counts'])


CHECKS = {
    'losses': check_losses,
    'feature_distance': check_feature_distance,
    'lr_schedule': check_lr_schedule,
    'train_steps': check_train_steps,
    'topk_mining': check_topk_mining,
}
