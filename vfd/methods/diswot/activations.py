"""Zero-cost proxies from activations: codes of ReLUs, Jacobians, sensitivity to noise, batch-norm variances.

Sources: NASWOT (arXiv 2006.04647; ``nwot``, ``jacov`` is its first version), EPE-NAS (arXiv 2102.08099), Zen-NAS (arXiv
2102.01063). The network is in training mode as the caller left it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vfd.errors import UserError
from vfd.methods.diswot.networks import compute_outputs

K = 1e-5  # keeps the logarithms finite
NOISE = 0.01


@torch.no_grad()
def nwot(network: nn.Module, images: Tensor) -> Tensor:
    """Compute ``log |det K|``, K = sum over ReLU inputs of ``x x^T + (1-x)(1-x)^T`` with x = input > 0, (B, B).

    Counted are modules with ReLU in the name of their class, as in the released code: in NAS-Bench-201 the ReLUConvBN
    counts beside the ReLU inside it, and a ReLU that is called as a function does not.
    """
    kernel = torch.zeros(len(images), len(images), dtype=torch.float64, device=images.device)

    def add(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        code = (inputs[0].detach() > 0).flatten(1).float()
        ones = code.sum(1)
        # x y + (1-x)(1-y) = n - x - y + 2 x y, one product instead of two
        agree = code.shape[1] - ones[:, None] - ones[None] + 2 * (code @ code.T)
        kernel.add_(agree.double())

    relus = [module for module in network.modules() if 'ReLU' in type(module).__name__]
    if not relus:
        raise UserError(f'nwot reads the signs before ReLUs, and {type(network).__name__} has none')
    handles = [module.register_forward_pre_hook(add) for module in relus]
    try:
        network(images)
    finally:
        for handle in handles:
            handle.remove()
    return torch.linalg.slogdet(kernel).logabsdet


def input_jacobian(network: nn.Module, images: Tensor) -> Tensor:
    """Compute the gradient of the sum of all logits with respect to the images, (B, 3 H W), in float64."""
    images = images.detach().clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(network(images).sum(), images)
    return gradient.flatten(1).double()


def jacov(jacobian: Tensor) -> Tensor:
    """Compute ``-sum log(v + k) + 1 / (v + k)`` over the eigenvalues of the correlations of the Jacobian's rows."""
    values = torch.linalg.eigvalsh(torch.corrcoef(jacobian))
    return -((values + K).log() + 1 / (values + K)).sum()


def epe_nas(jacobian: Tensor, labels: Tensor) -> Tensor:
    """Compute ``sum_classes |sum log(|corr| + k)|`` over the correlations inside each class (100 classes or fewer)."""
    total = jacobian.new_zeros(())
    for label in labels.unique():
        rows = jacobian[labels == label]
        correlation = torch.corrcoef(rows) if len(rows) > 1 else rows.new_ones(1, 1)
        total += (correlation.abs() + K).log().sum().abs()
    return total


@torch.no_grad()
def bn_variance(network: nn.Module) -> Tensor:
    """Compute ``sum log sqrt(mean running_var)`` over the batch norms, as their statistics are now."""
    terms = [m.running_var.double().mean().sqrt().log() for m in network.modules() if _tracks(m)]  # type: ignore
    return torch.stack(terms).sum() if terms else torch.zeros((), dtype=torch.float64)


@torch.no_grad()
def zen(network: nn.Module, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the Zen score on Gaussian images, and the released list's ``bn_score`` (or "diswot").

    ``log mean_B sum |f(x) - f(x + 0.01 e)| + sum log sqrt(mean running_var)``, f the map before the pooling. The
    running variances start at 1 and move with every pass; the network must let them
    (``batch_statistics(network, update=True)``).

    Args:
        network: its weights are to come from N(0, 1).
        images: (B, 3, H, W) of standard normal numbers, x.
        noise: the same, e.

    Returns:
        The Zen score, after both passes; the variances' term alone, after the first.
    """
    for module in network.modules():
        if _tracks(module):
            module.reset_running_stats()  # type: ignore[operator]
    first = compute_outputs(network, images).features
    bn_score = bn_variance(network)
    second = compute_outputs(network, images + NOISE * noise).features
    difference = (first - second).abs().double().flatten(1).sum(1).mean()
    return difference.log() + bn_variance(network), bn_score


def _tracks(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.running_var is not None
