"""A student as another library builds it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vfd.export.student import OutputSpec, Tensors


def tapped(network: Any, taps: tuple[int, ...]) -> Callable[[Tensor], Tensors]:
    """A timm transformer as a function from images to the maps (B, D, h, w) after some of its blocks."""

    def maps(images: Tensor) -> Tensors:
        with torch.no_grad():
            return tuple(network.forward_intermediates(images, indices=list(taps), intermediates_only=True))

    return maps


@dataclass
class TimmSpec:
    """A student as timm builds it.

    Attributes:
        name: the architecture.
        args: what ``timm.create_model`` needs beside it.
        network: with the student's weights, in eval mode.
        output: what a network of this form answers, from the live student.
        taps: blocks whose maps are the answer, before any norm; empty where it is the network's own.
    """

    name: str
    args: dict[str, Any]
    network: nn.Module
    output: OutputSpec
    taps: tuple[int, ...] = ()

    @property
    def call(self) -> str:
        """The arguments of ``timm.create_model`` after the name, as Python text."""
        return ''.join(f', {key}={value!r}' for key, value in self.args.items())

    @property
    def usage_lines(self) -> tuple[str, ...]:
        """How ``model`` is asked, as a comment below the lines that load it; none where it is simply called."""
        if not self.taps:
            return ()
        asking = f'model.forward_intermediates(images, indices={list(self.taps)}, intermediates_only=True)'
        return (f'# maps = {asking}',)

    def asking(self, network: nn.Module) -> Callable[[Tensor], Tensors]:
        """A network of this form as a function of images."""
        return tapped(network, self.taps) if self.taps else network


@dataclass
class MMSpec:
    """A backbone as mmpretrain builds it.

    Attributes:
        config: of the backbone, with mmpretrain's scope.
        state: its tensors.
        output: what it answers, from the live student.
    """

    config: dict[str, Any]
    state: dict[str, Tensor]
    output: OutputSpec
