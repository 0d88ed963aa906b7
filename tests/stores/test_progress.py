import io

from rich.console import Console

from vfd.stores import Plan, Progress, progress


def test_plan():
    assert str(Plan('score', 2000, 500, 1024, 0.5)) == (
        'score: 2000 items, 500 already done, 2.0 MiB on disk, about 12 min to go'
    )
    assert str(Plan('score', 3, 0, 10)) == 'score: 3 items, 30 B on disk'


def test_readable():
    assert progress.readable_seconds(3725) == '1 h 02 min'
    assert progress.readable_seconds(7) == '7 s'
    assert progress.readable_bytes(3 * 2**40) == '3.0 TiB'


def test_lines_where_there_is_no_terminal(monkeypatch):
    monkeypatch.setattr(progress, 'LOG_EVERY', 0.0)
    out = io.StringIO()
    with Progress('score', 10, done=2, console=Console(file=out)) as bar:
        bar.advance(4)
        bar.advance(4)
    lines = out.getvalue().splitlines()
    assert lines[0].startswith('score: 6/10 in 0 s, 0 s to go') and lines[-1].startswith('score: 10/10')


def test_bar_on_a_terminal():
    out = io.StringIO()
    with Progress('score', 10, console=Console(file=out, force_terminal=True, width=100)) as bar:
        bar.advance(10)
    assert '10/10' in out.getvalue()
