#!/usr/bin/env python
"""Measure artifact tokens: ``python tools/artifact_metrics.py CONFIG [CHECKPOINT] --images FOLDER --out FOLDER``.

Lengths of the patch tokens of teacher and student, and their cosines with the mean over many views. Prints a table and
writes ``artifacts.json`` and ``artifacts.png``.
"""

import argparse
import sys

from vfd.cli.main import guarded


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description='Measure artifact tokens before and after registers.')
    parser.add_argument('config', help='config of a PH-Reg training')
    parser.add_argument(
        'checkpoint', nargs='?', help='checkpoint that it wrote; default: the student at its start'
    )
    parser.add_argument('--images', required=True, help='folder of images')
    parser.add_argument('--out', required=True, help='folder for artifacts.json and artifacts.png')
    parser.add_argument(
        '--views', type=int, default=200, help='views of the target (default 200, as in the paper)'
    )
    parser.add_argument('--limit', type=int, help='take only the first images, by name')
    parser.add_argument('--seed', type=int, default=0, help='of the views')
    parser.add_argument('--device', help='for example cuda:0 or cpu; default: the GPU if there is one')
    return parser.parse_args()


def run(args: argparse.Namespace) -> None:
    """Run the command line."""
    from vfd.methods.ph_reg.artifacts import analyse_artifacts, print_table

    results = analyse_artifacts(
        args.config, args.checkpoint, args.images, args.out, args.views, args.limit, args.seed, args.device
    )
    print_table(results)
    print(f'{args.out}/artifacts.json\n{args.out}/artifacts.png')


if __name__ == '__main__':
    parsed = arguments()
    sys.exit(guarded(lambda: run(parsed)))
