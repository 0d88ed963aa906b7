"""A linear classifier on the pooled features of any other source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

from torch import Tensor, nn

from vfd.errors import UserError
from vfd.registry import MODELS
from vfd.teachers.normalization import Normalization


@MODELS.register_module()
class LinearHeadSource:
    """Logits of a network that has no classifier for your classes; ``vfd fit-teacher`` writes its weights.

    Args:
        source: config of the network, which has the tap ``pooled``.
        num_classes: C; read from the weight file.
        feature_dim: D, width of the pooled features; read from the weight file.
        taps: ``logits``, and those of the network.
        pretrained: refused: a published network has no such classifier.

    Raises:
        UserError: ``num_classes`` or ``feature_dim`` is known neither from the file nor from the config.
    """

    def __init__(
        self,
        source: dict,
        num_classes: int | None = None,
        feature_dim: int | None = None,
        taps: Sequence[str] = ('logits',),
        pretrained: bool = False,
    ) -> None:
        if pretrained or num_classes is None or feature_dim is None:
            raise UserError(
                'LinearHeadSource: give the file that vfd fit-teacher wrote as checkpoint=..., it holds the classes '
                f'(num_classes={num_classes}, feature_dim={feature_dim}, pretrained={pretrained})'
            )
        inner = [tap for tap in taps if tap != 'logits']
        self._taps = inner if 'logits' not in taps or 'pooled' in inner else [*inner, 'pooled']
        self._body: Any = MODELS.build(dict(source), default_args={'taps': tuple(self._taps)})
        self.name: str = f'{self._body.name} with a linear head'
        self.num_classes: int | None = num_classes
        self.normalization: Normalization | None = self._body.normalization
        self.reads: Set[str] = self._body.reads
        self.network = nn.ModuleDict(
            {'body': self._body.network, 'head': nn.Linear(feature_dim, num_classes)}
        )
        if 'logits' not in taps:
            self.network.pop('head')
            self.num_classes = None

    def constants(self) -> dict[str, Tensor]:
        """Return the constants of the network."""
        return self._body.constants() if hasattr(self._body, 'constants') else {}

    def forward_taps(
        self,
        images: Tensor,
        taps: Sequence[str],
        constants: Mapping[str, Tensor] | None = None,
        **inputs: Any,
    ) -> dict[str, Any]:
        """See :class:`~vfd.teachers.sources.source.Source`."""
        given = {**inputs, 'constants': constants} if hasattr(self._body, 'constants') else inputs
        features = self._body.forward_taps(images, self._taps, **given)
        if 'logits' in taps:
            features['logits'] = self.network['head'](features['pooled'])
        return features
