"""Losses between the logits of a student and of a teacher; no label enters.

Paper: "Beyond Self-Supervision: A Simple Yet Effective Network Distillation Alternative to Improve Backbones", 2021,
arXiv 2103.05959. Throughout, p = softmax(logits) along the last axis, in float32 at least, and B counts the rows.

The loss that the paper calls JS divergence has no mixture distribution in it: it is half the sum of both KL
divergences (Jeffreys). Its epsilon caps the log ratio of nearly one-hot rows near ln(1 / eps) = 27.6, so it decides
value and gradient there; a log-softmax without it is another loss.

    >>> loss = SSLDLoss('js')
    >>> loss(student_logits, teacher_logits).backward()
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from vfd.errors import UserError, did_you_mean

JS_EPS = 1e-12  # current published code
JS_LEGACY_EPS = 1e-10  # first release: the models of the paper
KL_TEMPERATURE = 4.0

_ACTIVATIONS = ('softmax', 'sigmoid')


def js(
    student_logits: Tensor,
    teacher_logits: Tensor,
    eps: float = JS_EPS,
    act: str = 'softmax',
    sum_across_class_dim: bool = False,
) -> Tensor:
    """Compute half the symmetric KL: ``0.5 * mean_B sum_C (p_t - p_s) (log(p_t + e) - log(p_s + e))``.

    Both KL terms share their logarithms, so one pass over the classes gives their sum.

    Args:
        student_logits: (..., C).
        teacher_logits: (..., C); it gets no gradient.
        eps: added inside the logarithms only; the weights stay as they are.
        act: ``sigmoid`` for multi-label heads.
        sum_across_class_dim: keep the factor C of the published implementation (C times larger).

    Returns:
        A scalar, float32 at least.
    """
    _check_shapes(student_logits, teacher_logits)
    student = _probabilities(student_logits, act)
    teacher = _probabilities(teacher_logits.detach(), act)
    total = 0.5 * _Divergence.apply(student, teacher, eps)
    rows = student.numel() // student.shape[-1]
    return total * student.shape[-1] / rows if sum_across_class_dim else total / rows


def js_legacy(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Compute :func:`js` with the epsilon of the first release, 1e-10."""
    return js(student_logits, teacher_logits, eps=JS_LEGACY_EPS)


def ce(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Compute soft cross-entropy ``-mean_B sum_C p_t log p_s`` of logits (..., C): the loss of the later recipes."""
    _check_shapes(student_logits, teacher_logits)
    target = _probabilities(teacher_logits.detach())
    return -(target * _log_probabilities(student_logits)).sum(-1).mean()


def kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float = KL_TEMPERATURE) -> Tensor:
    """Compute Hinton's distillation loss ``T^2 * mean_B KL(p_t^T || p_s^T)`` of logits (..., C), for comparisons."""
    _check_shapes(student_logits, teacher_logits)
    log_teacher = _log_probabilities(teacher_logits.detach() / temperature)
    log_student = _log_probabilities(student_logits / temperature)
    divergence = (log_teacher.exp() * (log_teacher - log_student)).sum(-1)
    return temperature**2 * divergence.mean()


class SSLDLoss(nn.Module):
    """One of the losses above as a module.

    Args:
        mode: ``js``, ``js_legacy``, ``ce`` or ``kl``.
        eps: epsilon of ``js``; None takes the published 1e-12.
        temperature: temperature of ``kl``; None takes 4.
        act: ``softmax`` or ``sigmoid`` (``js`` and ``js_legacy``).
        sum_across_class_dim: keep the factor C (``js`` and ``js_legacy``).
        loss_weight: factor of the result.

    Raises:
        UserError: for an unknown mode, and for a setting that the mode does not have.
    """

    modes = ('js', 'js_legacy', 'ce', 'kl')

    def __init__(
        self,
        mode: str = 'js',
        eps: float | None = None,
        temperature: float | None = None,
        act: str = 'softmax',
        sum_across_class_dim: bool = False,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if mode not in self.modes:
            raise UserError(
                f'SSLDLoss: mode={mode!r} is not one of {list(self.modes)}{did_you_mean(mode, self.modes)}'
            )
        if act not in _ACTIVATIONS:
            raise UserError(f'SSLDLoss: act={act!r} is not one of {list(_ACTIVATIONS)}')
        is_js = mode in ('js', 'js_legacy')
        unused = {
            'eps': eps is not None and mode != 'js',
            'temperature': temperature is not None and mode != 'kl',
            'act': act != 'softmax' and not is_js,
            'sum_across_class_dim': sum_across_class_dim and not is_js,
        }
        if any(unused.values()):
            names = ', '.join(name for name, wrong in unused.items() if wrong)
            raise UserError(
                f'SSLDLoss: mode={mode!r} has no setting {names}; remove it or choose another mode.'
            )
        for name, value in (('eps', eps), ('temperature', temperature)):
            if value is not None and value <= 0:
                raise UserError(f'SSLDLoss: {name}={value} must be positive.')
        self.mode = mode
        self.eps = (JS_LEGACY_EPS if mode == 'js_legacy' else JS_EPS) if eps is None else eps
        self.temperature = KL_TEMPERATURE if temperature is None else temperature
        self.act = act
        self.sum_across_class_dim = sum_across_class_dim
        self.loss_weight = loss_weight

    def forward(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Compute the scalar loss of two (..., C) tensors."""
        if self.mode == 'ce':
            loss = ce(student_logits, teacher_logits)
        elif self.mode == 'kl':
            loss = kl(student_logits, teacher_logits, self.temperature)
        else:
            loss = js(student_logits, teacher_logits, self.eps, self.act, self.sum_across_class_dim)
        return self.loss_weight * loss

    def extra_repr(self) -> str:
        """Return the settings that the mode uses, for the printed model."""
        if self.mode == 'ce':
            return "mode='ce'"
        if self.mode == 'kl':
            return f"mode='kl', temperature={self.temperature}"
        return f'mode={self.mode!r}, eps={self.eps}, act={self.act!r}, sum_across_class_dim={self.sum_across_class_dim}'


class _Divergence(torch.autograd.Function):
    """``sum (t - s) (log(t + e) - log(s + e))`` of probabilities; its gradient with respect to s.

    By hand, because autograd would keep twice as many tensors and read each of them once more.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, eps: float) -> Tensor:
        shifted = student + eps
        log_ratio = (teacher + eps).log_().sub_(shifted.log())
        difference = teacher - student
        ctx.save_for_backward(shifted, log_ratio, difference)
        return (difference * log_ratio).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        shifted, log_ratio, difference = ctx.saved_tensors
        return difference.div(shifted).add_(log_ratio).mul_(-grad), None, None


def _check_shapes(student_logits: Tensor, teacher_logits: Tensor) -> None:
    if student_logits.shape != teacher_logits.shape:
        raise UserError(
            f'The student outputs {tuple(student_logits.shape)}, the teacher {tuple(teacher_logits.shape)}. Both need '
            "the same classes: set the student's num_classes to the teacher's."
        )


def _probabilities(logits: Tensor, act: str = 'softmax') -> Tensor:
    wide = _at_least_float32(logits)
    return wide.sigmoid() if act == 'sigmoid' else wide.softmax(-1)


def _log_probabilities(logits: Tensor) -> Tensor:
    return _at_least_float32(logits).log_softmax(-1)


def _at_least_float32(logits: Tensor) -> Tensor:
    """Cast half precision, which has no 1e-12, to float32; a float64 tensor stays unchanged."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
