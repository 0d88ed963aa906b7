"""``vfd doctor [CONFIG]``: see :func:`vfd.apis.doctor.doctor`. Exit code 0: healthy; 1: something to mend."""

from __future__ import annotations

import argparse

from vfd.cli.options import add_config_options


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``doctor``."""
    parser.add_argument('config', nargs='?', help='config of a training; default: the environment alone')
    parser.add_argument('--work-dir', help='where the run would write')
    add_config_options(parser, 'data_root=data/mine')


def run(args: argparse.Namespace) -> int:
    """Examine and report."""
    from vfd.apis.doctor import doctor

    return int(not doctor(args.config, args.work_dir, args.cfg_options).healthy)
