"""DMAE as plain tensors: projectors, the distance between features, and the alternative pixel targets."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vfd.losses.pixel import pixel_target

Distance = Literal['l1', 'l2']
Projector = Literal['fc', 'mlp', 'mlp2']


class MLP(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_features, out_features)
        self.fc2 = nn.Linear(out_features, out_features)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        return self.fc2(F.gelu(self.fc1(x)))


def build_projector(kind: Projector, student_dim: int, teacher_dim: int) -> nn.Module:
    """Build the head that brings student features to the teacher's width.

    Args:
        kind: ``fc`` one linear layer, ``mlp`` an `MLP`, ``mlp2`` two of them (the released file names the last one
            and fails to build it).
        student_dim: width of the student.
        teacher_dim: width of the teacher.
    """
    if kind == 'fc':
        return nn.Linear(student_dim, teacher_dim)
    if kind == 'mlp':
        return MLP(student_dim, teacher_dim)
    return nn.Sequential(MLP(student_dim, teacher_dim), MLP(teacher_dim, teacher_dim))


def feature_distance(
    student: Tensor, teacher: Tensor, distance: Distance = 'l1', normalize: bool = True
) -> Tensor:
    """Compute the distance of the student's features from the teacher's (arXiv 2208.12256, section 3).

    Args:
        student: (B, N, D), already projected to the teacher's width.
        teacher: (B, N, D); gets no gradient.
        distance: ``l1`` mean absolute or ``l2`` mean squared difference, over batch, tokens and channels.
        normalize: bring every token of both sides to length 1 first, as the released code does.

    Returns:
        A scalar, computed in at least float32.
    """
    dtype = torch.promote_types(student.dtype, torch.float32)
    student, teacher = student.to(dtype), teacher.detach().to(dtype)
    if normalize:
        student, teacher = F.normalize(student, dim=-1), F.normalize(teacher, dim=-1)
    return F.l1_loss(student, teacher) if distance == 'l1' else F.mse_loss(student, teacher)


Target = Literal[
    'image', 'teacher', 'difference', 'weighted', 'disentangled', 'mixup_disentangled'
]  # fmt: skip
TARGETS: tuple[Target, ...] = (
    'image', 'teacher', 'difference', 'weighted', 'disentangled', 'mixup_disentangled',
)  # fmt: skip
OUTPUTS = {'disentangled': 2, 'mixup_disentangled': 3}  # pixel predictions side by side; 1 for all others


def reconstruction_target(
    kind: Target,
    images: Tensor,
    patch_size: int,
    *,
    norm_pix: bool = False,
    teacher_pixels: Tensor | None = None,
    weights: tuple[float, float] = (0.5, 0.5),
    index: Tensor | None = None,
) -> Tensor:
    """Compute the target of the student's pixel head. ``image`` is the published target, the others are optional.

    With t the patches of the image and q the teacher's prediction:

    - ``image``: t
    - ``teacher``: q
    - ``difference``: t - q
    - ``weighted``: a t + b q
    - ``disentangled``: t and q side by side
    - ``mixup_disentangled``: the patches of the image, of its partner in the batch (the batch in reverse order) and of
      the mean of both, side by side

    Args:
        kind: one of the above.
        images: (B, 3, H, W).
        patch_size: side p of a patch.
        norm_pix: normalise the patches of images.
        teacher_pixels: (B, L, p*p*3), q, for the kinds that need it.
        weights: a and b.
        index: (B, K) patches wanted; None takes all.

    Returns:
        (B, K or L, p*p*3 times ``OUTPUTS``).
    """

    def patches(batch: Tensor) -> Tensor:
        return pixel_target(batch, patch_size, norm_pix, index)

    if kind == 'image':
        return patches(images)
    if kind == 'mixup_disentangled':
        partner = images.flip(0)
        return torch.cat([patches(images), patches(partner), patches((images + partner) / 2)], dim=-1)
    assert teacher_pixels is not None, kind
    predicted = teacher_pixels
    if index is not None:
        predicted = predicted.gather(1, index[:, :, None].expand(-1, -1, predicted.shape[-1]))
    if kind == 'teacher':
        return predicted
    if kind == 'difference':
        return patches(images) - predicted
    if kind == 'weighted':
        return weights[0] * patches(images) + weights[1] * predicted
    return torch.cat([patches(images), predicted], dim=-1)
