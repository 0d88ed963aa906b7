"""``vfd export CONFIG CHECKPOINT --to TARGET``: see :func:`vfd.apis.exporting.export`."""

from __future__ import annotations

import argparse

from vfd.errors import UserError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``export``."""
    parser.add_argument('config', help='config the student was trained with')
    parser.add_argument('checkpoint', help='checkpoint that training wrote')
    parser.add_argument(
        '--to',
        required=True,
        metavar='TARGET',
        help='timm, mmpretrain, mmdet, mmseg, hf, safetensors, onnx or torchscript',
    )
    parser.add_argument(
        '--part',
        help='model or backbone; default: the model where it has heads and the target can build it, else the backbone',
    )
    parser.add_argument('--out', metavar='DIR', help='folder; default: export/ beside the checkpoint')
    parser.add_argument(
        '--images',
        nargs='+',
        metavar='PATH',
        help='folder or files to compare on; default: the first 8 images of the test data set, of a detector 4',
    )
    parser.add_argument(
        '--tolerance',
        type=float,
        help='largest error allowed, as a fraction of the largest output; default: that of the target',
    )


def run(args: argparse.Namespace) -> None:
    """Export, then print what was checked and how to load the result."""
    from vfd.apis.exporting import export, print_certificate

    if args.tolerance is not None and not args.tolerance >= 0:
        raise UserError(f'--tolerance {args.tolerance}: expected a number of at least 0, such as 1e-4')
    print_certificate(
        export(args.config, args.checkpoint, args.to, args.out, args.images, args.tolerance, args.part)
    )
