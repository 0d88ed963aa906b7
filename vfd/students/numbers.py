"""Numbers of taps such as ``stage.3``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vfd.errors import UserError


def numbered(taps: Sequence[str], kind: str, count: int, name: str) -> dict[str, int]:
    """Return the number of each tap of a kind, from 0; negative ones count from the end.

    Args:
        taps: of any kind.
        kind: ``stage``, ``block``, ``neck`` or ``rpn``.
        count: how many there are.
        name: of the network, for the message.

    Raises:
        UserError: a number that there is not.
    """
    found = {}
    for tap in taps:
        head, dot, number = tap.partition('.')
        if head != kind or not dot:
            continue
        if not number.removeprefix('-').isdecimal() or not -count <= int(number) < count:
            raise UserError(
                f'tap "{tap}": {name} has {kind}.0 to {kind}.{count - 1}, and numbers from the end such as {kind}.-1'
            )
        found[tap] = int(number) % count
    return found


def pick(taps: Sequence[str], kind: str, maps: Sequence[Any], name: str) -> dict[str, Any]:
    """Return the entries of ``maps`` that the taps of a kind name."""
    return {tap: maps[k] for tap, k in numbered(taps, kind, len(maps), name).items()}
