"""Choose the networks of ``test_timm_sweep.py``: ``python tests/teachers/choose_timm_networks.py``.

Of every class of every module of ``timm.models`` the network with the fewest parameters is taken, at the first image
size that it accepts, and written to ``timm_networks.json``. Counting 1,300 networks takes about ten minutes.
"""

import json
from pathlib import Path
from pkgutil import iter_modules

import timm
import torch

SIZES = (32, 64, 96, 128, 160, 192, 224, 256, 384)
# Arguments that make the large ones quick.
_TOKENS = {'depth': 2, 'embed_dim': 64, 'num_heads': 2}
SMALLER = {
    'beit_base_patch16_224': _TOKENS,
    'davit_tiny': {'depths': [1, 1, 1, 1], 'embed_dims': [16, 32, 64, 128], 'num_heads': [1, 2, 4, 8]},
    'deepseek_vit_412m': _TOKENS,
    'deepseek_vit_412m_enc': _TOKENS,
    'efficientvit_l1': {'widths': [8, 16, 32, 64, 64]},
    'gemma4_vit_167m': _TOKENS,
    'gemma4_vit_167m_enc': _TOKENS,
    'mobilenetv5_300m_enc': {'channel_multiplier': 0.25},
    'mobilenetv5_base': {'channel_multiplier': 0.25},
    'naflexvit_base_patch16_parfac_gap': _TOKENS,
    'qwen3_vit_88m': _TOKENS,
    'qwen3_vit_88m_enc': _TOKENS,
    'samvit_base_patch16_224': _TOKENS,
}
# Its smallest network takes images of 256 pixels only.
INSTEAD = {'halonet_h1': 'eca_botnext26ts_256'}


def smallest(module):
    """The smallest network of every class of a module of timm: (class, name)."""
    found = {}
    for name in timm.list_models(module=module):
        with torch.device('meta'):
            network = timm.create_model(name)
        size = sum(parameter.numel() for parameter in network.parameters())
        kind = type(network).__name__
        found[kind] = min(found.get(kind, (size, name)), (size, name))
    return sorted((kind, name) for kind, (_, name) in found.items())


def accepted(name):
    """The first image size, and the arguments, with which a network runs."""
    arguments = [{'num_classes': 10}, {}]
    for size in SIZES:
        for classes in arguments:
            for image in ({}, {'img_size': size}):
                kwargs = {**SMALLER.get(name, {}), **classes, **image}
                try:
                    network = timm.create_model(name, **kwargs).eval()
                    with torch.inference_mode():
                        network(torch.rand(1, 3, size, size))
                except Exception:
                    continue
                return {'size': size, 'kwargs': kwargs}
    raise SystemExit(f'{name} runs at none of {SIZES}')


def main():
    entries = []
    for module in sorted(
        info.name for info in iter_modules(timm.models.__path__) if timm.list_models(module=info.name)
    ):
        for kind, name in smallest(module):
            name = INSTEAD.get(name, name)
            entries.append({'module': module, 'type': kind, 'model': name, **accepted(name)})
            print(entries[-1])
    lines = ',\n'.join(json.dumps(entry) for entry in entries)
    (Path(__file__).parent / 'timm_networks.json').write_text(f'[\n{lines}\n]\n')


if __name__ == '__main__':
    main()
