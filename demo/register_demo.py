"""Show what registers change: ``register_demo.py IMAGE --config C --checkpoint W``.

The picture shows the image, features and lengths of the transformer's tokens before and after, and the denoised target.
"""

import argparse
import sys

from vfd.cli.main import guarded


def run(args: argparse.Namespace) -> None:
    """Look and draw."""
    from vfd.methods.ph_reg.inferencer import RegisterInferencer
    from vfd.methods.ph_reg.pictures import draw_register_maps
    from vfd.stores import atomic_write
    from vfd.visualization import LIGHT

    maps = RegisterInferencer(args.config, args.checkpoint, args.device)(args.image, args.size, args.seed)
    for note in maps.notes:
        print(note)
    atomic_write(args.out, draw_register_maps(maps, LIGHT))
    print(args.out)


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description='Show dense features before and after registers were trained.'
    )
    parser.add_argument('image')
    parser.add_argument('--config', required=True, help='config of the training: configs/ph_reg/ph-reg_*.py')
    parser.add_argument('--checkpoint', required=True, help='checkpoint that it wrote, or a released file')
    parser.add_argument('--size', type=int, help='pixels of the short side; default: as trained')
    parser.add_argument('--seed', type=int, default=0, help='of the views')
    parser.add_argument('--device', help='for example cuda:0 or cpu; default: the GPU if there is one')
    parser.add_argument('--out', default='registers.png', help='the picture')
    args = parser.parse_args()
    return guarded(lambda: run(args))


if __name__ == '__main__':
    sys.exit(main())
