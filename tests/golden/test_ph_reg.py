"""PH-Reg against the authors' published code; one module of checks for each part of the method."""

from __future__ import annotations

import checks_ph_reg_core
import checks_ph_reg_evaluation
import checks_ph_reg_networks

GOLDEN = 'ph_reg'
CHECKS = {
    **checks_ph_reg_core.CHECKS,
    **checks_ph_reg_networks.CHECKS,
    **checks_ph_reg_evaluation.CHECKS,
}


def test_golden(golden_case):
    golden_case.check(CHECKS)
