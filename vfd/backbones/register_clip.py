"""CLIP's image tower with register tokens that it was not trained with, and its dense features.

Paper: "Vision Transformers with Self-Distilled Registers", NeurIPS 2025, arXiv 2505.21501. The dense features are those
of MaskCLIP (arXiv 2112.01071), NACLIP (arXiv 2404.08181) and SCLIP (arXiv 2312.01597). In a config::

    student = dict(
        type='vfd.RegisterCLIP', model_name='ViT-B-16-quickgelu', img_size=448, head='maskclip', unlock_last_blocks=2)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vfd.compat import require
from vfd.errors import UserError, did_you_mean
from vfd.registry import MODELS

from .registers import (
    PosInterp,
    RegisterBackbone,
    check_register_settings,
    not_fetched,
)

Head = Literal['maskclip', 'naclip', 'kk', 'csa', 'vanilla']
HEADS: tuple[Head, ...] = ('maskclip', 'naclip', 'kk', 'csa', 'vanilla')
_PLAIN = {'layers', 'width', 'head_width', 'mlp_ratio', 'patch_size', 'image_size'}


@MODELS.register_module()
class RegisterCLIP(RegisterBackbone):
    """The image tower of an open_clip model, its tensors under open_clip's names (without ``visual.``), and registers.

    The order of tokens is class token, patches, registers; registers get no position and come before ``ln_pre``. The
    output is the patches of the last block, after ``ln_post`` and ``proj``. With x the normalised tokens before the
    last block, q, k, v their projections and c the heads' scale, the last block's attention is

    =========== ==========================================
    ``maskclip`` v of every token itself
    ``naclip``   softmax(k k' c + omega) v
    ``kk``       softmax(k k' c) v
    ``csa``      (softmax(q q' c) + softmax(k k' c)) v
    ``vanilla``  softmax(q k' c) v
    =========== ==========================================

    omega is exp(-d² / (2 ``gaussian_std``²) ) for two patches d patches apart, and 0 for all other tokens.

    Args:
        model_name: open_clip's name. Weights of OpenAI, MetaCLIP and DFN need one that ends in ``-quickgelu``, those of
            LAION one that does not.
        num_registers: m; 0 for the tower as it is.
        img_size: side of the images that the table of positions is for; None takes the model's. Weights with another
            grid are interpolated once, when they are loaded.
        head: the last block's attention, see above.
        last_block: ``reduced`` leaves out residual and MLP of the last block, ``full`` keeps them; None takes
            ``reduced`` for ``maskclip``, ``naclip`` and ``kk``.
        gaussian_std: of omega, in patches.
        pos_interp: how positions are interpolated, see :func:`~vfd.backbones.registers.resample_positions`.
        unlock_last_blocks: freeze all but registers, positions, patch embedding and this many blocks from the end (2
            in the released code; the last one carries no attention under ``maskclip``); None freezes nothing. What the
            last block does not use stays frozen.
        frozen: freeze everything, for probes and zero-shot segmentation.
        pretrained: take the published weights of ``tag``.
        tag: open_clip's name of published weights, for ``pretrained``.
        checkpoint: weights to start from, read by ``init_weights``: open_clip's or OpenAI's names, the released PH-Reg
            files, vfd's checkpoints. Text towers in it are left out. ``'random'`` loads none.
        quick_gelu: overrides the model's activation.
        embed_dim: D', overrides the model's.
        vision_cfg: overrides numbers of the model (``layers``, ``width``, ``head_width``, ``mlp_ratio``,
            ``patch_size``, ``image_size``).

    Raises:
        UserError: a tower of another kind, or settings that do not fit.
    """

    published_unlock = 2
    _registers = 'register_tokens'
    _table = 'positional_embedding'
    _stem = 'conv1.weight'

    def __init__(
        self,
        model_name: str,
        num_registers: int = 16,
        img_size: int | Sequence[int] | None = None,
        head: Head = 'maskclip',
        last_block: Literal['reduced', 'full'] | None = None,
        gaussian_std: float = 5.0,
        pos_interp: PosInterp = 'scale01',
        unlock_last_blocks: int | None = None,
        frozen: bool = False,
        pretrained: bool = False,
        tag: str | None = None,
        checkpoint: str | Path | None = None,
        quick_gelu: bool | None = None,
        embed_dim: int | None = None,
        vision_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_register_settings(type(self).__name__, num_registers, pos_interp)
        if head not in HEADS:
            raise UserError(
                f'RegisterCLIP: head={head!r}{did_you_mean(head, HEADS)}; one of {", ".join(HEADS)}'
            )
        if last_block not in (None, 'reduced', 'full'):
            raise UserError(f'RegisterCLIP: last_block={last_block!r}; "reduced", "full" or None')
        tower = _build(model_name, img_size, quick_gelu, embed_dim, vision_cfg or {})
        self.conv1: Any = tower.conv1
        self.class_embedding = tower.class_embedding
        self.positional_embedding = tower.positional_embedding
        self.ln_pre: nn.Module = tower.ln_pre
        self.transformer: Any = tower.transformer
        self.ln_post: nn.Module = tower.ln_post
        self.proj = tower.proj
        self.num_registers = num_registers
        self.pos_interp = pos_interp
        self.embed_dim = int(self.conv1.out_channels)
        self.out_channels = int(self.proj.shape[1])
        self.patch_size = int(tower.patch_size[0])
        self.grid = tuple(tower.grid_size)
        self.mean, self.std = _normalisation()
        self.register_tokens = self.draw_registers(num_registers)
        self.head: Head = head
        self.reduced = head in ('maskclip', 'naclip', 'kk') if last_block is None else last_block == 'reduced'
        self.gaussian_std = gaussian_std
        self.checkpoint = checkpoint
        self._omegas: dict[tuple, Tensor] = {}
        if pretrained:
            quick = not isinstance(self._activation(), nn.GELU)
            self.load_weights(_published(model_name, tag, quick), f'{model_name}, {tag}')
        self.set_training(unlock_last_blocks, frozen)

    def blocks_of(self) -> nn.ModuleList:
        """See the base class."""
        return self.transformer.resblocks

    def position_table(self) -> Tensor:
        """See the base class."""
        return self.positional_embedding

    def trainable(self) -> list[nn.Parameter]:
        """See the base class."""
        registers = [] if self.register_tokens is None else [self.register_tokens]
        return [*registers, self.positional_embedding, *self.conv1.parameters()]

    @property
    def settings(self) -> dict[str, Any]:
        """See the base class."""
        own = {'head': self.head, 'reduced': self.reduced, 'gaussian_std': self.gaussian_std}
        return {**super().settings, **own}

    def _activation(self) -> nn.Module:
        return self.transformer.resblocks[0].mlp.gelu

    def idle(self) -> Iterable[nn.Parameter]:
        """Return norm and MLP of a reduced last block. (Rows of q and k in its projection cannot be frozen alone.)"""
        last: Any = self.transformer.resblocks[-1]
        return [*last.ln_2.parameters(), *last.mlp.parameters()] if self.reduced else []

    def project(self, images: Tensor) -> Tensor:
        """See the base class."""
        return self.conv1(images).permute(0, 2, 3, 1)

    def sequence(self, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        """See the base class: (B, T, D) to (B, 1 + T + m, D)."""
        positions = self.positions(grid)
        count = patches.shape[0]  # len() would be a constant in a trace
        tokens = [(self.class_embedding + positions[:1]).expand(count, -1, -1), patches + positions[1:]]
        if self.register_tokens is not None:
            tokens.append(self.register_tokens.expand(count, -1, -1))
        return self.ln_pre(torch.cat(tokens, dim=1))

    def dense_of(self, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        """See the base class; the last block computes its patches only."""
        return self._output(patches, grid, slice(1, 1 + patches.shape[1]))

    def tokens(self, images: Tensor) -> Tensor:
        """Return all output tokens: class token, patches row by row, registers, (B, 1 + T + m, D')."""
        patches = self.embed(images)
        return self._output(patches.flatten(1, 2), (patches.shape[1], patches.shape[2]), slice(None))

    def _output(self, patches: Tensor, grid: tuple[int, int], rows: slice) -> Tensor:
        tokens = self.sequence(patches, grid)
        *blocks, last = self.transformer.resblocks
        for block in blocks:
            tokens = block(tokens)
        mixed = self._attend(last, last.ln_1(tokens), grid, rows)
        if not self.reduced:
            mixed = tokens[:, rows] + mixed
            mixed = mixed + last.mlp(last.ln_2(mixed))
        return self.ln_post(mixed) @ self.proj

    def _attend(self, block: Any, tokens: Tensor, grid: tuple[int, int], rows: slice) -> Tensor:
        """Compute the last block's attention for some rows of the tokens (B, 1 + T + m, D)."""
        attention = block.attn
        weights, biases = (part.chunk(3) for part in (attention.in_proj_weight, attention.in_proj_bias))

        def part(index: int, of: Tensor) -> Tensor:  # 0 to 2: q, k, v
            heads = F.linear(of, weights[index], biases[index]).unflatten(2, (attention.num_heads, -1))
            return heads.transpose(1, 2)  # (B, heads, tokens, D / heads)

        if self.head == 'maskclip':
            return attention.out_proj(F.linear(tokens[:, rows], weights[2], biases[2]))
        keys, values = part(1, tokens), part(2, tokens)
        if self.head == 'vanilla':
            mixed = F.scaled_dot_product_attention(part(0, tokens[:, rows]), keys, values)
        else:
            omega = self._omega(grid, keys)[rows] if self.head == 'naclip' else None
            mixed = F.scaled_dot_product_attention(keys[:, :, rows], keys, values, omega)
        if self.head == 'csa':
            queries = part(0, tokens)
            mixed = mixed + F.scaled_dot_product_attention(queries[:, :, rows], queries, values)
        return attention.out_proj(mixed.transpose(1, 2).flatten(2))

    def _omega(self, grid: tuple[int, int], like: Tensor) -> Tensor:
        """Return NACLIP's bonus for near patches, (1 + T + m, 1 + T + m); computed once for each grid."""
        key = (grid, self.gaussian_std, like.shape[-2], like.dtype, like.device)
        if key not in self._omegas:
            places = torch.cartesian_prod(*(torch.arange(side, dtype=torch.float32) for side in grid))
            squared = (places[:, None] - places[None]).square().sum(dim=-1)
            bonus = torch.exp(-squared / (2 * self.gaussian_std**2))
            behind = like.shape[-2] - 1 - len(bonus)
            self._omegas = {key: F.pad(bonus, (1, behind, 1, behind)).to(like)}  # one grid at a time
        return self._omegas[key]


def _build(
    model_name: str,
    img_size: int | Sequence[int] | None,
    quick_gelu: bool | None,
    embed_dim: int | None,
    numbers: dict[str, Any],
) -> Any:
    """Build open_clip's model without its text tower."""
    require('open_clip')
    import open_clip
    from open_clip.transformer import QuickGELU, VisionTransformer

    if model_name not in open_clip.list_models():
        hint = did_you_mean(model_name, open_clip.list_models())
        raise UserError(f'open_clip has no model "{model_name}"{hint}')
    config = cast(dict[str, Any], open_clip.get_model_config(model_name))
    vision = {**config['vision_cfg'], **numbers}
    if strange := sorted(set(vision) - _PLAIN):
        raise UserError(
            f'RegisterCLIP: {model_name} is no plain CLIP transformer ({", ".join(strange)}). Take one such as '
            'ViT-B-16.'
        )
    quick = config.get('quick_gelu', False) if quick_gelu is None else quick_gelu
    sides = vision['image_size'] if img_size is None else img_size
    height, width = (sides, sides) if isinstance(sides, int) else sides
    patch = vision['patch_size']
    if height % patch or width % patch:
        raise UserError(f'RegisterCLIP: img_size={height}x{width} is no multiple of the patch size {patch}')
    return VisionTransformer(
        image_size=(height, width),
        patch_size=patch,
        width=vision['width'],
        layers=vision['layers'],
        heads=vision['width'] // vision.get('head_width', 64),
        mlp_ratio=vision.get('mlp_ratio', 4.0),
        output_dim=config['embed_dim'] if embed_dim is None else embed_dim,
        act_layer=QuickGELU if quick else nn.GELU,
    )


def _normalisation() -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return CLIP's normalisation, which all its published plain transformers share."""
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    return OPENAI_DATASET_MEAN, OPENAI_DATASET_STD


def _published(model_name: str, tag: str | None, quick_gelu: bool) -> dict[str, Tensor]:
    """Load open_clip's published weights of the tower."""
    import open_clip

    if not tag:
        tags = ', '.join(open_clip.list_pretrained_tags_by_model(model_name)) or 'none'
        raise UserError(f'RegisterCLIP: name the published weights with tag=...; known: {tags}')
    published = open_clip.get_pretrained_cfg(model_name, tag)
    wanted = bool(published.get('quick_gelu'))
    if published and wanted != quick_gelu:
        kinds = {True: 'the quick GELU', False: 'the exact GELU'}
        raise UserError(
            f'RegisterCLIP: the weights {tag} were trained with {kinds[wanted]}, {model_name} is built with '
            f'{kinds[quick_gelu]}: take the model_name that {"ends" if wanted else "does not end"} in -quickgelu, or '
            f'set quick_gelu={wanted}.'
        )
    try:
        return open_clip.create_model(model_name, pretrained=tag).visual.state_dict()
    except (OSError, RuntimeError) as error:
        raise not_fetched(f'{model_name}, {tag}', error) from error
