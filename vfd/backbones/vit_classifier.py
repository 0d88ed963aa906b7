"""A vision transformer of timm as a classifier that starts from pre-training: what fine-tuning trains.

    model = dict(
        type='vfd.ViTClassifier',
        model_name='vit_small_patch16_224',
        global_pool='avg',
        num_classes=1000,
        checkpoint='work_dirs/dmae_.../epoch_100.pth',
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'))

timm's ``global_pool='avg'`` is MAE's fine-tuning network (arXiv 2111.06377): the mean of the patch tokens, without
the class token, then ``fc_norm`` and ``head``, and no ``norm``. ``'token'`` reads the class token after ``norm``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from mmpretrain.models.classifiers import TimmClassifier
from timm.layers import Mlp, trunc_normal_
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vfd.checkpoints import load_into, load_state
from vfd.errors import UserError
from vfd.registry import MODELS

# What pre-training does not have; everything else of the network has to be in its checkpoint.
_NEW_PARTS = ('head.', 'head_dist.', 'dist_token', 'fc_norm.')
# Arguments that are TimmClassifier's own, or that only fetch weights.
_NOT_TIMMS = (
    *('loss', 'train_cfg', 'with_cp', 'data_preprocessor', 'init_cfg'),
    *('pretrained', 'pretrained_cfg', 'checkpoint_path'),
)


@MODELS.register_module()
class ViTClassifier(TimmClassifier):
    """mmpretrain's ``TimmClassifier`` for vision transformers, with MAE's way to start fine-tuning.

    Modes, losses, mixing of images and names of tensors are ``TimmClassifier``'s. All parameters train, the position
    table too. ``checkpoint`` is read when training starts (``init_weights``): a trained model is tested and exported
    without that file.

    Args:
        model_name: a vision transformer of timm.
        checkpoint: weights of a pre-training: what DMAE and G2SD write here, a released file of MAE, DMAE or G2SD, or
            any file with timm's names. Every tensor of the encoder is required; the classifier, ``fc_norm`` and
            the distillation token may be absent and then keep their initial values.
        resize_pos_embed: allow a checkpoint whose position table has another grid, and interpolate it.
        head_init_std: standard deviation of the new classifier's weights (truncated normal, bias 0); as published.
        mlp_hidden_drop_rate: dropout between the two linear layers of each MLP; None: as after the second one,
            ``proj_drop_rate``, which is timm's way. Hugging Face's ViT has none there (0).
        kwargs: ``TimmClassifier``'s (``loss``, ``with_cp``, ``data_preprocessor``, ``init_cfg``); all else goes to
            ``timm.create_model`` (``num_classes``, ``global_pool``, ``img_size``, ``drop_path_rate`` ...).

    Raises:
        UserError: the network is no vision transformer, or has no classifier.
    """

    def __init__(
        self,
        model_name: str,
        checkpoint: str | Path | None = None,
        resize_pos_embed: bool = False,
        head_init_std: float = 2e-5,
        mlp_hidden_drop_rate: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model_name, **kwargs)
        if not isinstance(self.model, VisionTransformer) or not isinstance(self.model.head, nn.Linear):
            raise UserError(
                f'ViTClassifier: {model_name} with these arguments is no vision transformer of timm with a linear '
                'classifier. Take one such as vit_small_patch16_224 with num_classes > 0; for any other network of '
                'timm there is mmpretrain.TimmClassifier.'
            )
        self.checkpoint = checkpoint
        self.resize_pos_embed = resize_pos_embed
        self._started = False
        if not kwargs.get('pretrained'):
            trunc_normal_(self.model.head.weight, std=head_init_std)
            nn.init.zeros_(self.model.head.bias)
        if mlp_hidden_drop_rate is not None:
            for mlp in (part for part in self.model.modules() if isinstance(part, Mlp)):
                mlp.drop1.p = mlp_hidden_drop_rate
        self._timm = model_name, {key: value for key, value in kwargs.items() if key not in _NOT_TIMMS}

    @property
    def num_classes(self) -> int:
        """C, the number of logits."""
        return self.model.num_classes

    def init_weights(self) -> None:
        """Load ``checkpoint``; mmengine's runner calls this once, before training.

        mmengine's own method would call timm's ``init_weights`` and so redraw all weights, published ones too.

        Raises:
            UserError: a tensor of the encoder is not in the file, or has another shape.
        """
        if self.checkpoint is None or self._started:
            return
        self._started = True
        state = load_state(self.checkpoint)
        report = load_into(
            self.model,
            state,
            needed=lambda name: not name.startswith(_NEW_PARTS),
            prefix='student.'
            if 'student.cls_token' in state.state
            else '',  # named, so that errors count right
            resize_pos_embed=self.resize_pos_embed,
        )
        new = f'; new: {", ".join(report.missing)}' if report.missing else ''
        print_log(f'{type(self).__name__} starts from {report.summary()}{new}', logger='current')

    def timm_form(self) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
        """Return this network as timm alone builds it.

        Returns:
            The name and the arguments of ``timm.create_model``, and the tensors under timm's names.
        """
        name, arguments = self._timm
        own = getattr(self.model, 'timm_form', None)
        if own is None:
            return name, dict(arguments), self.model.state_dict()
        name, state = own()
        return name, dict(arguments), state
