"""Search spaces of existing networks: models of timm by name or pattern, and any config with sampled fields.

Their sizes are counted on the meta device: nothing is computed.
"""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vfd.errors import UserError, did_you_mean
from vfd.methods.diswot.networks import plain_network
from vfd.methods.diswot.spaces import Cost, StudentSpace
from vfd.registry import MODELS

LISTED = 20_000  # a space of more candidates is not listed


def build_student(config: Mapping[str, Any]) -> nn.Module:
    """Build the student of a config.

    Raises:
        Exception: whatever its library raises for a config that it cannot build.
    """
    return MODELS.build(ConfigDict(copy.deepcopy(dict(config))))


def counted_cost(config: Mapping[str, Any], input_size: int) -> Cost:
    """Count multiply-accumulates (half of torch's count: convolutions, matrix products, attention) and parameters."""
    try:
        with torch.device('meta'):
            network = plain_network(build_student(config))
    except (RuntimeError, NotImplementedError):  # some networks compute while they are built
        network = plain_network(build_student(config)).to('meta')
    network.eval()
    images = torch.zeros(1, 3, input_size, input_size, device='meta')
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(images)
    return Cost(counter.get_total_flops() / 2, sum(p.numel() for p in network.parameters()))


class ListedSpace(StudentSpace):
    """A space whose candidates are all known; neighbours are any others."""

    def __init__(self, num_classes: int, input_size: int) -> None:
        super().__init__(num_classes, input_size)
        self._costs: dict[str, Cost] = {}

    def candidates(self) -> list[str]:
        """Return all candidates."""
        raise NotImplementedError

    def random(self, rng: Random) -> str:
        """Return a random candidate."""
        return rng.choice(self.candidates())

    def mutate(self, candidate: str, rng: Random) -> str:
        """Return any other candidate."""
        return rng.choice([one for one in self.candidates() if one != candidate] or [candidate])

    def cross(self, one: str, other: str, rng: Random) -> str:
        """Return one of both."""
        return rng.choice((one, other))

    def cost(self, candidate: str) -> Cost:
        """Count on the meta device, once."""
        if candidate not in self._costs:
            self._costs[candidate] = counted_cost(self.student(candidate), self.input_size)
        return self._costs[candidate]


class TimmSpace(ListedSpace):
    """Models of timm.

    Args:
        models: names (``resnet18``) and patterns (``mobilenetv3_*``), in timm's way. What timm does not have is
            reported with the nearest name, and left out.
        num_classes: K.
        input_size: side of the images; networks of a fixed size are built for it where they take ``img_size``.
        kwargs: passed to ``timm.create_model`` for every one of them.
    """

    def __init__(
        self, models: Sequence[str], num_classes: int = 1000, input_size: int = 224, **kwargs: Any
    ) -> None:
        import timm

        super().__init__(num_classes, input_size)
        self.kwargs = kwargs
        self.unknown = {}
        found: dict[str, None] = {}
        for name in [models] if isinstance(models, str) else models:
            matches = timm.list_models(name) if any(c in name for c in '*?[') else [name]
            known = [one for one in matches if timm.is_model(one)]
            if not known:
                hint = did_you_mean(name.partition('.')[0], timm.list_models())
                self.unknown[name] = f'timm has no model "{name}"{hint}'
            found.update(dict.fromkeys(known))
        if not found:
            raise UserError('; '.join(self.unknown.values()) or 'TimmSpace: models=[...] names no model')
        self._names = list(found)

    def candidates(self) -> list[str]:
        """Return the names."""
        return list(self._names)

    def student(self, candidate: str) -> dict[str, Any]:
        """Return the config of the model of this name."""
        from timm.models import get_pretrained_cfg

        own = get_pretrained_cfg(candidate)
        size = {}
        if own is not None and own.fixed_input_size and own.input_size[-1] != self.input_size:
            size = {'img_size': self.input_size}
        return self._timm(candidate, **{**size, **self.kwargs})


class ConfigSpace(ListedSpace):
    """Any student config, some of whose fields are sampled; a candidate is the JSON object of their values.

    Args:
        student: the config, for example ``dict(type='mmpretrain.ImageClassifier', backbone=..., head=...)``.
        fields: dotted name -> values, for example ``{'backbone.depth': [18, 34]}``.
        num_classes: K, for the reports; the config names it itself.
        input_size: side of the images.
    """

    def __init__(
        self,
        student: Mapping[str, Any],
        fields: Mapping[str, Sequence[Any]],
        num_classes: int = 1000,
        input_size: int = 224,
    ) -> None:
        super().__init__(num_classes, input_size)
        self.template = ConfigDict(copy.deepcopy(dict(student)))
        self.fields = {name: list(values) for name, values in fields.items()}
        if not self.fields or not all(self.fields.values()):
            raise UserError("ConfigSpace: fields={'backbone.depth': [18, 34]} names fields and their values")
        for name in self.fields:
            if not _has_parent(self.template, name):
                raise UserError(
                    f'ConfigSpace: the student config has no "{name.rpartition(".")[0]}" for "{name}"'
                )
        size = math.prod(len(values) for values in self.fields.values())
        if size > LISTED:
            raise UserError(
                f'ConfigSpace: {size} combinations; give fewer values, at most {LISTED} combinations'
            )

    def candidates(self) -> list[str]:
        """Return all combinations."""
        names = list(self.fields)
        return [
            _as_text(dict(zip(names, values, strict=True)))
            for values in itertools.product(*self.fields.values())
        ]

    def random(self, rng: Random) -> str:
        """Draw a value for every field."""
        return _as_text({name: rng.choice(values) for name, values in self.fields.items()})

    def mutate(self, candidate: str, rng: Random) -> str:
        """Draw another value for one field."""
        chosen = json.loads(candidate)
        name = rng.choice(
            [name for name, values in self.fields.items() if len(values) > 1] or list(self.fields)
        )
        others = [value for value in self.fields[name] if value != chosen[name]]
        return _as_text({**chosen, name: rng.choice(others or self.fields[name])})

    def cross(self, one: str, other: str, rng: Random) -> str:
        """Take every field from one of two."""
        first, second = json.loads(one), json.loads(other)
        return _as_text({name: rng.choice((first, second))[name] for name in self.fields})

    def student(self, candidate: str) -> dict[str, Any]:
        """Return the config with these values."""
        config = Config(dict(student=copy.deepcopy(self.template)))
        config.merge_from_dict({f'student.{name}': value for name, value in json.loads(candidate).items()})
        return config.student.to_dict()


def _as_text(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)


def _has_parent(config: Any, name: str) -> bool:
    for part in name.split('.')[:-1]:
        if isinstance(config, (list, tuple)) and part.isdigit() and int(part) < len(config):
            config = config[int(part)]
        elif isinstance(config, Mapping) and part in config:
            config = config[part]
        else:
            return False
    return True
