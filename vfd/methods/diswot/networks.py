"""Outputs of an untrained network for the scores: maps, pooled vector, logits; and the untrained weights.

Supported are networks with timm's ``forward_features`` and ``forward_head`` (all of timm, and the ones of
:mod:`vfd.backbones`), and mmpretrain's ``ImageClassifier`` with a linear head.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vfd.errors import UserError


@dataclass(frozen=True)
class NetworkOutputs:
    """Outputs of one batch.

    Attributes:
        features: (B, C, H, W), or (B, C, N) of tokens: what the pooling reads. (B, C) where a network gives no map.
        pooled: (B, C), what the classifier reads.
        logits: (B, K).
        stages: maps of the stages, with ``stages=True``.
    """

    features: Tensor
    pooled: Tensor
    logits: Tensor
    stages: tuple[Tensor, ...] = ()

    def double(self) -> NetworkOutputs:
        """Convert to float64."""
        return NetworkOutputs(
            self.features.double(), self.pooled.double(), self.logits.double(),
            tuple(stage.double() for stage in self.stages),
        )  # fmt: skip

    @property
    def finite(self) -> bool:
        """Whether no number is NaN or infinite."""
        return all(bool(t.isfinite().all()) for t in (self.features, self.pooled, self.logits))


def plain_network(network: nn.Module) -> Any:
    """Return the network of timm inside mmpretrain's ``TimmClassifier``; any other network as it is."""
    inner = getattr(network, 'model', None)
    return inner if isinstance(inner, nn.Module) and hasattr(inner, 'forward_features') else network


def linear_classifier(network: nn.Module) -> nn.Linear:
    """Return the last linear layer of a classifier.

    Raises:
        UserError: there is none, or something else gives the classes.
    """
    network = plain_network(network)
    if hasattr(network, 'get_classifier'):
        found = cast(Any, network).get_classifier()
    else:
        found = getattr(getattr(network, 'head', None), 'fc', None)
    if not isinstance(found, nn.Linear):
        raise UserError(
            f'{type(network).__name__} has no linear classifier with a batch of vectors before it, which the semantic '
            'metric needs. Score with "relation".'
        )
    return found


def compute_outputs(network: nn.Module, images: Tensor, stages: bool = False) -> NetworkOutputs:
    """Run one forward pass.

    Args:
        network: see the module.
        images: (B, 3, H, W).
        stages: whether to return the maps of the stages too.
    """
    network = plain_network(network)
    if hasattr(network, 'forward_head'):
        timm_like = cast(Any, network)
        maps: tuple[Tensor, ...] = ()
        if stages:
            if not hasattr(timm_like, 'forward_intermediates'):
                raise UserError(f'{type(network).__name__} does not give the maps of its stages')
            features, found = timm_like.forward_intermediates(images)
            maps = tuple(found)
        else:
            features = timm_like.forward_features(images)
        _check_tensor(timm_like, features)
        pooled = timm_like.forward_head(features, pre_logits=True)
        classifier = timm_like.get_classifier()
        logits = classifier(pooled) if isinstance(classifier, nn.Linear) else timm_like.forward_head(features)
        return NetworkOutputs(_channels_first(timm_like, features), pooled, logits, maps)
    if hasattr(network, 'extract_feat') and hasattr(network, 'backbone'):
        classifier = cast(Any, network)
        outputs = classifier.extract_feat(images, stage='backbone')
        _check_tensor(classifier.backbone, outputs[-1])
        necked = classifier.neck(outputs) if classifier.with_neck else outputs
        pooled = classifier.head.pre_logits(necked)
        last = _channels_first(classifier.backbone, outputs[-1])
        return NetworkOutputs(last, pooled, classifier.head(necked), tuple(outputs) if stages else ())
    raise UserError(
        f"{type(network).__name__} cannot be scored: it is neither a network of timm nor mmpretrain's ImageClassifier"
    )


def _check_tensor(network: nn.Module, features: object) -> None:
    if not isinstance(features, Tensor):
        raise UserError(
            f'{type(network).__name__} gives several maps instead of one before its pooling: it cannot be scored'
        )


def _channels_first(network: nn.Module, features: Tensor) -> Tensor:
    """Move the channels of a map of timm's, (B, C, H, W), (B, H, W, C) or tokens (B, N, C), behind B."""
    last = features.ndim == 3 or str(getattr(network, 'output_fmt', '')).endswith('NHWC')
    return features.movedim(-1, 1) if last else features


@contextmanager
def batch_statistics(network: nn.Module, update: bool = False) -> Iterator[None]:
    """Normalise with the batch in batch norm, all else in eval mode; everything is restored afterwards.

    Dropout and drop path stay off, so that a score depends on weights and images alone.

    Args:
        network: any module.
        update: let the running statistics move (some proxies read them); they are put back too.
    """
    modes = {module: module.training for module in network.modules()}
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    tracked = [norm.track_running_stats for norm in norms]
    saved = [{k: v.clone() for k, v in norm.named_buffers(recurse=False)} for norm in norms] if update else []
    network.eval()
    for norm in norms:
        norm.train()
        norm.track_running_stats = norm.track_running_stats and update
    try:
        yield
    finally:
        for norm, flag in zip(norms, tracked, strict=True):
            norm.track_running_stats = flag
        for norm, buffers in zip(norms, saved, strict=False):
            for name, value in buffers.items():
                getattr(norm, name).copy_(value)
        for module, mode in modes.items():
            module.training = mode


@torch.no_grad()
def gaussian_init(network: nn.Module, seed: int | None = None) -> None:
    """Draw weights of convolutions and linear layers from N(0, 1), in module order; biases 0; norms 1 and 0.

    As DisWOT does it: not scaled by the number of inputs. Other parameters, such as position tables, stay.

    Args:
        network: on the CPU, so that a seed gives the same weights whatever device they are moved to.
        seed: of the draws; None takes torch's generator.
    """
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, (nn.modules.conv._ConvNd, nn.Linear)):
            module.weight.normal_(generator=generator)
        elif isinstance(module, (_BatchNorm, nn.GroupNorm, nn.LayerNorm)):
            if module.weight is not None:
                module.weight.fill_(1)
        else:
            continue
        if module.bias is not None:
            module.bias.zero_()
