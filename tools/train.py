#!/usr/bin/env python
"""Train a student from a config: python tools/train.py CONFIG [--resume] [--dry-run] ..."""

import sys

from vfd.cli.main import main

if __name__ == '__main__':
    sys.exit(main(['train', *sys.argv[1:]]))
