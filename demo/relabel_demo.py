"""Show a teacher's labels of random crops of an image: ``relabel_demo.py IMAGE --config CONFIG``.

The picture shows the image with the boxes of its crops, coloured by FerKD's categories, and crops of every category
with their five best classes.
"""

import argparse
import sys

from vfd.cli.main import guarded


def run(args: argparse.Namespace) -> None:
    """Label, calibrate, draw."""
    from vfd.methods.ferkd.inferencer import show_regions
    from vfd.stores import atomic_write

    names = ('low', 'mid', 'high', 'confidence', 'min_keep')
    options = {'model.crops': args.crops, 'model.seed': args.seed, **(args.cfg_options or {})}
    png, text = show_regions(
        args.config,
        args.image,
        {name: getattr(args, name) for name in names},
        options,
        args.ground_truth,
        args.class_names,
        args.device,
    )
    print(text)
    atomic_write(args.out, png)
    print(args.out)


def main() -> int:
    """Parse the command line."""
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser(description='Draw the crops of an image by the categories of FerKD.')
    parser.add_argument('image')
    parser.add_argument('--config', required=True, help='relabelling config; its teacher labels the crops')
    parser.add_argument('--crops', type=int, default=24)
    parser.add_argument('--low', type=float, default=0.05, help='crops below are discarded (project default)')
    parser.add_argument('--mid', type=float, default=0.3, help='crops below are context (project default)')
    parser.add_argument(
        '--high', type=float, default=0.99, help='crops above are discarded (project default)'
    )
    parser.add_argument('--confidence', choices=['max', 'gt'], default='max')
    parser.add_argument('--min-keep', type=int, default=4)
    parser.add_argument('--ground-truth', type=int, help="class of the image; default: the teacher's best")
    parser.add_argument('--class-names', help='text file with one class name a line')
    parser.add_argument('--seed', type=int, default=0, help='of the crops')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='settings of the config'
    )
    parser.add_argument('--device', help='for example cuda:0 or cpu')
    parser.add_argument('--out', default='regions.png', help='the picture')
    args = parser.parse_args()
    return guarded(lambda: run(args))


if __name__ == '__main__':
    sys.exit(main())
