"""``vfd label CONFIG``: label random crops of every image with a teacher, once, see :mod:`vfd.offline.label`.

Run it again after an interruption and it goes on; with ``--launcher pytorch`` (torchrun) or ``slurm`` (srun) the ranks
share the images, and ``--merge`` makes one file of their shards.
"""

from __future__ import annotations

import argparse

from vfd.cli.options import add_config_options, add_device, add_launcher, add_verify


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``label``."""
    parser.add_argument('config', help='config with a labeller as its model, and the images')
    parser.add_argument('--work-dir', help='folder of the store (default work_dirs/<config name>)')
    add_config_options(parser, 'model.crops=100')
    add_launcher(parser)
    add_device(parser)
    add_verify(parser)
    parser.add_argument('--merge', action='store_true', help='make one file of the finished shards, and stop')


def run(args: argparse.Namespace) -> None:
    """Label, check or merge."""
    from vfd.offline import label as api
    from vfd.offline.step import report_faults

    if args.verify:
        faults = api.verify_relabelling(args.config, args.work_dir, args.cfg_options)
        report_faults(faults, 'all records agree with their checksums and their images')
    elif args.merge:
        print(api.merge_relabelling(args.config, args.work_dir, args.cfg_options))
    else:
        api.relabel(args.config, args.work_dir, args.cfg_options, args.launcher, args.device)
