"""Metadata of a teacher's weights, in the weight file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from vfd.errors import UserError

from .normalization import Normalization

KEY = 'vfd_teacher'


@dataclass(frozen=True)
class TeacherCard:
    """Settings of a teacher under which its accuracy was measured.

    Attributes:
        source: options of the source without which the file does not load, such as ``num_classes``.
        input_size: side in pixels of its images.
        bn: ``eval`` or ``train``, see :class:`vfd.Teacher`.
        normalization: of these images.
        classes: names, in the order of the logits.
        accuracy: top-1 on images that were held out, 0 to 1.
        held_out: number of these images.
    """

    source: dict[str, Any] = field(default_factory=dict)
    input_size: int | None = None
    bn: str | None = None
    normalization: Normalization | None = None
    classes: tuple[str, ...] | None = None
    accuracy: float | None = None
    held_out: int | None = None

    def metadata(self) -> dict[str, str]:
        """Return entries for the metadata of a safetensors file, or for ``meta`` of a torch file."""
        return {KEY: json.dumps({name: value for name, value in asdict(self).items() if value is not None})}

    @classmethod
    def read(cls, meta: Mapping[str, Any], file: str) -> TeacherCard:
        """Read what :meth:`metadata` wrote; an empty card for a file without it.

        Args:
            meta: what :func:`vfd.checkpoints.load_state` found beside the weights.
            file: for messages.

        Raises:
            UserError: the entry is not a card.
        """
        entry = meta.get(KEY, {})
        try:
            values = dict(json.loads(entry) if isinstance(entry, str) else entry)
            if (norm := values.pop('normalization', None)) is not None:
                norm = Normalization(tuple(norm['mean']), tuple(norm['std']), norm['rgb'])
            if (classes := values.pop('classes', None)) is not None:
                classes = tuple(map(str, classes))
            card = cls(normalization=norm, classes=classes, **values)
            if card.bn not in (None, 'eval', 'train') or not isinstance(card.source, dict):
                raise ValueError(f'bn={card.bn!r}, source={card.source!r}')
            return card
        except (TypeError, ValueError, KeyError) as error:
            raise UserError(
                f'{file}: its metadata entry "{KEY}" cannot be read ({error}); write the file anew with vfd fit-teacher'
            ) from None

    def summary(self) -> dict[str, str]:
        """Return rows for the dry run."""
        if self.accuracy is None:
            return {}
        return {
            'teacher accuracy': f'{self.accuracy:.3f} on {self.held_out} held-out images, when it was made'
        }
