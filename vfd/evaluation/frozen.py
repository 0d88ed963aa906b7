"""A frozen evaluation network: the backbone under a probe."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from vfd.backbones.register_vit import RegisterViT
from vfd.backbones.registers import RegisterBackbone
from vfd.checkpoints.layouts import translate
from vfd.errors import UserError
from vfd.registry import MODELS


@MODELS.register_module()
class FrozenBackbone(BaseModule):
    """A backbone that stays in eval mode, without gradients.

    Weights that its config names (``checkpoint``, ``init_cfg``) are read when it is built, so that a network that is
    only tested has them too. A checkpoint that is loaded into a model which holds it, and lacks some of its tensors, is
    an error; so is a network with registers that has no weights, or registers of none, when the first image comes:
    ``checkpoint='random'`` in its config allows this.

    Args:
        backbone: config of a network that gives maps (B, D, h, w), one or a tuple.
        init_cfg: mmengine's initialisation config.

    Raises:
        UserError: the weights do not fit.
    """

    def __init__(self, backbone: dict, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.network: Any = MODELS.build(backbone)
        if isinstance(self.network, (BaseModule, RegisterBackbone)):  # others, such as timm's, are complete
            self.network.init_weights()
        self.requires_grad_(False)
        self.train(False)
        self.register_load_state_dict_pre_hook(_need_all)

    @classmethod
    def around(cls, backbone: dict) -> FrozenBackbone:
        """Build a backbone and freeze it, unless it is a config of a frozen one."""
        if str(backbone.get('type')).rpartition('.')[2] == cls.__name__:
            return MODELS.build(backbone)
        return cls(backbone)

    def init_weights(self) -> None:
        """Do nothing: the weights are given."""

    def train(self, mode: bool = True) -> FrozenBackbone:
        """Stay in eval mode, whatever ``mode`` is."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute the backbone's maps, (B, D, h, w) each, without gradient."""
        self._refuse_unloaded()
        maps = self.network(images)
        return maps if isinstance(maps, tuple) else (maps,)

    @torch.no_grad()
    def forward_with_cls(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the map and the class token of a transformer with registers.

        Returns:
            (B, D, h, w) and (B, D).

        Raises:
            UserError: the backbone is none of :class:`vfd.RegisterViT` and :class:`vfd.RegisterCLIP` (their
                ``num_registers=0`` is the transformer as it is).
        """
        self._refuse_unloaded()
        network = self.network
        if not isinstance(network, RegisterBackbone):
            raise UserError(
                f'{type(network).__name__}: the class token beside the map is known of vfd.RegisterViT and '
                'vfd.RegisterCLIP; with num_registers=0 they are the plain transformer'
            )
        height, width = (side // network.patch_size for side in images.shape[-2:])
        tokens: Tensor = network.tokens(images)  # type: ignore[operator]
        first = 1 + (
            network.num_registers if isinstance(network, RegisterViT) else 0
        )  # CLIP's registers come last
        patches = tokens[:, first : first + height * width]
        return patches.transpose(1, 2).unflatten(2, (height, width)), tokens[:, 0]

    def _refuse_unloaded(self) -> None:
        if isinstance(self.network, RegisterBackbone) and (names := self.network.unloaded):
            whole = len(self.network.state_dict())
            raise UserError(
                f'{len(names)} of {whole} tensors of the frozen {type(self.network).__name__} are random, the first is '
                f"{names[0]}: name a file that has them in the backbone's checkpoint, set num_registers=0 for the "
                "plain network, or checkpoint='random' if this is meant"
            )


def read_any_checkpoint(model: nn.Module) -> None:
    """Let ``model`` read checkpoints of its backbone alone, in any layout that the backbone reads.

    A distillation's ``student`` is one, so is a released file. Checkpoints with ``backbone.`` are of ``model`` itself.
    """
    model.register_load_state_dict_pre_hook(_from_backbone)


def _from_backbone(model: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    network: Any = model.backbone.network  # type: ignore[union-attr]
    if any(name.startswith(f'{prefix}backbone.') for name in state) or not isinstance(
        network, RegisterBackbone
    ):
        return
    tensors = translate({name.removeprefix(prefix): value for name, value in state.items()})[1]
    report = network.load_weights(tensors, 'the checkpoint')
    if report.missing:
        raise UserError(
            f'the checkpoint has no registers ({report.missing[0]}), the backbone of the config has '
            f'{network.num_registers}: set model.backbone.num_registers=0 to test the plain network'
        )
    state.clear()
    state.update(
        {f'{prefix}{name}': value for name, value in model.state_dict().items()}
    )  # the rest as it is


def _need_all(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Raise, before a checkpoint is loaded, when a tensor is missing; mmengine's loader only logs it."""
    assert isinstance(module, FrozenBackbone)
    names = list(module.state_dict())
    missing = [f'{prefix}{name}' for name in names if f'{prefix}{name}' not in state]
    if missing:
        raise UserError(
            f'the checkpoint lacks {len(missing)} of {len(names)} tensors of the frozen backbone, the first is '
            f'{missing[0]}. Weights of a backbone alone are given in its config, as checkpoint=FILE'
        )
    if isinstance(module.network, RegisterBackbone):
        module.network.count_as_loaded()
