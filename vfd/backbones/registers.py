"""Shared by vision transformers with added register tokens: positions, frozen parts, embeddings of views, weights.

B images, V views, a grid of h x w patches, T = h * w, width D, m registers, D' output channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from vfd.checkpoints import StateFile, load_into, load_state
from vfd.errors import UserError, did_you_mean

PosInterp = Literal['scale01', 'size', 'timm']
POS_INTERPS: tuple[PosInterp, ...] = ('scale01', 'size', 'timm')


def resample_positions(
    patches: Tensor, old: tuple[int, int], new: tuple[int, int], rule: PosInterp
) -> Tensor:
    """Resample positions bicubically to another grid, in at least float32.

    Args:
        patches: (old h * old w, D), without the class token's.
        old: the grid of the table.
        new: the new grid.
        rule: ``scale01`` gives the interpolation the scale (new + 0.1) / old, which moves its sampling points a
            little: Hugging Face's DINOv2 and the released code. ``size`` gives it the size: the released
            demonstration. ``timm`` filters against aliasing.

    Returns:
        (new h * new w, D); ``patches`` itself for the same grid.
    """
    if old == new:
        return patches
    wide = patches.to(torch.promote_types(patches.dtype, torch.float32))
    if rule == 'timm':
        return resample_abs_pos_embed(wide[None], list(new), list(old), num_prefix_tokens=0)[0].to(patches)
    maps = wide.T.unflatten(1, old)[None]
    how: dict[str, Any] = {'mode': 'bicubic', 'align_corners': False}
    if rule == 'size':
        maps = F.interpolate(maps, new, **how)
    else:
        scale = tuple((b + 0.1) / a for a, b in zip(old, new, strict=True))
        maps = F.interpolate(maps, scale_factor=scale, recompute_scale_factor=False, **how)
    assert maps.shape[-2:] == new, (maps.shape, new)
    return maps[0].flatten(1).T.to(patches)


class RegisterBackbone(nn.Module):
    """Base class; see :class:`vfd.RegisterViT` and :class:`vfd.RegisterCLIP`.

    Attributes:
        num_registers: m.
        patch_size: side of a patch in pixels.
        grid: (h, w) of the table of positions.
        embed_dim: D.
        out_channels: D'.
        mean: RGB means that the weights were trained with, in 0..1.
        std: RGB standard deviations.
    """

    num_registers: int
    patch_size: int
    grid: tuple[int, int]
    embed_dim: int
    out_channels: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    pos_interp: PosInterp
    checkpoint: str | Path | None = None  # read by init_weights
    published_unlock: int  # blocks from the end that the released code trains
    _registers: str  # name of the parameter
    _table: str  # name of the parameter with the positions
    _stem: str  # name of the patch embedding's weight, which locates the prefix of the network in a file

    def __init__(self) -> None:
        super().__init__()
        self._loaded: set[str] = set()

    @property
    def unloaded(self) -> list[str]:
        """Names of the tensors without loaded weights; they are as drawn."""
        return [name for name in self.state_dict() if name not in self._loaded]

    @property
    def activation(self) -> str:
        """Kind of the blocks' activation: networks with the same tensors may differ in it."""
        return str(self._activation())

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that the output depends on beside the weights, in plain types."""
        return {
            'num_registers': self.num_registers,
            'grid': list(self.grid),
            'pos_interp': self.pos_interp,
            'activation': self.activation,
        }

    # -------------------------------------------------------------------------------- what each network defines

    def blocks_of(self) -> nn.Sequential | nn.ModuleList:
        """Return the transformer blocks."""
        raise NotImplementedError

    def position_table(self) -> Tensor:
        """Return the positions (1 + T, D), the class token's first."""
        raise NotImplementedError

    def trainable(self) -> list[nn.Parameter]:
        """Return what trains besides the last blocks: registers, positions, patch embedding."""
        raise NotImplementedError

    def _activation(self) -> nn.Module:
        """Return the activation of the blocks."""
        raise NotImplementedError

    def idle(self) -> Iterable[nn.Parameter]:
        """Return the parameters of the last block that its output does not depend on."""
        return ()

    def project(self, images: Tensor) -> Tensor:
        """Embed patches without positions: (B, 3, H, W) to (B, h, w, D)."""
        raise NotImplementedError

    def sequence(self, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        """Add positions, class token and registers to embedded patches (B, T, D): the first block's input."""
        raise NotImplementedError

    def dense_of(self, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        """Compute the features of embedded patches without positions: (B, T, D) to (B, T, D')."""
        raise NotImplementedError

    def tokens(self, images: Tensor) -> Tensor:
        """Return all output tokens in the network's own order: (B, 3, H, W) to (B, 1 + m + T, D')."""
        raise NotImplementedError

    # ----------------------------------------------------------------------------------------------- outputs

    def embed(self, images: Tensor) -> Tensor:
        """Embed patches without positions: (B, 3, H, W) to (B, h, w, D).

        Raises:
            UserError: a side of the images is no multiple of the patch size.
        """
        if images.ndim != 4 or any(side % self.patch_size or not side for side in images.shape[-2:]):
            shape = tuple(int(side) for side in images.shape)  # tensors while a graph is traced
            raise UserError(
                f'{type(self).__name__}: images of shape {shape}; expected (B, 3, H, W) with H and W multiples of '
                f'patch_size={self.patch_size}: change the crop size in the pipeline (for example to '
                f'{max(1, round(shape[-1] / self.patch_size)) * self.patch_size}).'
            )
        return self.project(images)

    def dense(self, images: Tensor) -> Tensor:
        """Compute dense features of the patches: (B, 3, H, W) to (B, T, D'), row by row."""
        patches = self.embed(images)
        return self.dense_of(patches.flatten(1, 2), cast(tuple[int, int], tuple(patches.shape[1:3])))

    def forward(
        self, images: Tensor, data_samples: list | None = None, mode: str = 'tensor'
    ) -> tuple[Tensor]:
        """Return one map (B, D', h, w) of dense features, in a tuple as backbones of OpenMMLab do.

        The other arguments are mmengine's; a network without a task has no mode but ``tensor``.
        """
        assert mode == 'tensor', mode
        height, width = (side // self.patch_size for side in images.shape[-2:])
        return (self.dense(images).transpose(1, 2).unflatten(2, (height, width)),)

    def patch_table(self, images: Tensor, fill: Tensor) -> Tensor:
        """Return the embedded patches that any shifted or mirrored view is made of.

        Shifts are whole patches and the embedding's stride is its kernel, so that a patch of a view is one of the
        image, one of the mirror image, or empty.

        Args:
            images: (B, 3, H, W).
            fill: (3,), the colour of empty pixels.

        Returns:
            (B, 2T + 1, D): patches of the images, of the mirror images, and the empty one; without positions.
        """
        empty = fill.to(images).view(1, -1, 1, 1).expand(1, -1, self.patch_size, self.patch_size)
        sides = [self.embed(side).flatten(1, 2) for side in (images, images.flip(-1))]
        return torch.cat([*sides, self.project(empty).flatten(1, 2).expand(len(images), -1, -1)], dim=1)

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """Return positions for a grid, (1 + h*w, D), the class token's first."""
        table = self.position_table()
        if grid == self.grid:
            return table
        return torch.cat([table[:1], resample_positions(table[1:], self.grid, grid, self.pos_interp)])

    # ---------------------------------------------------------------------------------------------- training

    def set_training(self, unlock_last_blocks: int | None, frozen: bool) -> None:
        """Choose what trains.

        Args:
            unlock_last_blocks: freeze everything but registers, positions, patch embedding and this many blocks from
                the end; None freezes only what the output does not depend on.
            frozen: freeze everything.
        """
        count = len(self.blocks_of())
        if unlock_last_blocks is not None and not 0 <= unlock_last_blocks <= count:
            raise UserError(
                f'{type(self).__name__}: unlock_last_blocks={unlock_last_blocks}; the network has {count} blocks'
            )
        if frozen or unlock_last_blocks is not None:
            self.requires_grad_(False)
        if not frozen and unlock_last_blocks is not None:
            unlocked = list(self.blocks_of())[count - unlock_last_blocks :]
            for parameter in [*self.trainable(), *(p for block in unlocked for p in block.parameters())]:
                parameter.requires_grad_(True)
        for parameter in self.idle():
            parameter.requires_grad_(False)

    def init_weights(self) -> None:
        """Load ``checkpoint``; mmengine's runner calls this once, before training."""
        checkpoint, self.checkpoint = self.checkpoint, None
        if checkpoint is not None:
            self.load(checkpoint)

    def load(self, checkpoint: str | Path) -> None:
        """Load weights: of a plain transformer, whose registers then stay as drawn, or of one with registers.

        Args:
            checkpoint: a file; ``'random'`` keeps the weights as drawn.

        Raises:
            UserError: a tensor is not in the file or has another shape, or the file has another number of registers.
        """
        if checkpoint == 'random':
            self.count_as_loaded()
            return
        report = self.load_weights(load_state(checkpoint))
        print_log(f'{type(self).__name__} starts from {report.summary()}', logger='current')

    def load_weights(self, state: StateFile | Mapping[str, Tensor], source_name: str = '') -> Any:
        """Fill this network from tensors; errors as in `load`.

        Args:
            state: of a whole network; or, in a file's ``trainable_state_dict``, of what was trained of one whose
                other weights this network has already.
            source_name: its name in errors.

        Returns:
            The report of what was loaded.
        """
        tensors = dict(state.state if isinstance(state, StateFile) else state)
        where = source_name or (str(state.path) if isinstance(state, StateFile) else 'the given tensors')
        prefix = self.check_registers(tensors, where)
        needed = set(self.state_dict()) - {self._registers}
        if isinstance(state, StateFile) and state.container == 'trainable_state_dict':
            given = {name for name in self.state_dict() if prefix + name in tensors}
            if lacking := [name for name in self.unloaded if name not in given]:
                raise UserError(
                    f'{where} holds only what was trained, not {lacking[0]} and {len(lacking) - 1} others: load the '
                    'plain transformer first (pretrained=True).'
                )
            needed = given
        report = load_into(
            self,
            self._resampled(tensors, prefix + self._table),
            needed=needed.__contains__,
            prefix=prefix,
            source_name=where,
        )
        self._loaded.update(report.loaded)
        return report

    def count_as_loaded(self) -> None:
        """Mark all tensors as loaded."""
        self._loaded = set(self.state_dict())

    def check_registers(self, tensors: Mapping[str, Tensor], where: str) -> str:
        """Find the network in a file and compare the number of registers.

        Args:
            tensors: by the file's names.
            where: name of the file in errors.

        Returns:
            The prefix of the network's names.

        Raises:
            UserError: the file has another number of registers, or several networks.
        """
        prefixes = [name.removesuffix(self._stem) for name in tensors if name.endswith(self._stem)]
        if len(prefixes) > 1 and 'student.' not in prefixes:
            raise UserError(
                f'{where} holds several networks: {", ".join(sorted(prefixes))}; keep one of them'
            )
        prefix = 'student.' if 'student.' in prefixes else prefixes[0] if prefixes else ''
        registers = tensors.get(prefix + self._registers)
        if registers is not None and registers.shape[-2] != self.num_registers:
            raise UserError(
                f'{where} has {registers.shape[-2]} registers, this {type(self).__name__} {self.num_registers}: set '
                f'num_registers={registers.shape[-2]}.'
            )
        return prefix

    def _resampled(self, tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
        """Return the same tensors, with a table of positions of another square grid interpolated."""
        table = tensors.get(name)
        mine = self.position_table()
        if table is None or table.shape[-1] != mine.shape[-1]:
            return tensors
        flat = table.reshape(-1, table.shape[-1])
        side = math.isqrt(max(len(flat) - 1, 0))
        if side * side + 1 == len(flat) and len(flat) != len(mine):
            patches = resample_positions(flat[1:], (side, side), self.grid, self.pos_interp)
            flat = torch.cat([flat[:1], patches])
        return {**tensors, name: flat if self.get_parameter(self._table).ndim == 2 else flat[None]}

    def draw_registers(self, *shape: int) -> nn.Parameter | None:
        """Draw new registers, ``randn / sqrt(D)``; None where there are none."""
        return nn.Parameter(torch.randn(*shape, self.embed_dim) / self.embed_dim**0.5) if all(shape) else None


def check_register_settings(class_name: str, num_registers: int, pos_interp: str) -> None:
    """Raise for a negative number of registers or an unknown rule."""
    if num_registers < 0:
        raise UserError(f'{class_name}: num_registers={num_registers}; 16 as published, 0 for none')
    if pos_interp not in POS_INTERPS:
        hint = did_you_mean(pos_interp, POS_INTERPS)
        raise UserError(f'{class_name}: pos_interp={pos_interp!r}{hint}; one of {", ".join(POS_INTERPS)}')


def not_fetched(name: str, error: Exception) -> UserError:
    """Return the error for published weights that could not be fetched, with what the user can do."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return UserError(
        f'the published weights of {name} could not be fetched ({reason}). Check the connection, or give a weight file '
        'as checkpoint=...'
    )
