"""The protocol of timm's networks, for vfd's networks that are built through ``timm.create_model``.

Such a network is a student of mmpretrain's ``TimmClassifier``, a teacher of
:class:`vfd.TimmSource`, and exportable by ``vfd export``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from timm.models import register_model
from torch import Tensor, nn

# CIFAR's own channel statistics (RGB in 0..1), the usual ones of CIFAR-100 recipes.
CIFAR_MEAN, CIFAR_STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ClassifierNetwork(nn.Module):
    """Feature map, mean over its positions, linear classifier.

    A child sets ``num_features``, ``feature_info``, ``pretrained_cfg`` and the classifier, and writes
    :meth:`stage_maps`.
    """

    classifier_name: str
    num_features: int
    feature_info: list[dict[str, Any]]
    pretrained_cfg: dict[str, Any]

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    def stage_maps(self, x: Tensor) -> list[Tensor]:
        """Return the map of every stage, (B, C, H, W); the last one is what is pooled."""
        raise NotImplementedError

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the map before the pooling, (B, C, H, W)."""
        return self.stage_maps(x)[-1]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Turn that map into logits (B, K), or into the pooled vectors (B, C)."""
        pooled = x.mean((2, 3))
        return pooled if pre_logits else self.get_classifier()(pooled)

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits (B, K) of images (B, 3, H, W)."""
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = 'NCHW',
        intermediates_only: bool = False,
    ) -> Any:
        """Return the maps of some stages, and the last map unless ``intermediates_only``; as timm's networks do.

        ``norm`` and ``stop_early`` change nothing: the maps are normalised as they are, and the whole network costs
        little.
        """
        assert output_fmt == 'NCHW', output_fmt
        maps = self.stage_maps(x)
        count = len(maps)
        if indices is None:
            wanted: Sequence[int] = range(count)
        else:
            wanted = range(count - indices, count) if isinstance(indices, int) else indices
        chosen = [maps[index] for index in wanted]
        return chosen if intermediates_only else (maps[-1], chosen)

    def get_classifier(self) -> nn.Module:
        """Return the linear classifier."""
        return getattr(self, self.classifier_name)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier, or remove it for 0 classes."""
        assert global_pool in (None, 'avg'), global_pool
        self.num_classes = num_classes
        head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        setattr(self, self.classifier_name, head)


def network_cfg(
    num_classes: int, input_size: int, first_conv: str, classifier: str, cifar: bool = True
) -> dict[str, Any]:
    """Return timm's ``pretrained_cfg`` of a network that has no published weights."""
    mean, std = (CIFAR_MEAN, CIFAR_STD) if cifar else (IMAGENET_MEAN, IMAGENET_STD)
    return {
        'url': '', 'num_classes': num_classes, 'input_size': (3, input_size, input_size), 'fixed_input_size': False,
        'pool_size': None, 'crop_pct': 1.0, 'interpolation': 'bilinear', 'mean': mean, 'std': std,
        'first_conv': first_conv, 'classifier': classifier,
    }  # fmt: skip


def without_timms_own(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of an entry point without those that ``timm.create_model`` adds."""
    return {
        name: value
        for name, value in arguments.items()
        if name not in ('pretrained', 'pretrained_cfg', 'pretrained_cfg_overlay', 'cache_dir')
    }


__all__ = ['ClassifierNetwork', 'network_cfg', 'register_model', 'without_timms_own']
