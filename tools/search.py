#!/usr/bin/env python
"""Find a student for a teacher without training: ``python tools/search.py CONFIG``.

Run it again after an interruption and it goes on; with ``--launcher pytorch`` (torchrun) or ``slurm`` (srun) the ranks
share the candidates. The ranking, a picture and the training config of the winner are written into the work folder.
"""

import argparse
import sys

from vfd.cli.main import guarded


def main() -> int:
    """Parse the command line and search."""
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser(
        description='Rank student architectures for a teacher without training them.'
    )
    parser.add_argument(
        'config', help='config with model.teacher and search, such as configs/diswot/search_*.py'
    )
    parser.add_argument('--work-dir', help='folder for the results (default: work_dirs/NAME OF THE CONFIG)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='settings that replace those of the config, for example search.seeds=5 search.init=default',
    )
    for name, what in (
        ('params', 'parameters'),
        ('flops', 'multiply-accumulates'),
        ('latency-ms', 'ms of one image'),
    ):
        parser.add_argument(
            f'--max-{name}',
            type=float,
            metavar='N',
            help=f'limit of {what}, such as 5e6: search.limits of the config',
        )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm'], default='none')
    parser.add_argument('--verify', action='store_true', help='check what an earlier run wrote, and stop')
    args = parser.parse_args()

    def run() -> None:
        from vfd.errors import UserError
        from vfd.offline import search as api

        limits = {name: getattr(args, f'max_{name}') for name in ('params', 'flops', 'latency_ms')}
        given = {f'search.limits.{name}': limit for name, limit in limits.items() if limit is not None}
        options = {**(args.cfg_options or {}), **given}
        if args.verify:
            faults = api.verify_search(args.config, args.work_dir, options)
            if faults:
                raise UserError('\n'.join(['damaged:', *faults]))
            print('ranking and winner follow from the scores, and these agree with their checksums')
        else:
            api.search(args.config, args.work_dir, options, args.launcher)

    return guarded(run)


if __name__ == '__main__':
    sys.exit(main())
