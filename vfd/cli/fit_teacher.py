"""``vfd fit-teacher --images DIR --model NAME --out FILE``: see :mod:`vfd.offline.fit_teacher`."""

from __future__ import annotations

import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``fit-teacher``."""
    parser.add_argument('--images', help='labelled images, DIR/<class>/<image>')
    parser.add_argument(
        '--config', help='instead: a training config; its data sets (and, without --model, its model.teacher)'
    )
    parser.add_argument('--model', help='timm:NAME, open_clip:NAME@TAG or hf:NAME; a name alone is of timm')
    parser.add_argument('--checkpoint', help='weight file, "pretrained" (default) or "random"')
    parser.add_argument('--out', required=True, help='.safetensors file to write')
    parser.add_argument('--val', help='held-out images, DIR/<class>/<image>')
    parser.add_argument(
        '--val-fraction', type=float, default=0.2, help='part of every class that is held out without --val'
    )
    parser.add_argument('--input-size', type=int, help="side in pixels (default: the network's own)")
    parser.add_argument(
        '--image-size', type=int, help="side of the student's images, if they are smaller than the teacher's"
    )
    parser.add_argument('--batch-size', type=int, default=64)
    parser.add_argument('--workers', type=int, default=2)
    parser.add_argument('--seed', type=int, default=0, help='of the split')
    parser.add_argument('--device', help='for example cuda:0 or cpu; default: the GPU if there is one')


def run(args: argparse.Namespace) -> None:
    """Fit, measure and write a teacher."""
    from vfd.offline.fit_teacher import fit_from_command

    known = vars(args).keys() - {'command', 'run'}
    fit_from_command(**{name: getattr(args, name) for name in known})
