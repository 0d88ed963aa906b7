"""The frozen teacher: what a network answers at named taps.

    teacher = Teacher(source=dict(type='vfd.TimmSource', model_name='resnet50'), checkpoint='resnet50.safetensors')
    logits = teacher(images)['logits']

A teacher is a plain object and not an ``nn.Module``: a model that holds one has none of its tensors in its
``state_dict``, optimizer, DDP buckets or EMA copy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence, Set
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vfd.checkpoints import LoadReport, load_into, load_state
from vfd.checkpoints.pos_embed import Resize
from vfd.errors import UserError
from vfd.registry import MODELS

from .normalization import Normalization
from .stopwatch import Stopwatch

INPUTS = {
    'ids_keep': '(B, K) long, the patches that a transformer sees; they are gathered before the blocks',
    'boxes': 'for each image (n, 4) floating, corners (x1, y1, x2, y2) in pixels of the batch',
    'prompt': '(B, 1, H, W) floating, a sparse map such as metric depth, 0 where nothing is known',
    'seed': '(B, S) long, seeds of what the teacher draws for each image',
}  # further inputs of a teacher, by name
DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'float16': torch.float16}


@MODELS.register_module()
class Teacher:
    """A frozen network.

    Args:
        source: config of the network (:mod:`vfd.teachers.sources`).
        checkpoint: a file; ``'pretrained'`` for the weights that the source's library publishes; ``'random'`` for an
            untrained network, which is never taken without being asked for.
        taps: where the network is asked, see :mod:`vfd.teachers.sources`.
        input_size: side length in pixels to which images are resized (bicubic, antialiased) before this network sees
            them; None leaves them as they are.
        dtype: arithmetic of the network: ``float32``, ``bfloat16`` or ``float16``. Answers are float32.
        bn: ``'eval'`` uses the stored batch-norm statistics; ``'train'`` uses those of the batch and moves the stored
            ones, as SSLD's teachers did when it was published. Moved statistics are never saved.
        compile: run the network through ``torch.compile``.
        resize_pos_embed: allow a checkpoint whose position embedding has another grid, and interpolate it.
        trust: allow a checkpoint that needs arbitrary code to be unpickled. Only for files of your own.

    Raises:
        UserError: the checkpoint lacks tensors, belongs to another model, or a tap does not exist.
    """

    def __init__(
        self,
        source: dict,
        checkpoint: str,
        taps: Sequence[str] = ('logits',),
        input_size: int | None = None,
        dtype: str = 'float32',
        bn: Literal['eval', 'train'] = 'eval',
        compile: bool = False,
        resize_pos_embed: bool = False,
        trust: bool = False,
    ) -> None:
        if not taps:
            raise UserError('a teacher needs at least one tap, for example taps=["logits"]')
        if dtype not in DTYPES:
            raise UserError(f'teacher dtype "{dtype}": use one of {", ".join(DTYPES)}')
        if bn not in ('eval', 'train'):
            raise UserError(f'teacher bn="{bn}": use "eval" or "train"')
        self.taps = tuple(taps)
        self.input_size = input_size
        self.dtype = DTYPES[dtype]
        self.bn = bn
        self.checkpoint = checkpoint
        self.source = MODELS.build(
            dict(source), default_args={'taps': self.taps, 'pretrained': checkpoint == 'pretrained'}
        )
        self.network: nn.Module = self.source.network
        self.report = self._load(trust, resize_pos_embed)
        self.weights_sha256 = state_sha256(self.network)
        self.network.requires_grad_(False).to(self.dtype)
        self.train()
        self._answer: Callable[..., dict[str, Tensor]] = (
            torch.compile(self.source.forward_taps) if compile else self.source.forward_taps
        )
        self._batch_normalization = self.source.normalization
        self._watch = Stopwatch()

    def _load(self, trust: bool, resize_pos_embed: bool) -> LoadReport:
        """Load the weights; every tensor that the taps need, or an error."""
        if self.checkpoint in ('pretrained', 'random'):
            names = list(self.network.state_dict())
            loaded = names if self.checkpoint == 'pretrained' else []
            missing = [] if loaded else names
            return LoadReport(
                loaded=loaded, missing=missing, source=f'{self.source.name} ({self.checkpoint})'
            )
        file = load_state(self.checkpoint, trust=trust)
        try:
            if hasattr(self.source, 'load'):
                return self.source.load(file)
            if hasattr(self.source, 'check_file'):
                self.source.check_file(file)
            rule: Resize = getattr(self.source, 'resize_rule', 'timm')
            return load_into(self.network, file, resize_pos_embed=rule if resize_pos_embed else False)
        except UserError as error:
            raise UserError(f'teacher {self.source.name}: {error}') from None

    @property
    def num_classes(self) -> int | None:
        """Width of the logits, None when the network has none."""
        return self.source.num_classes

    @property
    def normalization(self) -> Normalization:
        """What the network was trained on."""
        return self.source.normalization

    @property
    def has_batch_norm(self) -> bool:
        """Whether ``bn='train'`` makes a difference."""
        return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self.network.modules())

    @property
    def seconds(self) -> float:
        """Time spent in this teacher so far."""
        return self._watch.seconds

    def bind(self, preprocessor: nn.Module) -> None:
        """Say which data preprocessor made the batches; they are re-normalised if the network wants other ones."""
        self._batch_normalization = Normalization.of_preprocessor(preprocessor)

    def train(self) -> Teacher:
        """Put the network into the only mode it is ever in: eval, but for batch norm when ``bn='train'``."""
        self.network.eval()
        if self.bn == 'train':
            for module in self.network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.train()
        return self

    def apply_to_tensors(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Apply ``fn`` to every tensor: how a model that holds the teacher takes it along in ``.to(device)``."""
        self.network._apply(fn)

    def __call__(
        self, images: Tensor, data_samples: Sequence[Any] | None = None, **inputs: Any
    ) -> dict[str, Tensor]:
        """Compute the features at the taps.

        Args:
            images: (B, 3, H, W) floating, as the bound data preprocessor made them (without one: as the network
                wants them).
            data_samples: not used by a live network; :class:`~vfd.teachers.StoredTeacher` reads its keys from them.
            **inputs: further inputs of :data:`INPUTS`, those that the source ``reads``.

        Returns:
            One float32 tensor a tap (float64 if the network was cast to it), without gradient.

        Raises:
            UserError: an input that the source does not read.
        """
        inputs = check_inputs(
            inputs, getattr(self.source, 'reads', frozenset()), f'the teacher {self.source.name}'
        )
        with (
            torch.no_grad(),
            self._watch.run(images.device),
            torch.autocast(images.device.type, enabled=False),
        ):
            dtype = next(self.network.parameters()).dtype
            images = self._batch_normalization.convert(images, self.normalization)
            if self.input_size is not None and images.shape[-2:] != (self.input_size, self.input_size):
                size = (self.input_size, self.input_size)
                images = F.interpolate(images, size, mode='bicubic', antialias=True, align_corners=False)
            answers = self._answer(images.to(dtype), self.taps, **inputs)
            return {
                tap: answers[tap] if dtype == torch.float64 else answers[tap].float() for tap in self.taps
            }

    def fingerprint(self) -> dict[str, Any]:
        """Which teacher this is, in plain types: goes into every checkpoint that was trained with it."""
        return {
            'source': self.source.name,
            **({'settings': self.source.settings} if hasattr(self.source, 'settings') else {}),
            'checkpoint': Path(self.checkpoint).name,
            'weights_sha256': self.weights_sha256,
            'taps': list(self.taps),
            'num_classes': self.num_classes,
            'input_size': self.input_size,
            'mean': list(self.normalization.mean),
            'std': list(self.normalization.std),
            'rgb': self.normalization.rgb,
            'dtype': str(self.dtype).removeprefix('torch.'),
            'bn': self.bn,
        }

    def summary(self) -> dict[str, str]:
        """The rows that the dry run prints."""
        size = sum(p.numel() for p in self.network.parameters())
        return {
            'teacher': self.source.name,
            'teacher checkpoint': str(self.checkpoint),
            'teacher loaded': 'RANDOM WEIGHTS' if self.checkpoint == 'random' else self.report.summary(),
            'teacher parameters': f'{size / 1e6:.2f} M, {str(self.dtype).removeprefix("torch.")}, bn {self.bn}',
            'teacher sees': f'mean {_short(self.normalization.mean)}, std {_short(self.normalization.std)}, '
            + ('RGB' if self.normalization.rgb else 'BGR')
            + (f', {self.input_size} px' if self.input_size else ''),
            'taps': ', '.join(self.taps),
        }

    def __deepcopy__(self, memo: dict) -> Teacher:
        """A copy of the student (EMA, for example) shares the teacher."""
        return self


def check_inputs(inputs: dict[str, Any], reads: Set[str], name: str) -> dict[str, Any]:
    """Drop inputs that are None and refuse those that a teacher does not read.

    Args:
        inputs: by name.
        reads: the names that the teacher reads.
        name: of the teacher, for the message.

    Raises:
        UserError: an input that it does not read.
    """
    given = {key: value for key, value in inputs.items() if value is not None}
    if unknown := sorted(given.keys() - reads):
        known = ', '.join(sorted(reads)) or 'images alone'
        raise UserError(f'{name} does not read {", ".join(unknown)}; it reads {known}')
    return given


def _short(values: Sequence[float]) -> str:
    return ', '.join(f'{v:.6g}' for v in values)


def state_sha256(network: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of a network's tensors, in name order."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f'{name} {tensor.dtype} {tuple(tensor.shape)}'.encode())
        if tensor.numel() and not tensor.is_meta:
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
