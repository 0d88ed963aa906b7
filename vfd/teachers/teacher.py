"""The frozen teacher: what a network answers at named taps.

    teacher = Teacher(source=dict(type='vfd.TimmSource', model_name='resnet50'), checkpoint='resnet50.safetensors')
    logits = teacher(images)['logits']

A teacher is a plain object and not an ``nn.Module``: a model that holds one has none of its tensors in its
``state_dict``, optimizer, DDP buckets or EMA copy.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence, Set
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor, nn

from vfd.checkpoints import LoadReport, StateFile, load_into, load_state
from vfd.checkpoints.pos_embed import Resize
from vfd.errors import UserError
from vfd.registry import MODELS
from vfd.stores.ragged import Ragged

from .card import TeacherCard
from .inputs import check_inputs, resize_inputs
from .normalization import Normalization
from .settings import source_settings
from .stopwatch import Stopwatch

DTYPES = {
    'auto': torch.float32,
    'float32': torch.float32,
    'bfloat16': torch.bfloat16,
    'float16': torch.float16,
}  # name -> type of the weights
Answer = Tensor | Ragged[Tensor]


@MODELS.register_module()
class Teacher:
    """A frozen network.

    A file of ``vfd fit-teacher`` says itself how the network was measured (:class:`vfd.teachers.TeacherCard`): input
    size, batch norm, normalisation, classes. It is run that way where the arguments say nothing else; an argument that
    contradicts the file wins, with a warning.

    Args:
        source: config of the network (:mod:`vfd.teachers.sources`).
        checkpoint: a file; ``'pretrained'`` for the weights that the source's library publishes; ``'random'`` for an
            untrained network, which is never taken without being asked for.
        taps: where features are read, see :mod:`vfd.teachers.sources`.
        input_size: side length in pixels to which images are resized (bicubic, antialiased) before this network sees
            them; None takes the size that the file names, and leaves them as they are where it names none.
        dtype: arithmetic of the network. ``auto`` follows the autocast around the call, as the code of the papers does
            under mixed precision, and is float32 without one. ``float32`` stays out of autocast; ``bfloat16`` and
            ``float16`` cast the weights. Answers are float32.
        bn: ``'eval'`` uses the stored batch-norm statistics; ``'train'`` uses those of the batch and moves the stored
            ones, as SSLD's teachers did when it was published. Moved statistics are never saved. None takes what the
            file says, else ``'eval'``.
        compile: run the network through ``torch.compile``.
        resize_pos_embed: allow a checkpoint whose position embedding has another grid, and interpolate it.
        trust: allow a checkpoint that needs arbitrary code to be unpickled. Only for files of your own.

    Attributes:
        card: what the file says about its weights; empty for other files.

    Raises:
        UserError: the checkpoint lacks tensors, belongs to another model, or a tap does not exist.
    """

    def __init__(
        self,
        source: dict,
        checkpoint: str,
        taps: Sequence[str] = ('logits',),
        input_size: int | None = None,
        dtype: str = 'auto',
        bn: Literal['eval', 'train'] | None = None,
        compile: bool = False,
        resize_pos_embed: bool = False,
        trust: bool = False,
    ) -> None:
        if not taps:
            raise UserError('a teacher needs at least one tap, for example taps=["logits"]')
        if dtype not in DTYPES:
            raise UserError(f'teacher dtype "{dtype}": use one of {", ".join(DTYPES)}')
        if bn not in (None, 'eval', 'train'):
            raise UserError(f'teacher bn="{bn}": use "eval" or "train"')
        self.taps = tuple(taps)
        self.dtype = dtype
        self.checkpoint = checkpoint
        file = None if checkpoint in ('pretrained', 'random') else load_state(checkpoint, trust=trust)
        self.card = TeacherCard.read(file.meta, str(checkpoint)) if file else TeacherCard()
        source = {**self.card.source, **source}
        self.source = MODELS.build(
            dict(source), default_args={'taps': self.taps, 'pretrained': checkpoint == 'pretrained'}
        )
        self.settings = {**source_settings(source), **getattr(self.source, 'settings', {})}
        self.network: nn.Module = self.source.network
        self.report = self._load(file, resize_pos_embed)
        self.weights_sha256 = state_sha256(self.network)
        self.network.requires_grad_(False).to(DTYPES[dtype])
        self.input_size: int | None = self._choose('input_size', input_size)
        self._normalization = self._choose_normalization(source)
        self._batch_normalization = self._normalization
        self.set_bn(bn)
        self._constants: dict[str, Tensor] | None = None
        self._forward_taps: Callable[..., dict[str, Answer]] = (
            torch.compile(self.source.forward_taps) if compile else self.source.forward_taps
        )
        self._watch = Stopwatch()

    def _load(self, file: StateFile | None, resize_pos_embed: bool) -> LoadReport:
        """Load the weights; every tensor that the taps need, or an error."""
        if file is None:
            names = list(self.network.state_dict())
            loaded = names if self.checkpoint == 'pretrained' else []
            missing = [] if loaded else names
            return LoadReport(
                loaded=loaded, missing=missing, source=f'{self.source.name} ({self.checkpoint})'
            )
        try:
            if hasattr(self.source, 'load'):
                return self.source.load(file)
            if hasattr(self.source, 'check_file'):
                self.source.check_file(file)
            rule: Resize = getattr(self.source, 'resize_rule', 'timm')
            return load_into(self.network, file, resize_pos_embed=rule if resize_pos_embed else False)
        except UserError as error:
            raise UserError(f'teacher {self.source.name}: {error}') from None

    def _choose(self, name: str, given: Any) -> Any:
        """An argument that was given, else what the file says."""
        measured = getattr(self.card, name)
        if given is not None and measured is not None and given != measured:
            self._warn(name, given, measured)
        return measured if given is None else given

    def _choose_normalization(self, source: dict) -> Normalization | None:
        own, measured = self.source.normalization, self.card.normalization
        if measured is None or own == measured:
            return own
        if 'mean' in source or 'std' in source:
            self._warn('normalization', own, measured)
            return own
        return measured

    def _warn(self, name: str, given: Any, measured: Any) -> None:
        accuracy = '' if self.card.accuracy is None else f' (accuracy {self.card.accuracy:.3f})'
        print_log(
            f'teacher {self.source.name}: {name}={given!r} as the config says, but {self.checkpoint} was measured'
            f'{accuracy} with {measured!r}',
            'current',
            logging.WARNING,
        )

    @property
    def reads(self) -> Set[str]:
        """Names of the further inputs that a call takes."""
        return getattr(self.source, 'reads', frozenset())

    @property
    def num_classes(self) -> int | None:
        """Width of the logits, None when the network has none."""
        return self.source.num_classes

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes, where the file knows them."""
        return self.card.classes

    @property
    def normalization(self) -> Normalization:
        """What the network was trained on.

        Raises:
            UserError: its input is no normalised image.
        """
        if self._normalization is None:
            raise UserError(f'the teacher {self.source.name} has no normalisation: its input is no image')
        return self._normalization

    @property
    def has_batch_norm(self) -> bool:
        """Whether ``bn='train'`` makes a difference."""
        return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self.network.modules())

    @property
    def seconds(self) -> float:
        """Time spent in this teacher so far."""
        return self._watch.seconds

    @property
    def constants(self) -> dict[str, Tensor]:
        """What the source computes from its weights alone, by name; anew when the network was moved or cast."""
        if self._constants is None:
            compute = getattr(self.source, 'constants', dict)
            device = next(self.network.parameters()).device
            with torch.no_grad(), torch.autocast(device.type, enabled=False):
                self._constants = compute()
        return self._constants

    def bind(self, preprocessor: nn.Module) -> None:
        """Tell which data preprocessor made the batches; they are re-normalised if the network wants other ones.

        Raises:
            UserError: the network wants normalised images, and nobody knows how those of the preprocessor are.
        """
        if self._normalization is None:
            return
        batch = Normalization.of_preprocessor(preprocessor)
        if batch is None:
            kind = type(preprocessor).__name__
            raise UserError(
                f'the teacher {self.source.name} wants images normalised with {self._normalization}, but how '
                f'data_preprocessor={kind} normalises is not known. If its images go to the teacher, give {kind} an '
                'attribute normalization=vfd.teachers.Normalization(mean, std, rgb); if it makes no images, this '
                'teacher does not fit.'
            )
        self._batch_normalization = batch

    def set_bn(self, mode: Literal['eval', 'train'] | None) -> None:
        """Choose the batch-norm statistics, see the argument ``bn``."""
        if mode is None or mode != getattr(self, 'bn', None):
            self.bn: str = self._choose('bn', mode) or 'eval'
        self.train()

    def train(self) -> Teacher:
        """Put the network into its only mode: eval, but for batch norm when ``bn='train'``."""
        self.network.eval()
        if self.bn == 'train':
            for module in self.network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.train()
        return self

    def apply_to_tensors(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Apply ``fn`` to every tensor: how a model that holds the teacher takes it along in ``.to(device)``."""
        self.network._apply(fn)
        self._constants = None

    def __call__(
        self, images: Tensor, data_samples: Sequence[Any] | None = None, **inputs: Any
    ) -> dict[str, Any]:
        """Compute the features at the taps.

        Args:
            images: (B, 3, H, W) floating, as the bound data preprocessor made them (without one: as the network
                wants them).
            data_samples: not used by a live network; :class:`~vfd.teachers.StoredTeacher` reads its keys from them.
            **inputs: further inputs of :data:`vfd.teachers.inputs.INPUTS`, those that the teacher ``reads``; they
                belong to ``images`` as given and are resized together with them.

        Returns:
            One float32 tensor a tap (float64 if the network was cast to it), without gradient; or a
            :class:`vfd.stores.Ragged` of such a tensor, for regions and points.

        Raises:
            UserError: an input that the teacher does not read, or of another shape.
        """
        inputs = check_inputs(inputs, self.reads, f'the teacher {self.source.name}', images)
        with torch.no_grad(), self._watch.run(images.device):
            dtype = next(self.network.parameters()).dtype
            with torch.autocast(images.device.type, enabled=False):
                images, inputs = self._prepare(images, inputs)
                images = images.to(dtype)
                if 'prompt' in inputs:
                    inputs['prompt'] = inputs['prompt'].to(dtype)
            with self._arithmetic(images.device):
                answers = self.extract(images, **inputs)
            return {tap: _answer(answers[tap], dtype) for tap in self.taps}

    def extract(self, images: Tensor, **inputs: Any) -> dict[str, Answer]:
        """Run the network; what a teacher that does more with it than that overrides.

        Args:
            images: (B, 3, H, W), normalised, of the size and type that the network wants.
            **inputs: checked, and resized with the images.
        """
        constants = {'constants': self.constants} if hasattr(self.source, 'constants') else {}
        return self._forward_taps(images, self.taps, **inputs, **constants)

    def _prepare(self, images: Tensor, inputs: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """Images as the network wants them, and the inputs that belong to them."""
        if self._normalization is not None and self._batch_normalization is not None:
            images = self._batch_normalization.convert(images, self._normalization)
        if self.input_size is not None and images.shape[-2:] != (self.input_size, self.input_size):
            old, new = (images.shape[-2], images.shape[-1]), (self.input_size, self.input_size)
            inputs = resize_inputs(inputs, old, new)
            images = F.interpolate(images, new, mode='bicubic', antialias=True, align_corners=False)
        return images, inputs

    def _arithmetic(self, device: torch.device) -> AbstractContextManager:
        return nullcontext() if self.dtype == 'auto' else torch.autocast(device.type, enabled=False)

    def fingerprint(self) -> dict[str, Any]:
        """Return what the answers depend on, in plain types: goes into every checkpoint that was trained with it.

        ``dtype='auto'`` says nothing about autocast: whether a run uses it is in the config of its optimizer. Stores of
        answers are written without autocast (:class:`vfd.engine.hooks.answer_cache.TeacherOutputCacheHook`).
        """
        norm = self._normalization
        return {
            'source': self.source.name,
            'settings': self.settings,
            'checkpoint': Path(self.checkpoint).name,
            'weights_sha256': self.weights_sha256,
            'taps': list(self.taps),
            'num_classes': self.num_classes,
            'input_size': self.input_size,
            'resize': 'bicubic, antialias',
            'mean': None if norm is None else list(norm.mean),
            'std': None if norm is None else list(norm.std),
            'rgb': None if norm is None else norm.rgb,
            'dtype': self.dtype,
            'bn': self.bn,
        }

    def summary(self) -> dict[str, str]:
        """The rows that the dry run prints."""
        size = sum(p.numel() for p in self.network.parameters())
        norm = self._normalization
        sees = (
            'no normalised image' if norm is None else f'mean {_short(norm.mean)}, std {_short(norm.std)}, '
        )
        if norm is not None:
            sees += 'RGB' if norm.rgb else 'BGR'
        return {
            'teacher': self.source.name,
            'teacher checkpoint': str(self.checkpoint),
            'teacher loaded': 'RANDOM WEIGHTS' if self.checkpoint == 'random' else self.report.summary(),
            **self.card.summary(),
            'teacher parameters': f'{size / 1e6:.2f} M, {self.dtype}, bn {self.bn}',
            'teacher sees': sees + (f', {self.input_size} px' if self.input_size else ''),
            'taps': ', '.join(self.taps),
        }

    def __deepcopy__(self, memo: dict) -> Teacher:
        """A copy of the student (EMA, for example) shares the teacher."""
        return self


def _answer(answer: Answer, dtype: torch.dtype) -> Answer:
    """In float32, of a float64 network as it is; whole numbers as they are."""
    values = answer.values if isinstance(answer, Ragged) else answer
    if values.is_floating_point() and dtype != torch.float64:
        values = values.float()
    return Ragged(values, answer.counts) if isinstance(answer, Ragged) else values


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
