"""Export a trained student: ``python tools/export.py CONFIG CHECKPOINT --to onnx``. The same as ``vfd export``."""

import argparse
import sys

from vfd.apis.exporting import export_arguments, run_export
from vfd.cli.main import guarded


def main() -> int:
    """Parse the command line and export."""
    parser = argparse.ArgumentParser(
        description='Export a trained student and compare it with the live model.'
    )
    export_arguments(parser)
    args = parser.parse_args()
    return guarded(lambda: run_export(args))


if __name__ == '__main__':
    sys.exit(main())
