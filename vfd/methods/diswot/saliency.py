"""Zero-cost proxies that sum over weights: one number for every convolution and linear layer, in module order.

Sources: SNIP (arXiv 1810.02340), GraSP (arXiv 2002.07376), SynFlow (arXiv 2006.05467), Fisher (arXiv 1801.05787), as
collected in "Zero-Cost Proxies for Lightweight NAS" (arXiv 2101.08134). The network is in training mode as the caller
left it (see :func:`~vfd.methods.diswot.networks.batch_statistics`) and its weights are not changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def weight_layers(network: nn.Module) -> list[nn.Conv2d | nn.Linear]:
    """Return the convolutions and linear layers."""
    return [module for module in network.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]


@contextmanager
def _free_weights(network: nn.Module) -> Iterator[list[Tensor]]:
    """Yield the layers' weights as leaves that require a gradient; flags and gradients are restored."""
    parameters = list(network.parameters())
    before = [(p.requires_grad, p.grad) for p in parameters]
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        yield [layer.weight for layer in weight_layers(network)]
    finally:
        for parameter, (flag, gradient) in zip(parameters, before, strict=True):
            parameter.requires_grad_(flag)
            parameter.grad = gradient


def _gradients(value: Tensor, weights: Sequence[Tensor], create_graph: bool = False) -> list[Tensor]:
    found = torch.autograd.grad(value, weights, create_graph=create_graph, allow_unused=True)
    return [torch.zeros_like(w) if g is None else g for w, g in zip(weights, found, strict=True)]


def loss_saliencies(network: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Compute ``snip``, ``plain``, ``grad_norm`` and ``l2_norm`` from one backward pass.

    Args:
        network: classifier, images (B, 3, H, W) to logits (B, K).
        images: (B, 3, H, W).
        labels: (B,).

    Returns:
        Name -> (layers,): sum |w dL/dw|; sum w dL/dw; norm of dL/dw; norm of w.
    """
    with _free_weights(network) as weights:
        gradients = _gradients(F.cross_entropy(network(images), labels), weights)
    with torch.no_grad():
        products = [w * g for w, g in zip(weights, gradients, strict=True)]
        return {
            'snip': torch.stack([p.abs().sum() for p in products]),
            'plain': torch.stack([p.sum() for p in products]),
            'grad_norm': torch.stack([g.norm() for g in gradients]),
            'l2_norm': torch.stack([w.norm() for w in weights]),
        }


def whole_gradient_norm(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Compute Zen-NAS's variant: one norm over the gradients of all parameters."""
    with _free_weights(network):
        parameters = list(network.parameters())
        gradients = _gradients(F.cross_entropy(network(images), labels), parameters)
    return torch.stack([g.square().sum() for g in gradients]).sum().sqrt()


def grasp(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Compute (layers,): sum of -w (H g), temperature 1; the classifier's bias and the norms are constants."""
    with _free_weights(network) as weights:
        loss = F.cross_entropy(network(images), labels)
        gradients = _gradients(loss, weights, create_graph=True)
        inner = torch.stack([(g.detach() * g).sum() for g in gradients]).sum()
        hessian = _gradients(inner, weights)
    with torch.no_grad():
        return torch.stack([-(w * h).sum() for w, h in zip(weights, hessian, strict=True)])


def fisher(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Compute (layers,): sum over channels of ``0.5 mean_B (sum_hw a da)^2``, a the output, counted once a weight.

    Positions are pixels, or the tokens of a linear layer.
    """
    layers = weight_layers(network)
    outputs: dict[nn.Module, Tensor] = {}
    handles = [layer.register_forward_hook(_keeper(outputs)) for layer in layers]
    try:
        with _free_weights(network):
            loss = F.cross_entropy(network(images), labels)
            used = [layer for layer in layers if layer in outputs]
            gradients = torch.autograd.grad(loss, [outputs[layer] for layer in used], allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
    values = dict.fromkeys(layers, images.new_zeros(()))
    for layer, gradient in zip(used, gradients, strict=True):
        if gradient is not None:
            product = outputs[layer].detach() * gradient
            # per image and channel: of tokens and windows the channel is last, and images come first
            if isinstance(layer, nn.Conv2d):
                product = product.flatten(2).sum(2)
            else:
                product = product.reshape(len(images), -1, product.shape[-1]).sum(1)
            values[layer] = 0.5 * product.square().mean(0).sum() * layer.weight[0].numel()
    return torch.stack([values[layer] for layer in layers])


def _keeper(outputs: dict[nn.Module, Tensor]) -> Callable[[nn.Module, object, Tensor], Tensor]:
    def keep(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        outputs[module] = output
        return output.clone()  # an in-place operation behind the layer must not change what was kept

    return keep


def synflow(network: nn.Module, images: Tensor, keep_norms: bool = False) -> Tensor:
    """Compute (layers,): sum |w dR/dw|, weights and buffers positive, R the sum of the logits for an image of ones.

    In float64: without batch norm the numbers grow with every layer.

    Args:
        network: classifier.
        images: (B, 3, H, W); only their size counts.
        keep_norms: leave batch norm in (``synflow_bn``).
    """
    dtypes = {name: tensor.dtype for name, tensor in network.state_dict().items()}
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    norms = [] if keep_norms else [m for m in network.modules() if isinstance(m, _BatchNorm)]
    try:
        network.double()
        with torch.no_grad():
            for tensor in network.state_dict().values():
                tensor.abs_()
        for norm in norms:
            norm.forward = _identity  # type: ignore
        with _free_weights(network) as weights:
            ones = torch.ones(1, *images.shape[1:], dtype=torch.float64, device=images.device)
            gradients = _gradients(network(ones).sum(), weights)
        with torch.no_grad():
            return torch.stack([(w * g).abs().sum() for w, g in zip(weights, gradients, strict=True)])
    finally:
        for norm in norms:
            del norm.forward
        network.to(next(dtype for dtype in dtypes.values() if dtype.is_floating_point))
        with torch.no_grad():
            for name, tensor in network.state_dict().items():
                tensor.copy_(state[name])


def _identity(x: Tensor) -> Tensor:
    return x
