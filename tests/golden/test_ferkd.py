"""FKD against its released code, FerKD against its published rule; one module of checks for each part."""

from __future__ import annotations

import checks_ferkd_labels
import checks_ferkd_training

GOLDEN = 'ferkd'
CHECKS = {**checks_ferkd_labels.CHECKS, **checks_ferkd_training.CHECKS}


def test_golden(golden_case):
    golden_case.check(CHECKS)
