"""Three methods as somebody else would add them: depth with a prompted teacher, regions, clouds without teacher.

None of them touches ``vfd.teachers``, ``vfd.engine`` or ``vfd.export``; a config names this module in
``custom_imports``. Shapes: B samples, H x W pixels, R regions of all samples, N points, D channels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseDataPreprocessor, BaseModule
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision.ops import roi_align

from vfd.methods.base import Distiller, Method
from vfd.registry import DATASETS, MODELS
from vfd.stores.ragged import Ragged
from vfd.students import forward_taps
from vfd.teachers import Normalization

SIZE, REGION, POINTS = 16, 8, 12
MEAN, STD = [120.0, 110.0, 100.0], [60.0, 60.0, 60.0]


def conv(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, out, 3, padding=1))


# --------------------------------------------------------------------------------------------------- depth


@MODELS.register_module()
class ToyDepthSource:
    """Depth (B, 1, H, W) of an image and a sparse metric prompt."""

    num_classes = None
    reads = frozenset({'prompt'})
    name = 'toy depth'

    def __init__(self, taps: Any = ('depth',), pretrained: bool = False) -> None:
        self.network = conv(4, 1)
        self.normalization = Normalization(tuple(MEAN), tuple(STD))

    def forward_taps(self, images: Tensor, taps: Any, prompt: Tensor | None = None) -> dict[str, Tensor]:
        assert prompt is not None and prompt.shape[-2:] == images.shape[-2:]
        return {'depth': self.network(torch.cat([images, prompt], 1)).exp()}


@MODELS.register_module()
class ToyDepthStudent(BaseModule):
    """Depth of an image alone."""

    def __init__(self) -> None:
        super().__init__()
        self.net = conv(3, 1)

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = 'tensor') -> Any:
        depth = self.net(inputs).exp()
        if mode == 'predict':
            return [BaseDataElement(pred_depth_map=map_) for map_ in depth]
        return depth

    def forward_taps(self, inputs: Tensor, taps: Any) -> dict[str, Tensor]:
        return {'depth': self(inputs)}


@MODELS.register_module()
class ToyDepth(Distiller):
    def loss(self, inputs: Tensor, data_samples: list | None) -> dict[str, Tensor]:
        prompt = torch.stack([sample.prompt for sample in data_samples])
        target = self.teacher(inputs, data_samples=data_samples, prompt=prompt)['depth']
        depth = forward_taps(self.student, inputs, ['depth'])['depth']
        return {'loss_depth': F.l1_loss(depth, F.interpolate(target, depth.shape[-2:]))}


# ------------------------------------------------------------------------------------------------- regions


@MODELS.register_module()
class ToyRegionSource:
    """A vector for every box: a network that sees nothing but the box."""

    num_classes = None
    reads = frozenset({'boxes'})
    name = 'toy regions'

    def __init__(self, taps: Any = ('regions',), pretrained: bool = False) -> None:
        self.network = conv(3, 5)
        self.normalization = Normalization(tuple(MEAN), tuple(STD))

    def constants(self) -> dict[str, Tensor]:
        return {'text': F.normalize(self.network[-1].weight.flatten(1)[:, :5], dim=1)}

    def forward_taps(
        self, images: Tensor, taps: Any, boxes: Any = None, constants: Any = None
    ) -> dict[str, Ragged]:
        crops = roi_align(images, list(boxes), REGION, aligned=True)  # (R, 3, 8, 8)
        counts = torch.tensor([len(some) for some in boxes], device=images.device)
        return {'regions': Ragged(self.network(crops).mean((2, 3)), counts)}


@MODELS.register_module()
class ToyRegions(Distiller):
    def loss(self, inputs: Tensor, data_samples: list | None) -> dict[str, Tensor]:
        boxes = [sample.boxes for sample in data_samples]
        target = self.teacher(inputs, data_samples=data_samples, boxes=boxes)['regions']
        maps = forward_taps(self.student, inputs, ['stage.-1'])['stage.-1']  # (B, D, h, w)
        features = roi_align(maps, boxes, 1, maps.shape[-1] / SIZE, aligned=True).flatten(1)[:, :5]  # (R, 5)
        assert len(target.values) == len(features)
        scores = features @ self.teacher.constants['text'].T, target.values @ self.teacher.constants['text'].T
        return {'loss_regions': F.l1_loss(features, target.values), 'loss_text': F.mse_loss(*scores)}


# -------------------------------------------------------------------------------------------- point clouds


@MODELS.register_module()
class ToyPadding(BaseDataPreprocessor):
    """Points of any number as one padded tensor; no image, no normalisation."""

    normalization = None

    def forward(self, data: dict, training: bool = False) -> dict:
        data = self.cast_data(data)
        points = nn.utils.rnn.pad_sequence(list(data['inputs']), batch_first=True)  # (B, N, 4)
        return {'inputs': points, 'data_samples': data['data_samples']}


@MODELS.register_module()
class ToyEncoder(BaseModule):
    """Points (B, N, 4) to a bird's-eye-view map (B, 6, 4, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.point = nn.Linear(4, 6 * 16)

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = 'tensor') -> Any:
        maps = self.point(inputs).amax(1).view(-1, 6, 4, 4)
        if mode == 'predict':
            return [BaseDataElement(pred_map=map_) for map_ in maps]
        return maps

    def forward_taps(self, inputs: Tensor, taps: Any) -> dict[str, Tensor]:
        return {'bev': self(inputs)}


@MODELS.register_module()
class ToyOccupancy(Method):
    """Occupancy of a grid; the target lies in the samples. The seen clouds are counted, for resuming."""

    seen = 0

    def loss(self, inputs: Tensor, data_samples: list | None) -> dict[str, Tensor]:
        target = torch.stack([sample.occupied for sample in data_samples])
        bev = forward_taps(self.student, inputs, ['bev'])['bev']
        self.seen += len(inputs)
        return {'loss_occupancy': F.binary_cross_entropy_with_logits(bev.mean(1), target)}

    def method_state(self) -> dict[str, Any]:
        return {'seen': self.seen}

    def load_method_state(self, state: dict[str, Any]) -> None:
        self.seen = state['seen']


# ---------------------------------------------------------------------------------------------------- data


@DATASETS.register_module()
class ToyScenes(Dataset):
    """Images with a sparse depth and boxes, or clouds; every sample has a key of its own and none has a file."""

    metainfo: dict = {}  # noqa: RUF012

    def __init__(self, kind: str, length: int = 10) -> None:
        self.kind, self.length = kind, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict:
        random = torch.Generator().manual_seed(index)
        sample = BaseDataElement(metainfo={'sample_key': f'scene/{index}'})
        if self.kind == 'clouds':
            points = torch.randn(POINTS + index, 4, generator=random)
            sample.set_data({'occupied': (torch.rand(4, 4, generator=random) < 0.5).float()})
            return {'inputs': points, 'data_samples': sample}
        image = torch.randint(0, 256, (3, SIZE, SIZE), generator=random, dtype=torch.uint8)
        depth = 5 * torch.rand(1, SIZE, SIZE, generator=random)
        sample.set_data({'prompt': depth * (torch.rand(1, SIZE, SIZE, generator=random) < 0.1)})
        corners = (SIZE - 4) * torch.rand(
            index % 3, 2, generator=random
        )  # images without a box are there too
        sample.set_data({'boxes': torch.cat([corners, corners + 4], 1)})
        return {'inputs': image, 'data_samples': sample}
