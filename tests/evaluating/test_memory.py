"""Images are streamed: ten times as many cost hardly more memory."""

import re
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_twenty_thousand_images_need_at_most_300_mb_more_than_two_thousand(root, tmp_path):
    """Of 128 x 128: as numbers in memory they would take 20,000 x 64 kB = 1.3 GB, their kernel 3.2 GB."""

    def peak(number):
        words = [sys.executable, "-m", "tests.evaluating.peak_memory", str(number), str(tmp_path / str(number))]
        done = subprocess.run(words, cwd=root, capture_output=True, text=True, timeout=1800)
        assert done.returncode == 0, done.stderr[-2000:]
        return int(re.search(r"peak: (\d+) MB", done.stderr)[1])

    assert peak(20_000) - peak(2_048) <= 300
