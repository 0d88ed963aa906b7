#!/usr/bin/env python
"""Find a student for a teacher without training: ``python tools/search.py CONFIG``.

Run it again after an interruption and it goes on. The ranking, a picture and the training config of the winner are
written into the work folder.
"""

import argparse
import sys

from vfd.apis.cli import guarded


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
        help='settings that replace those of the config, for example search.seeds=5 search.limits.flops=1e8',
    )
    args = parser.parse_args()

    def run() -> None:
        from vfd.apis.search import search

        search(args.config, args.work_dir, args.cfg_options)

    return guarded(run)


if __name__ == '__main__':
    sys.exit(main())
