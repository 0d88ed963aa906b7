"""Distillation of dense predictions: class maps before they are resized.

Sources: "Channel-wise Knowledge Distillation for Dense Prediction", arXiv 2011.13256, and the segmentation stage of
"Generic-to-Specific Distillation of Masked Autoencoders", arXiv 2302.14771, in the form of the latter's released code.
B images, C channels (classes), maps of H x W positions.

    >>> loss = ChannelWiseLoss('cwd')
    >>> loss(student_logits, teacher_logits).backward()
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vfd.errors import UserError, did_you_mean


def channel_wise(
    student: Tensor, teacher: Tensor, temperature: float = 1.0, channels: int | None = None
) -> Tensor:
    """Compute the cross-entropy of each channel's softmax over the positions.

    ``tau^2 / (C B) * sum -softmax(T / tau) log_softmax(S / tau)``. It is a cross-entropy and no divergence: its minimum
    is ``tau^2`` times the mean entropy of the teacher's channels and not zero.

    Args:
        student: (B, C, H, W).
        teacher: (B, C, H, W); it gets no gradient.
        temperature: tau.
        channels: the divisor C; None takes that of the maps.

    Returns:
        A scalar.
    """
    log_ours = (student.flatten(2) / temperature).log_softmax(-1)
    target = (teacher.detach().flatten(2) / temperature).softmax(-1)
    return -(target * log_ours).sum() * (temperature**2 / (len(student) * (channels or student.shape[1])))


def pixel_wise_kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Compute the KL divergence of each position's softmax over the channels.

    As released it is the mean over all elements, so C times smaller than the usual mean over positions, times
    ``tau^2``. Arguments as `channel_wise`.
    """
    log_ours = (student / temperature).log_softmax(1)
    target = (teacher.detach() / temperature).softmax(1)
    return F.kl_div(log_ours, target, reduction='none').mean() * temperature**2


class ChannelWiseLoss(nn.Module):
    """One of the losses above as a module, in float32 at least.

    Args:
        mode: ``cwd`` (`channel_wise`) or ``kl`` (`pixel_wise_kl`).
        temperature: tau.
        loss_weight: factor of the result; 3 as in the authors' instructions (their config file says 10).
        align: channels (student, teacher) where they differ: a 1x1 convolution trained with the student takes its
            maps to the teacher's channels. None compares channel by channel.

    Raises:
        UserError: a setting out of range.
    """

    modes = ('cwd', 'kl')

    def __init__(
        self,
        mode: str = 'cwd',
        temperature: float = 1.0,
        loss_weight: float = 3.0,
        align: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        if mode not in self.modes:
            hint = did_you_mean(mode, self.modes)
            raise UserError(f'ChannelWiseLoss: mode={mode!r} is not one of {list(self.modes)}{hint}')
        if temperature <= 0:
            raise UserError(f'ChannelWiseLoss: temperature={temperature} must be greater than 0')
        self.mode = mode
        self.temperature = temperature
        self.loss_weight = loss_weight
        self.align = nn.Conv2d(*align, kernel_size=1) if align else None

    def channels(self, student: int) -> int:
        """Return how many channels the teacher must have for a student with ``student`` channels.

        Raises:
            UserError: ``align`` is for another student.
        """
        if self.align is None:
            return student
        if self.align.in_channels != student:
            raise UserError(
                f'ChannelWiseLoss: align=({self.align.in_channels}, {self.align.out_channels}), but the student has '
                f'{student} channels'
            )
        return self.align.out_channels

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compare maps of logits.

        Args:
            student: (B, Cs, H, W).
            teacher: (B, Ct, H, W).

        Returns:
            A scalar.

        Raises:
            UserError: maps of different channels or sizes.
        """
        aligned = student if self.align is None else self.align(student)
        if aligned.shape != teacher.shape:
            raise UserError(
                f'The maps of the student are {tuple(aligned.shape)}, those of the teacher {tuple(teacher.shape)} '
                '(batch, channels, height, width). Both need the same input size, the same stride and the same '
                f'classes; for other classes give the loss align=({student.shape[1]}, {teacher.shape[1]}).'
            )
        with torch.autocast(student.device.type, enabled=False):
            student_maps, teacher_maps = (
                maps.to(torch.promote_types(maps.dtype, torch.float32)) for maps in (aligned, teacher)
            )
            if self.mode == 'kl':
                return self.loss_weight * pixel_wise_kl(student_maps, teacher_maps, self.temperature)
            # The released code divides by the student's own channels, also behind the convolution.
            return self.loss_weight * channel_wise(
                student_maps, teacher_maps, self.temperature, student.shape[1]
            )

    def extra_repr(self) -> str:
        """Return the settings, for the printed model."""
        return f'mode={self.mode!r}, temperature={self.temperature}, loss_weight={self.loss_weight}'
