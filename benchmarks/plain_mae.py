"""Masked autoencoders and their distillation in the plainest form: the baseline of ``bench_mae.py``.

Written from the papers' text: every patch is embedded and then the visible ones are gathered, attention is an
explicit softmax, the mask is gathered from a vector of ones and zeros, and whole sequences go through every block,
norm and head, whether their result is read or not. A network is a dictionary of the tensors of a
:class:`vfd.MaskedAutoencoder`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]
Relations = list[tuple[Tensor, ...]]
Masks = tuple[Tensor, Tensor, Tensor]


def linear(x: Tensor, w: Weights, name: str) -> Tensor:
    return F.linear(x, w[f'{name}.weight'], w[f'{name}.bias'])


def norm(x: Tensor, w: Weights, name: str) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], w[f'{name}.weight'], w[f'{name}.bias'], 1e-6)


def block(x: Tensor, w: Weights, name: str, heads: int, relations: Relations | None = None) -> Tensor:
    """Pre-norm attention and MLP: (B, N, D) to (B, N, D); ``relations`` collects queries, keys and values."""
    batch, count, width = x.shape
    qkv = linear(norm(x, w, f'{name}.norm1'), w, f'{name}.attn.qkv')
    query, key, value = qkv.reshape(batch, count, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    scores = query @ key.transpose(-2, -1) * (width // heads) ** -0.5
    mixed = (scores.softmax(dim=-1) @ value).transpose(1, 2).reshape(batch, count, width)
    if relations is not None:
        copies = (part.transpose(1, 2).reshape(batch, count, width) for part in (query, key, value))
        relations.append(tuple(copies))
    x = x + linear(mixed, w, f'{name}.attn.proj')
    hidden = F.gelu(linear(norm(x, w, f'{name}.norm2'), w, f'{name}.mlp.fc1'))
    return x + linear(hidden, w, f'{name}.mlp.fc2')


def blocks(w: Weights, name: str) -> list[str]:
    """Names of a network's blocks, in order."""
    numbers = {int(key.split('.')[1]) for key in w if key.startswith(f'{name}.')}
    return [f'{name}.{k}' for k in sorted(numbers)]


def masks(noise: Tensor, ratio: float) -> Masks:
    """``ids_keep`` (B, K), ``ids_restore`` (B, L), and the mask (B, L), 1 where a patch is hidden."""
    batch, patches = noise.shape
    kept = int(patches * (1 - ratio))
    shuffle = noise.argsort(dim=1)
    ids_restore = shuffle.argsort(dim=1)
    mask = torch.ones(batch, patches, dtype=noise.dtype)
    mask[:, :kept] = 0
    return shuffle[:, :kept], ids_restore, mask.gather(1, ids_restore)


def take(x: Tensor, index: Tensor) -> Tensor:
    return x.gather(1, index.unsqueeze(-1).repeat(1, 1, x.shape[-1]))


def encode(
    images: Tensor, w: Weights, heads: int, ids_keep: Tensor, relations: Relations | None = None
) -> tuple[Tensor, list[Tensor]]:
    """The normalised tokens (B, 1 + K, D), and those after every block."""
    kernel = w['patch_embed.proj.weight']
    patches = F.conv2d(images, kernel, w['patch_embed.proj.bias'], stride=kernel.shape[-1])
    x = take(patches.flatten(2).transpose(1, 2) + w['pos_embed'][:, 1:], ids_keep)
    cls = (w['cls_token'] + w['pos_embed'][:, :1]).expand(len(x), -1, -1)
    x = torch.cat([cls, x], dim=1)
    stream = []
    for name in blocks(w, 'blocks'):
        x = block(x, w, name, heads, relations)
        stream.append(x)
    return norm(x, w, 'norm'), stream


def decode(
    latent: Tensor,
    w: Weights,
    heads: int,
    ids_restore: Tensor,
    depth: int | None = None,
    relations: Relations | None = None,
) -> Tensor:
    """The tokens (B, 1 + L, E) after ``depth`` blocks of the decoder."""
    x = linear(latent, w, 'decoder_embed')
    hidden = w['mask_token'].repeat(len(x), ids_restore.shape[1] + 1 - x.shape[1], 1)
    patches = take(torch.cat([x[:, 1:], hidden], dim=1), ids_restore)
    x = torch.cat([x[:, :1], patches], dim=1) + w['decoder_pos_embed']
    for name in blocks(w, 'decoder_blocks')[:depth]:
        x = block(x, w, name, heads, relations)
    return x


def pixels(tokens: Tensor, w: Weights) -> Tensor:
    return linear(norm(tokens, w, 'decoder_norm'), w, 'decoder_pred')[:, 1:]


def patchify(images: Tensor, size: int) -> Tensor:
    batch, channels, height, width = images.shape
    x = images.reshape(batch, channels, height // size, size, width // size, size)
    return torch.einsum('nchpwq->nhwpqc', x).reshape(batch, -1, size * size * channels)


def dmae_loss(
    images: Tensor, noise: Tensor, ratio: float, student: Weights, teacher: Weights, heads: dict, tap: int
) -> dict[str, Tensor]:
    """Pixels, and the L1 distance of one block after a linear head. The teacher runs to its last layer, as published.

    Args:
        images: (B, 3, H, W).
        noise: (B, L), uniform.
        ratio: of hidden patches.
        student: its tensors, and ``projectors.0`` of the head.
        teacher: its tensors.
        heads: of attention: ``student``, ``teacher`` and ``decoder``.
        tap: block of both networks.
    """
    ids_keep, ids_restore, mask = masks(noise, ratio)
    with torch.no_grad():
        latent, teacher_features = encode(images, teacher, heads['teacher'], ids_keep)
        pixels(decode(latent, teacher, heads['decoder'], ids_restore), teacher)
    latent, stream = encode(images, student, heads['student'], ids_keep)
    predicted = pixels(decode(latent, student, heads['decoder'], ids_restore), student)
    error = (predicted - patchify(images, student['patch_embed.proj.weight'].shape[-1])).square().mean(dim=-1)
    student_features = F.normalize(linear(stream[tap], student, 'projectors.0'), dim=-1)
    distance = (student_features - F.normalize(teacher_features[tap], dim=-1)).abs().mean()
    return {'loss_pixel': (error * mask).sum() / mask.sum(), 'loss_distill': distance}


def g2sd_loss(
    images: Tensor, noise: Tensor, ratio: float, student: Weights, teacher: Weights, heads: dict, layer: int
) -> dict[str, Tensor]:
    """Smooth L1 between the student's decoder and a layer of the teacher's, over all tokens.

    With what the released code computes besides and does not use: copies of the queries, keys and values of all blocks,
    and a head on the encoder whose loss has weight 0.

    Args:
        images: (B, 3, H, W).
        noise: (B, L), uniform.
        ratio: of hidden patches.
        student: its tensors, those of the ``predictor``, and of the ``encoder_predictor`` without use.
        teacher: its tensors.
        heads: of attention: ``student``, ``teacher``, ``decoder`` and ``student_decoder``.
        layer: how many decoder blocks of the teacher run.
    """
    ids_keep, ids_restore, _ = masks(noise, ratio)
    student_relations: Relations = []
    teacher_relations: Relations = []
    with torch.no_grad():
        teacher_latent, _ = encode(images, teacher, heads['teacher'], ids_keep, teacher_relations)
        target = decode(teacher_latent, teacher, heads['decoder'], ids_restore, layer, teacher_relations)
        target = F.layer_norm(target, target.shape[-1:], eps=1e-6)
    latent, _ = encode(images, student, heads['student'], ids_keep, student_relations)
    tokens = decode(latent, student, heads['student_decoder'], ids_restore, relations=student_relations)
    loss = F.smooth_l1_loss(mlp(tokens, student, 'predictor'), target, beta=2.0)
    unused = F.smooth_l1_loss(mlp(latent, student, 'encoder_predictor'), teacher_latent, beta=2.0)
    return {'loss_generic': loss + 0 * unused}


def mlp(x: Tensor, w: Weights, name: str) -> Tensor:
    return linear(F.gelu(linear(x, w, f'{name}.fc1')), w, f'{name}.fc2')
