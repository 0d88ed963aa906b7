#!/usr/bin/env python
"""Label random crops of every image with a teacher, once: ``python tools/relabel.py CONFIG``.

Run it again after an interruption and it goes on; with ``--launcher pytorch`` (torchrun) or ``slurm`` (srun) the ranks
share the images, and ``--merge`` makes one file of their shards.
"""

import argparse
import sys

from vfd.cli.main import guarded


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser(
        description='Write a store of soft labels of many random crops of every image.'
    )
    parser.add_argument('config', help='config with a vfd.RegionLabeller and the images')
    parser.add_argument('--work-dir', help='folder of the store (default work_dirs/<config name>)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='settings that replace those of the config, for example model.crops=100',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm'], default='none')
    parser.add_argument('--device', help='for example cuda:0 or cpu')
    parser.add_argument('--verify', action='store_true', help='check what an earlier run wrote, and stop')
    parser.add_argument('--merge', action='store_true', help='make one file of the finished shards, and stop')
    return parser.parse_args()


def run(args: argparse.Namespace) -> None:
    """Do what the command line says."""
    from vfd.errors import UserError
    from vfd.offline import label as api

    if args.verify:
        faults = api.verify_relabelling(args.config, args.work_dir, args.cfg_options)
        if faults:
            raise UserError('\n'.join(['damaged:', *faults]))
        print('all records agree with their checksums and their images')
    elif args.merge:
        print(api.merge_relabelling(args.config, args.work_dir, args.cfg_options))
    else:
        api.relabel(args.config, args.work_dir, args.cfg_options, args.launcher, args.device)


if __name__ == '__main__':
    parsed = arguments()
    sys.exit(guarded(lambda: run(parsed)))
