"""DisWOT against the authors' published code: scores, proxies, losses, spaces, evolution."""

from __future__ import annotations

import checks_diswot_scores
import checks_diswot_search

GOLDEN = 'diswot'
CHECKS = {**checks_diswot_scores.CHECKS, **checks_diswot_search.CHECKS}


def test_golden(golden_case):
    golden_case.check(CHECKS)
