"""Memory of one step does not grow with the steps of the chain, unless the exact gradient is asked for."""

import statistics
import subprocess
import sys

import pytest

MIB = 2**20


def over_the_set_up(root, gradient: str, num_steps: int) -> float:
    """Median over three fresh processes of the peak memory of one step, four steps of the chain followed."""
    command = [sys.executable, "-m", "tests.alignment.peak_memory", gradient, str(num_steps)]
    runs = [subprocess.run(command, cwd=root, check=True, capture_output=True, text=True) for _ in range(3)]
    return statistics.median(int(run.stdout) for run in runs)


@pytest.mark.slow
def test_a_longer_chain_takes_no_more_memory(root):
    short, long = (over_the_set_up(root, "adjusted", steps) for steps in (10, 50))
    assert long <= 1.1 * short + 16 * MIB


@pytest.mark.slow
def test_the_exact_gradient_grows_with_the_chain(root):
    short, long = (over_the_set_up(root, "exact", steps) for steps in (10, 50))
    assert short > 32 * MIB  # large enough to measure
    assert long >= 3 * short
