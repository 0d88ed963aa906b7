"""What offline steps share: who does what, the plan, and the end of a check."""

import pytest

from vfd.errors import UserError
from vfd.offline.step import Step, report_faults, shard_of

NAMES = [f'class{number % 7}/{number}.png' for number in range(500)]


@pytest.mark.parametrize('world_size', [1, 2, 5])
def test_ranks_share_the_items_in_their_order(world_size):
    shares = [Step('a step', rank, world_size).share(NAMES) for rank in range(world_size)]
    assert sorted(name for share in shares for name in share) == sorted(NAMES)
    for share in shares:
        assert share == [name for name in NAMES if name in set(share)]
        assert len(share) > 0.7 * len(NAMES) / world_size


def test_an_item_stays_where_it_is_when_others_come():
    first = Step('a step', 1, 3)
    assert first.share(NAMES[:100]) == [name for name in first.share(NAMES) if name in NAMES[:100]]
    # by SHA-256, as stores that exist were divided
    assert [shard_of(name, 4) for name in ('a.png', 'b/c.png', '\udce4.png')] == [0, 3, 3]


def test_rank_and_size_come_from_the_launcher(monkeypatch):
    assert Step.launched('a step', 'none') == Step('a step', 0, 1)
    for launcher, names in (('pytorch', ('RANK', 'WORLD_SIZE')), ('slurm', ('SLURM_PROCID', 'SLURM_NTASKS'))):
        for name in names:
            monkeypatch.delenv(name, raising=False)
        with pytest.raises(UserError, match=f'--launcher {launcher}.*{names[0]}'):
            Step.launched('a step', launcher)
        monkeypatch.setenv(names[0], '3')
        monkeypatch.setenv(names[1], '4')
        assert Step.launched('a step', launcher) == Step('a step', 3, 4)


def test_plan_and_progress(capfd):
    with Step('scoring').run(10, 4, 1024, 2.0, 'scoring 10 images') as progress:
        for _ in range(6):
            progress.advance(1)
    out, err = capfd.readouterr()
    assert 'scoring 10 images' in out and '4 already done' in out and '10.0 KiB' in out and '12 s' in out
    assert 'scoring: 10/10' in err


def test_a_check_ends_with_its_faults_or_with_good_news(capsys):
    report_faults([], 'all is well')
    assert capsys.readouterr().out == 'all is well\n'
    with pytest.raises(UserError) as error:
        report_faults(['record 3', 'record 7'], 'all is well')
    assert 'damaged' in str(error.value) and 'record 3\nrecord 7' in str(error.value)
