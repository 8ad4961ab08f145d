"""Bent models, built, loaded and run: right, or refused by a `PlanishError`; no process dies.

`python tests/pipeline/fuzz_builds.py` runs as many as one likes.
"""

from __future__ import annotations

import os

from fuzz_builds import fuzz

CASES = 600
SECONDS = 60.0  # a slow machine tries fewer


def test_bent_models() -> None:
    report = fuzz(0, CASES, SECONDS, workers=os.cpu_count() or 1)
    wrong = [f"case {number}: {what}" for number, what in sorted(report.wrong.items())]
    assert not wrong, f"{len(wrong)} of {report.ends.total()} cases:\n" + "\n".join(wrong)
    assert report.ends["agrees"] > report.ends.total() // 10, report.ends
