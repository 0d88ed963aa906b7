"""Options that several commands share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any


class ConfigOptions(argparse.Action):
    """mmengine's ``DictAction``, imported where the option is used: help needs no mmengine."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option: str | None = None,
    ) -> None:
        """Parse ``KEY=VALUE`` pairs into a dict."""
        from vfd.cli.main import guarded

        def parse() -> None:
            from mmengine.config import DictAction

            DictAction(self.option_strings, self.dest, nargs='+')(parser, namespace, values, option)

        if code := guarded(parse):
            parser.exit(code)


def add_config_options(parser: argparse.ArgumentParser, example: str) -> None:
    """Add ``--cfg-options``; ``example`` is one setting."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=ConfigOptions,
        metavar='KEY=VALUE',
        help=f'settings that replace those of the config, for example {example}',
    )


def add_launcher(
    parser: argparse.ArgumentParser, launchers: Sequence[str] = ('none', 'pytorch', 'slurm')
) -> None:
    """Add ``--launcher``."""
    parser.add_argument('--launcher', choices=launchers, default='none', help='what started the ranks')


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``."""
    parser.add_argument('--device', help='for example cuda:0 or cpu; default: the GPU if there is one')


def add_verify(parser: argparse.ArgumentParser) -> None:
    """Add ``--verify``."""
    parser.add_argument('--verify', action='store_true', help='check what an earlier run wrote, and stop')


def add_runner_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that ``train`` and ``test`` share."""
    parser.add_argument('--work-dir', help='folder for logs and checkpoints')
    add_config_options(parser, 'optim_wrapper.optimizer.lr=0.1')
    add_launcher(parser, ('none', 'pytorch', 'slurm', 'mpi'))
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def set_local_rank(args: argparse.Namespace) -> None:
    """Pass ``--local_rank`` of old launchers on."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
