"""The record of a search: kills, damage, foreign files, a second process."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from vfd.errors import UserError
from vfd.offline.search.record import ScoreRecord

FINGERPRINT = {'space': {'type': 'vfd.TimmSpace', 'models': ('a', 'b')}, 'seeds': 2}


@pytest.fixture
def path(tmp_path) -> Path:
    path = tmp_path / 'scores.jsonl'
    with ScoreRecord(path, FINGERPRINT) as record:
        for name in ('a', 'b', 'c'):
            record.add({'candidate': name, 'scores': {'sum': [1.5, 2.5]}})
    return path


def names(path: Path) -> list[str]:
    with ScoreRecord(path, FINGERPRINT) as record:
        return list(record.entries)


def test_a_kill_at_any_byte_costs_the_line_that_was_cut(path):
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord('\n')]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        expected = ['a', 'b', 'c'][: max(0, sum(end <= cut for end in ends) - 1)]
        assert names(path) == expected
        with ScoreRecord(path, FINGERPRINT) as record:
            for name in ('a', 'b', 'c')[len(expected) :]:
                record.add({'candidate': name, 'scores': {'sum': [1.5, 2.5]}})
        assert path.read_bytes() == whole


def line(text: bytes) -> bytes:
    return b'%08x %s\n' % (zlib.crc32(text), text)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda data: data.replace(b'1.5', b'1.6', 1), r'line 2 is damaged, not merely cut off'),
        (lambda data: data[:-5] + b'x' + data[-4:], r'line 4 is damaged'),
        (lambda data: b'depth,top1\n1,60\n', r'line 1 is no line of a search record'),
        (lambda data: b'a note of mine', r'line 1 is no line of a search record'),
        (lambda data: data + b'a note of mine', r'line 5 is no line of a search record'),
        (lambda data: data + line(b'{"name": "x"}'), r'line 5 is about no candidate'),
        (lambda data: line(b'[1]') + data, r'line 1 is no line of a search record'),
    ],
)
def test_what_is_no_record_is_refused_and_left_alone(path, change, message):
    changed = change(path.read_bytes())
    path.write_bytes(changed)
    with pytest.raises(UserError, match=message):
        ScoreRecord(path, FINGERPRINT)
    assert path.read_bytes() == changed


def test_two_processes_do_not_write_one_record(path):
    with (
        ScoreRecord(path, FINGERPRINT),
        pytest.raises(UserError, match='is being written by another process'),
    ):
        ScoreRecord(path, FINGERPRINT)
    assert names(path) == ['a', 'b', 'c']


def test_other_settings_are_named(path):
    other = {**FINGERPRINT, 'space': {'type': 'vfd.TimmSpace', 'models': ['a']}}
    with pytest.raises(
        UserError, match=r"begun with other settings:\s+space\.models: was \['a', 'b'\], is \['a'\]"
    ):
        ScoreRecord(path, other)
    assert names(path) == ['a', 'b', 'c']
