"""No file of the repository names a machine, a private folder or a package registry's host."""

import re
import subprocess

import pytest
from house_pages import ROOT

HOSTS = ('py' + 'pi', 'python' + 'hosted', 'deb.deb' + 'ian', 'ana' + 'conda', 'np' + 'mjs')
FORBIDDEN = {
    'a temporary folder of a machine': r'(?<![\w.])/t' + r'mp/',
    'a home folder': r'(?<![\w.])/(ro' + r'ot|home/\w+)/',
    'a folder of a machine': r'(?<![\w.$}/-])/wo' + r'rk(?![\w-])',
    'the host of a registry': rf'(?i)\b({"|".join(map(re.escape, HOSTS))})\.(org|com)\b',
}


def test_no_machine_is_named():
    try:
        listing = subprocess.run(
            ['git', 'ls-files', '-co', '--exclude-standard'],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip('not a git checkout')
    found = []
    for name in listing.stdout.splitlines():
        try:
            text = (ROOT / name).read_text(encoding='utf-8')
        except (UnicodeDecodeError, FileNotFoundError):  # not text; or removed and not committed yet
            continue
        for number, line in enumerate(text.splitlines(), 1):
            found += [
                f'{name}:{number}: {what}' for what, words in FORBIDDEN.items() if re.search(words, line)
            ]
    assert not found, '\n'.join(found)
