"""A vision network of transformers as teacher, from a local folder or the Hugging Face hub.

====================  =======================  ==========================================================
tap                   shape                    what it is
====================  =======================  ==========================================================
``logits``            (B, C)                   of a network with a classifier (``...ForImageClassification``)
``pooled``            (B, D)                   what the classifier reads; of a network without one its
                                               ``pooler_output`` (C-RADIO: its ``summary``)
``block.<k>``         (B, prefix + N, D)       tokens after transformer block k, before the final norm
``stage.<k>``         (B, C, H, W)             of a transformer the patches of ``block.<k>`` as a map; of a network with
                                               stages (ConvNeXt, Swin) the map of stage k before the next one's
                                               downsampling, not normalised
====================  =======================  ==========================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from vfd.checkpoints import LoadReport, StateFile, load_into, load_state
from vfd.compat import require
from vfd.errors import UserError
from vfd.registry import MODELS

from . import transformers_model as model
from .source import SIZE_ERRORS, check_image_size, check_taps, no_classifier, tap_index


@MODELS.register_module()
class HuggingFaceSource:
    """The image tower of a transformers model: DINOv2, DINOv3, SigLIP, CLIP, C-RADIO, ConvNeXt, Swin and others.

    Of a model with several parts only the image tower is built: CLIP's and SigLIP's vision model, Depth Anything's
    backbone. Blocks of a transformer behind the last tap are not built, poolers and classifiers only where a tap reads
    them; a checkpoint need not have them.

    Args:
        model_name: a local folder with ``config.json``, or a name on the hub, for example
            ``facebook/dinov2-small``. ``checkpoint='pretrained'`` takes its weights too, from safetensors files only
            unless ``trust``.
        taps: the taps that will be computed, see above.
        pretrained: take the weights of ``model_name``. :class:`~vfd.teachers.Teacher` sets it.
        config: instead of ``model_name`` the architecture, for example
            ``dict(model_type='dinov2', hidden_size=384, num_attention_heads=6)``, in transformers' own words.
        mean: channel means, RGB, pixels in 0..255; default: those of ``preprocessor_config.json``.
        std: channel standard deviations.
        trust: run Python code that comes with the model, and unpickle its weights. Only for models that you trust.

    Raises:
        UserError: no such model, one with code or pickled weights without ``trust``, weights that lack a tensor, no
            normalisation, or a tap that the network does not have.
    """

    reads: frozenset[str] = frozenset()

    def __init__(
        self,
        model_name: str | None = None,
        taps: Sequence[str] = ('pooled',),
        pretrained: bool = False,
        config: dict | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        trust: bool = False,
    ) -> None:
        require('transformers')
        if (model_name is None) == (config is None):
            raise UserError(
                'vfd.HuggingFaceSource: give model_name= (a folder or a name on the hub) or config=dict(model_type=...)'
            )
        self.name = f'huggingface:{model_name or (config or {}).get("model_type")}'
        if pretrained and model_name is None:
            raise UserError(
                f'{self.name}: a config has no weights; give model_name= or a file as checkpoint=...'
            )
        whole = model.read_config(self.name, model_name, config, trust)
        processor = model.read_processor(model_name, trust)
        self.normalization = model.normalization(self.name, processor, mean, std)
        self._vision, prefix = model.image_tower(whole)
        self._blocks, self._widths = model.count_parts(self._vision)
        self._index = self._check(taps, whole)
        self.image_size = model.image_size(processor, self._vision)
        classifies = self._cut(taps, whole)
        self._settings = model.Settings(
            self.name, whole if classifies else self._vision, classifies, '' if classifies else prefix, trust
        )
        self.network: Any
        if pretrained:
            self.network, _ = model.load_published(self._settings, model_name, self._needs(taps))
        else:
            self.network = model.build(self._settings)
        self._taps = tuple(taps)
        pooler = getattr(self.network, 'pooler', None)
        if 'pooled' not in taps and pooler is not None and list(pooler.parameters()):
            self.network.pooler = None
        self.num_classes: int | None = whole.num_labels if 'logits' in taps else None

    def channels(self, tap: str) -> int:
        """Return the channels of the features at a ``block`` or ``stage`` tap."""
        return self._widths[self._index[tap]] if self._widths else self._vision.hidden_size

    def block_index(self, tap: str) -> int:
        """Return the block of a tap, counted from 0."""
        return self._index[tap]

    def load(self, file: StateFile) -> LoadReport:
        """Load a weight file; transformers brings older names of tensors to today's.

        Raises:
            UserError: a tensor that the network needs is missing or has another shape.
        """
        own = load_state(file.path, trust=self._settings.trust, foreign_names=True)  # not timm's names
        network, unused = model.load_file(self._settings, type(self.network), own, self._needs(self._taps))
        report = load_into(self.network, network.state_dict(), source_name=str(file.path))
        report.unused = unused
        return report

    def forward_taps(self, images: Tensor, taps: Sequence[str]) -> dict[str, Tensor]:
        """See :class:`~vfd.teachers.sources.source.Source`."""
        options = model.hidden_state_options(self.network) if any('.' in tap for tap in taps) else {}
        read: list[Tensor] = []
        classifier = getattr(self.network, 'classifier', None)
        hook = classifier and classifier.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
        try:
            outputs = self.network(**model.inputs(self._vision, images), **options)
        except SIZE_ERRORS as error:
            check_image_size(error, self.name, images, self.image_size, None)
            raise
        finally:
            if hook is not None:
                hook.remove()
        out = {}
        for tap in taps:
            if tap == 'logits':
                out[tap] = outputs.logits
            elif tap == 'pooled':
                out[tap] = (read[0] if read else self._pooled(outputs)).flatten(1)
            else:
                out[tap] = self._hidden(tap, outputs, images)
        return out

    def _check(self, taps: Sequence[str], whole: Any) -> dict[str, int]:
        """Check all taps and return the numbers of the ``block`` and ``stage`` taps."""
        classifies = model.has_classifier(whole) if whole.name_or_path else model.can_classify(whole)
        if not classifies:
            no_classifier(taps, self.name, None)
        count = len(self._widths) or self._blocks
        kinds = ['logits', 'pooled'] if classifies else ['pooled']
        kinds += ['stage'] if count else []
        kinds += ['block'] if self._blocks else []
        check_taps(taps, kinds, self.name)
        return {tap: tap_index(tap, tap.partition('.')[0], count, self.name) for tap in taps if '.' in tap}

    def _cut(self, taps: Sequence[str], whole: Any) -> bool:
        """Remove from the configuration what no tap needs; return whether a classifier is left."""
        vision = self._vision
        vision.tie_last_hidden_states = (
            False  # or the last block's tokens would be those after the final norm
        )
        if 'logits' in taps or 'pooled' in taps:
            return 'logits' in taps or model.has_classifier(whole)
        if self._blocks:
            self._blocks = vision.num_hidden_layers = max(self._index.values()) + 1
        if hasattr(vision, 'vision_use_head'):
            vision.vision_use_head = False
        return False

    @staticmethod
    def _needs(taps: Sequence[str]) -> Any:
        """Return which tensors a file must hold: mask tokens are for training only, poolers for ``pooled``."""
        pooled = 'pooled' in taps
        return lambda name: not name.endswith('mask_token') and (pooled or not name.startswith('pooler.'))

    def _pooled(self, outputs: Any) -> Tensor:
        pooled = getattr(outputs, 'pooler_output', None)
        pooled = getattr(outputs, 'summary', None) if pooled is None else pooled
        if pooled is None:
            raise UserError(
                f'{self.name} has no pooled feature in transformers; tap "stage.-1" or "block.-1"'
            )
        return pooled

    def _hidden(self, tap: str, outputs: Any, images: Tensor) -> Tensor:
        """Return the tokens or the map after a block or a stage; transformers may put the embedding before them."""
        states = getattr(outputs, 'reshaped_hidden_states', None) if self._widths else None
        states = states or getattr(outputs, 'hidden_states', None)
        if not states:
            raise UserError(f'{self.name} does not give its hidden states; tap "pooled"')
        k = self._index[tap]
        if self._widths:
            feature_map = states[len(states) - len(self._widths) + k]
            if feature_map.ndim != 4 or feature_map.shape[1] != self._widths[k]:
                raise UserError(
                    f'{self.name}: transformers gives the map of stage {k} only as the next stage reads it. Take the '
                    'network of timm (vfd.TimmSource), or tap "pooled"'
                )
            return feature_map
        tokens = states[len(states) - self._blocks + k]
        if tap.startswith('block.'):
            return tokens
        rows, columns = model.grid(self._vision, images)
        patches = tokens[:, -rows * columns :].unflatten(1, (rows, columns))
        return patches.permute(0, 3, 1, 2).contiguous()
