"""KL divergence between the logits of a student and of a teacher, standardised per sample or as they are.

Papers: "Logit Standardization in Knowledge Distillation", CVPR 2024 (arXiv 2403.01427); "Decoupled Knowledge
Distillation", CVPR 2022 (arXiv 2203.08679). B samples, K classes, T the temperature, m the mask of the labelled class::

    Z(z) = (z - mean(z)) / (eps + std(z))                                   over the classes; eps outside the root
    KD   = T^2 mean_B sum_K p_t (log p_t - log p_s)                         p = softmax(Z(z) / T)
    DKD  = alpha T^2 mean_B KL([p_t^y, 1 - p_t^y] || [p_s^y, 1 - p_s^y])
           + beta T^2 mean_B KL of softmax(Z(z) / T - 1000 m)

A student whose logits are a z + b (a > 0) of the teacher's has nothing to learn from standardised ones, and their loss
is small: the published weight of KD is 9 where plain logits have 0.9.

    >>> loss = KLDivLogitLoss(temperature=2.0)
    >>> loss(student_logits, teacher_logits).backward()
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from vfd.errors import UserError
from vfd.losses.soft_label import kl

EPS = 1e-7
LABEL_SHIFT = 1000.0  # takes the labelled class out of a softmax


def standardize_logits(logits: Tensor, dim: int = 1, unbiased: bool = True, eps: float = EPS) -> Tensor:
    """Subtract the mean over the classes and divide by their standard deviation.

    Args:
        logits: (B, K, ...), the classes along ``dim``.
        dim: of the classes.
        unbiased: divide by K - 1 in the variance, as the released code does; the paper divides by K.
        eps: added to the standard deviation.

    Returns:
        The shape of ``logits``, float32 at least. Classes that all have one value become 0, without a gradient.
    """
    wide = _at_least_float32(logits)  # the deviation of large logits overflows fp16
    std, mean = torch.std_mean(wide, dim, correction=int(unbiased), keepdim=True)
    return torch.where(std > 0, (wide - mean) / (std + eps), torch.zeros_like(wide))


class KLDivLogitLoss(nn.Module):
    """``T^2 mean KL(p_t || p_s)`` of logits, see the module.

    Args:
        temperature: T.
        standardize: standardise both logits first; without it this is Hinton's loss.
        unbiased: see :func:`standardize_logits`.
        eps: the same.
        dim: of the classes; 1 also serves the (B, K, H, W) of segmentation, every location a sample.
        allow_binary: accept two classes, whose standardised logits are always ±0.71 (1 where ``unbiased=False``).

    Raises:
        UserError: a value out of range, or a setting of the standardisation without it.
    """

    def __init__(
        self,
        temperature: float = 2.0,
        standardize: bool = True,
        unbiased: bool = True,
        eps: float = EPS,
        dim: int = 1,
        allow_binary: bool = False,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if temperature <= 0 or eps <= 0:
            raise UserError(f'{name}: temperature={temperature} and eps={eps} must be positive')
        if not standardize and (not unbiased or eps != EPS or allow_binary):
            raise UserError(
                f'{name}: unbiased, eps and allow_binary belong to the standardisation: set standardize=True, or '
                'remove them'
            )
        self.temperature, self.standardize = temperature, standardize
        self.unbiased, self.eps = unbiased, eps
        self.dim, self.allow_binary = dim, allow_binary

    def forward(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Compare two batches of logits.

        Args:
            student_logits: (B, K, ...).
            teacher_logits: the same shape; it gets no gradient.

        Returns:
            A scalar, the mean over everything but the classes.

        Raises:
            UserError: other classes, or two of them.
        """
        student, teacher = self.prepared(student_logits, teacher_logits)
        return kl(student.movedim(self.dim, -1), teacher.movedim(self.dim, -1), self.temperature)

    def prepared(self, student_logits: Tensor, teacher_logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return both logits, standardised where that is set; the teacher's without a gradient."""
        teacher_logits = teacher_logits.detach()
        if not self.standardize:
            return student_logits, teacher_logits
        self._check_classes(student_logits.shape[self.dim])
        student, teacher = (
            standardize_logits(logits, self.dim, self.unbiased, self.eps)
            for logits in (student_logits, teacher_logits)
        )
        return student, teacher

    def _check_classes(self, classes: int) -> None:
        if classes > 2:
            return
        problem = (
            f'{type(self).__name__}: standardised, the logits of {classes} classes are the same numbers for every '
            'image, up to the sign: how sure the teacher is gets lost'
        )
        if classes < 2 or not self.allow_binary:
            raise UserError(f'{problem}. Set standardize=False (or allow_binary=True for two classes).')
        warnings.warn(problem, stacklevel=3)

    def extra_repr(self) -> str:
        """Return the settings, for the printed model."""
        text = f'temperature={self.temperature}, standardize={self.standardize}'
        return f'{text}, unbiased={self.unbiased}, eps={self.eps}' if self.standardize else text


class DKDLoss(KLDivLogitLoss):
    """Decoupled distillation: the labelled class against the rest, and the rest among themselves; see the module.

    Args:
        temperature: T.
        alpha: weight of the first part.
        beta: weight of the second.
        standardize: as in :class:`KLDivLogitLoss`, and so the rest.
        unbiased: see there.
        eps: see there.
        allow_binary: see there.

    Raises:
        UserError: as there.
    """

    def __init__(
        self,
        temperature: float = 2.0,
        alpha: float = 1.0,
        beta: float = 8.0,
        standardize: bool = True,
        unbiased: bool = True,
        eps: float = EPS,
        allow_binary: bool = False,
    ) -> None:
        super().__init__(temperature, standardize, unbiased, eps, allow_binary=allow_binary)
        self.alpha, self.beta = alpha, beta

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, label: Tensor) -> Tensor:  # type: ignore[override]
        """Compare two batches of logits.

        Args:
            student_logits: (B, K).
            teacher_logits: (B, K); it gets no gradient.
            label: classes, (B,), or scores (B, K) whose largest entry is taken (mixed images).

        Returns:
            A scalar, mean over the batch.
        """
        pair = self.prepared(student_logits, teacher_logits)
        student, teacher = (_at_least_float32(logits) / self.temperature for logits in pair)
        label = label.argmax(1, keepdim=True) if label.ndim == 2 else label[:, None]  # (B, 1)
        shift = torch.zeros_like(student).scatter(1, label, LABEL_SHIFT)
        others = kl(student - shift, teacher - shift, temperature=1.0)
        log_s, log_t = _label_and_rest(student, label), _label_and_rest(teacher, label)
        labelled = (log_t.exp() * (log_t - log_s)).sum(1).mean()
        return self.temperature**2 * (self.alpha * labelled + self.beta * others)

    def extra_repr(self) -> str:
        """Return the settings, for the printed model."""
        return f'alpha={self.alpha}, beta={self.beta}, {super().extra_repr()}'


def _label_and_rest(logits: Tensor, label: Tensor) -> Tensor:
    """Return ``[log p^y, log(1 - p^y)]``, (B, 2), of logits (B, K); from logarithms, so that neither underflows."""
    log_p = logits.log_softmax(1)
    rest = log_p.scatter(1, label, -float('inf')).logsumexp(1, keepdim=True)
    return torch.cat([log_p.gather(1, label), rest], 1)


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
