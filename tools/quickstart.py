"""The main job on real images: what `make quickstart` runs. DATA and SEEDS come from the environment."""

import os
import sys

from vfd.apis.cli import guarded


def main() -> None:
    """Run it."""
    from vfd.apis.quickstart.run import quickstart

    quickstart(os.environ.get('DATA', 'fashion-mnist'), int(os.environ.get('SEEDS', '1')))


if __name__ == '__main__':
    sys.exit(guarded(main))
