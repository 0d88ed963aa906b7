"""G2SD against the authors' published code; one module of checks for each part of the method."""

from __future__ import annotations

import checks_g2sd_classification
import checks_g2sd_detection
import checks_g2sd_generic
import checks_g2sd_segmentation

GOLDEN = 'g2sd'
CHECKS = {
    **checks_g2sd_generic.CHECKS,
    **checks_g2sd_classification.CHECKS,
    **checks_g2sd_detection.CHECKS,
    **checks_g2sd_segmentation.CHECKS,
}


def test_golden(golden_case):
    golden_case.check(CHECKS)
