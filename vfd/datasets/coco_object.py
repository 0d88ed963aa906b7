"""COCO-Object: the 80 things of COCO and a background, as labels of pixels."""

from __future__ import annotations

from typing import Any, ClassVar

from mmseg.datasets import COCOStuffDataset

from vfd.registry import DATASETS

_THINGS = 80  # COCO-Stuff counts the things first


@DATASETS.register_module()
class COCOObjectDataset(COCOStuffDataset):
    """COCO-Object, read from mmseg's COCO-Stuff files: things keep their order behind class 0, all else is class 0.

    The label maps that others make of the instance masks may differ where instances overlap [ours].

    Arguments are those of ``COCOStuffDataset``.
    """

    METAINFO: ClassVar[dict] = {
        'classes': ('background', *COCOStuffDataset.METAINFO['classes'][:_THINGS]),
        'palette': [[0, 0, 0], *COCOStuffDataset.METAINFO['palette'][:_THINGS]],
    }

    @classmethod
    def get_label_map(cls, new_classes: Any = None) -> dict[int, int]:
        """Map the labels of COCO-Stuff to those of this data set; the rest is background."""
        stuff = dict.fromkeys([*range(_THINGS, len(COCOStuffDataset.METAINFO['classes'])), 255], 0)
        return {thing: thing + 1 for thing in range(_THINGS)} | stuff
