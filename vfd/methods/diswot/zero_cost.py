"""Zero-cost proxies by name: one batch through one untrained network; larger is better, as published.

    values, layers = zero_cost(network, images, labels, ['nwot', 'snip'])

What shares a forward or backward pass runs it once. The network's weights, batch-norm statistics, modes and gradient
flags are afterwards what they were.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vfd.errors import UserError, did_you_mean
from vfd.methods.diswot import activations, saliency
from vfd.methods.diswot.core import check_labels
from vfd.methods.diswot.networks import batch_statistics

LAYERED = ('synflow', 'synflow_bn', 'snip', 'grasp', 'grad_norm', 'fisher', 'l2_norm', 'plain')
ZERO_COST = (
    *('nwot', 'jacov', 'epe_nas'), *LAYERED, *('zen', 'bn_score', 'gradnorm_zennas', 'synflow_zennas'),
)  # fmt: skip
GAUSSIAN = ('zen', 'bn_score')  # meant for weights from N(0, 1)
LABELLED = ('snip', 'grasp', 'grad_norm', 'fisher', 'l2_norm', 'plain', 'gradnorm_zennas', 'epe_nas')


def zero_cost(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    names: Collection[str] = ZERO_COST,
    noise: tuple[Tensor, Tensor] | None = None,
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Compute the proxies of one network.

    Args:
        network: a classifier with the weights to be scored.
        images: (B, 3, H, W).
        labels: (B,).
        names: some of ``ZERO_COST``.
        noise: two batches of standard normal numbers for ``zen`` and ``bn_score``; None draws them.

    Returns:
        Name -> value; and for those of ``LAYERED`` name -> (layers,), whose sum is the value.

    Raises:
        UserError: an unknown name, or a label that is no class.
    """
    for name in names:
        if name not in ZERO_COST:
            raise UserError(f'zero-cost proxy "{name}" is unknown{did_you_mean(name, ZERO_COST)}')
    with torch.inference_mode(False), torch.enable_grad():
        with batch_statistics(network):
            if set(LABELLED) & set(names):
                with torch.no_grad():
                    classes = network(images).shape[1]
                check_labels(labels, classes)
                if 'epe_nas' in names and classes > 100:
                    raise UserError(
                        f'epe_nas is defined for 100 classes or fewer, the network has {classes}; take jacov'
                    )
            layers = _layered(network, images, labels, names)
            values = _whole(network, images, labels, names, layers)
        if set(GAUSSIAN) & set(names):
            if 'bn_score' in names and not any(isinstance(m, _BatchNorm) for m in network.modules()):
                raise UserError(
                    f'bn_score reads the variances of batch norms, and {type(network).__name__} has none'
                )
            first, second = noise or (torch.randn_like(images), torch.randn_like(images))
            with batch_statistics(network, update=True):
                zen, bn_score = activations.zen(network, first, second)
            values |= {'zen': float(zen), 'bn_score': float(bn_score)}
    values |= {name: float(layer.sum()) for name, layer in layers.items()}
    return {n: values[n] for n in names}, {n: layers[n] for n in names if n in layers}


def _layered(network: nn.Module, images: Tensor, labels: Tensor, names: Collection[str]) -> dict[str, Tensor]:
    layers: dict[str, Tensor] = {}
    if {'snip', 'plain', 'grad_norm', 'l2_norm'} & set(names):
        layers |= saliency.loss_saliencies(network, images, labels)
    if 'grasp' in names:
        layers['grasp'] = saliency.grasp(network, images, labels)
    if 'fisher' in names:
        layers['fisher'] = saliency.fisher(network, images, labels)
    if 'synflow' in names:
        layers['synflow'] = saliency.synflow(network, images)
    if {'synflow_bn', 'synflow_zennas'} & set(names):
        layers['synflow_bn'] = saliency.synflow(network, images, keep_norms=True)
    return layers


def _whole(
    network: nn.Module, images: Tensor, labels: Tensor, names: Collection[str], layers: dict[str, Tensor]
) -> dict[str, float]:
    values: dict[str, float] = {}
    if 'nwot' in names:
        values['nwot'] = float(activations.nwot(network, images))
    if {'jacov', 'epe_nas'} & set(names):
        jacobian = activations.input_jacobian(network, images)
        if 'jacov' in names:
            values['jacov'] = float(activations.jacov(jacobian))
        if 'epe_nas' in names:
            values['epe_nas'] = float(activations.epe_nas(jacobian, labels))
    if 'gradnorm_zennas' in names:
        values['gradnorm_zennas'] = float(saliency.whole_gradient_norm(network, images, labels))
    if 'synflow_zennas' in names:  # Zen-NAS's flavour: minus the sum over layers of the mean over outputs
        outputs = [len(layer.weight) for layer in saliency.weight_layers(network)]
        values['synflow_zennas'] = -sum(
            float(value) / count for value, count in zip(layers['synflow_bn'], outputs, strict=True)
        )
    return values
