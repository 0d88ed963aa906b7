"""Cross-entropy with stored soft labels, without making them dense.

A stored label names a few classes; all others share the rest of the probability. So N labels of C classes are

    label[n, c] = rest[n] + sum over i with ids[n, i] = c of weights[n, i]

and the loss needs the logits of the named classes and two sums over all classes. The dense (N, C) labels, 4 MB for
1024 x 1000, are never built. Mixing two labels gives a label of the same form. Source: FKD (arXiv 2112.01528),
section 3.3, for the label types; the sparse form is [ours].

    >>> labels = sparse_labels(stored, 'marginal_smoothing_k5', classes=1000)  # stored: (N, 2, 5)
    >>> soft_cross_entropy(logits, labels).backward()
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from vfd.errors import UserError

EPS = 1e-12  # of the normalisation of ``marginal_renorm``


@dataclass(frozen=True)
class SparseLabels:
    """N labels, see the module.

    Attributes:
        ids: (N, K) int64 classes; one may occur twice.
        weights: (N, K) floating, what they have more than ``rest``.
        rest: (N,) floating, probability of every class.
    """

    ids: Tensor
    weights: Tensor
    rest: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def mixed(self, partner: Tensor, share: Tensor) -> SparseLabels:
        """``share * label[n] + (1 - share) * label[partner[n]]``.

        Args:
            partner: (N,) int64 rows.
            share: (N,) of the row itself.
        """
        share = share.to(self.weights)
        other = 1 - share
        return SparseLabels(
            torch.cat([self.ids, self.ids[partner]], dim=1),
            torch.cat([self.weights * share[:, None], self.weights[partner] * other[:, None]], dim=1),
            self.rest * share + self.rest[partner] * other,
        )

    def to(self, device: torch.device, dtype: torch.dtype) -> SparseLabels:
        """The same labels on ``device``, with probabilities of ``dtype``."""
        return SparseLabels(self.ids.to(device), self.weights.to(device, dtype), self.rest.to(device, dtype))

    def dense(self, classes: int) -> Tensor:
        """The labels as (N, C)."""
        return self.rest[:, None].repeat(1, classes).scatter_add_(1, self.ids, self.weights)


SoftLabels = Tensor | SparseLabels  # dense (N, C), or sparse


def sparse_labels(stored: Tensor, label_type: str, classes: int) -> SoftLabels:
    """Labels as a store holds them, in the form that :func:`soft_cross_entropy` takes.

    Args:
        stored: ``hard``: (N,) classes. ``smoothing``: (N, 2) class and probability. ``marginal_smoothing_k<k>`` and
            ``marginal_renorm_k<k>``: (N, 2, k) classes and probabilities. ``ori``: (N, C).
        label_type: one of these names.
        classes: C.

    Returns:
        :class:`SparseLabels` of float64; for ``ori`` the dense labels themselves.

    Raises:
        UserError: an unknown label type, labels of another shape, or a class outside ``[0, C)``.
    """
    shapes = {'ori': (classes,), 'hard': (), 'smoothing': (2,)}
    marginal = label_type.startswith(('marginal_smoothing_k', 'marginal_renorm_k'))
    k = label_type.rpartition('_k')[2]
    if label_type not in shapes and not (marginal and k.isdecimal()):
        raise UserError(
            f'label type "{label_type}": expected one of {list(shapes)}, marginal_smoothing_k<k>, marginal_renorm_k<k>'
        )
    shape = shapes.get(label_type) or ((2, int(k)) if marginal else ())
    if tuple(stored.shape[1:]) != shape:
        raise UserError(
            f'"{label_type}" labels of {classes} classes have the shape (N, {", ".join(map(str, shape))}), these have '
            f'{tuple(stored.shape)}'
        )
    if stored.dtype not in (torch.float32, torch.float64):
        stored = stored.float()
    if label_type == 'ori':
        return stored
    if label_type == 'hard':
        ids, values = stored.long()[:, None], torch.ones_like(stored)[:, None]
    else:
        ids, values = stored.view(len(stored), 2, -1).unbind(1)
        ids = ids.long()
    if ids.shape[1] > classes:
        raise UserError(f'labels name {ids.shape[1]} classes each, there are only {classes}')
    if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < classes:
        raise UserError(
            f'labels name the classes {int(ids.min())} to {int(ids.max())}, but there are {classes}: are they the '
            'labels of another data set?'
        )
    total = values.sum(1)
    if label_type == 'hard' or label_type.startswith('marginal_renorm'):
        values = values / total.clamp_min(EPS)[:, None]
        return SparseLabels(ids, values.double(), torch.zeros_like(total, dtype=torch.float64))
    # Rounded as the dense label would be; the difference then is exact.
    rest = ((1 - total) / max(classes - ids.shape[1], 1)).double()
    return SparseLabels(ids, values.double() - rest[:, None], rest)


def soft_cross_entropy(logits: Tensor, labels: SoftLabels, temperature: float = 1.0) -> Tensor:
    """``-mean_n sum_c label[n, c] * log_softmax(logits / temperature)[n, c]``, in float32 at least.

    No factor T^2, and rows need not sum to 1: as in FKD's released code.

    Args:
        logits: (N, C).
        labels: dense (N, C), or sparse; no gradient is asked of them.
        temperature: divides the logits.

    Returns:
        A scalar.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if temperature != 1:
        logits = logits / temperature
    if isinstance(labels, Tensor):
        if labels.shape != logits.shape:
            raise UserError(f'labels of {tuple(labels.shape)} for logits of {tuple(logits.shape)}')
        return F.cross_entropy(logits, labels.to(logits.dtype))
    if len(labels) != len(logits):
        raise UserError(f'{len(labels)} labels for logits of {tuple(logits.shape)}')
    return _SparseCrossEntropy.apply(
        logits, labels.ids, labels.weights.to(logits.dtype), labels.rest.to(logits.dtype)
    )


class _SparseCrossEntropy(torch.autograd.Function):
    """The mean of ``-sum_i w_i lp_i - rest * sum_c lp_c`` with lp = log_softmax(logits), and its gradient.

    By hand, in as few passes over (N, C) as there can be: lp itself is never written.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, ids: Tensor, weights: Tensor, rest: Tensor) -> Tensor:
        shifted = logits - logits.amax(dim=1, keepdim=True)
        named, every = shifted.gather(1, ids), shifted.sum(1)
        exp = shifted.exp_()
        total = exp.sum(1)
        log_total = total.log()  # lp = shifted - log_total
        ctx.save_for_backward(exp, total, ids, weights, rest)
        rows = (weights * (named - log_total[:, None])).sum(1)
        return -(rows + rest * (every - logits.shape[1] * log_total)).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        exp, total, ids, weights, rest = ctx.saved_tensors
        scale = grad / len(exp)
        mass = weights.sum(1) + rest * exp.shape[1]  # of a label: 1 but for rounding and odd labels
        result = exp.mul((scale * mass / total)[:, None]).sub_((scale * rest)[:, None])
        return result.scatter_add_(1, ids, -scale * weights), None, None, None
