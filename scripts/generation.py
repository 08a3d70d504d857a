"""What generation takes: seconds and memory for 100 and for 1,000 images, and a job that is killed on the way.

python -m scripts.benchmark generation     # some ten minutes on 2 cores
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundle.files import file_digest
from scripts.jobs import command, markdown, measured, run

PROMPTS = ["axial FLAIR brain MRI, middle level, no tumor", "axial T1ce brain MRI, upper level, no tumor"]
NUMBERS = (100, 1000)


def measure(work: Path) -> dict[str, Any]:
    """Seconds and peak memory by number of images; whether a killed job ends with the same files."""
    sizes = {}
    for number in NUMBERS:
        folder = work / str(number)
        sizes[str(number)] = measured(_words(folder, number), work / f"{number}.txt", every=0.05)
    killed = work / "killed"
    _kill_at_half(_words(killed, NUMBERS[0]), killed)
    run(_words(killed, NUMBERS[0]), work / "killed.txt")
    same = _files(killed) == _files(work / str(NUMBERS[0]))
    return {"cores": os.cpu_count(), "images": sizes, "files": len(_files(killed)), "same_after_kill": same}


def _words(folder: Path, number: int) -> list[str]:
    return command("generating", ["configs/inference.yaml"], output_dir=folder, prompts=PROMPTS, num_images=number)


def _kill_at_half(words: list[str], folder: Path) -> None:
    """Start a job, and kill it without warning in the middle of its third batch."""
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(list(folder.glob("images/*.png"))) <= 64 and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()


def _files(folder: Path) -> dict[str, str]:
    """Digest of every file, by name."""
    return {str(path.relative_to(folder)): file_digest(path) for path in folder.rglob("*") if path.is_file()}


def generation_table(result: Mapping[str, Any]) -> str:
    """Seconds and memory, and what became of the killed job."""
    if not result:
        return ""
    rows = [(f"{int(n):,}", f"{found['seconds']} s", f"{found['peak_mb']} MB") for n, found in result["images"].items()]
    outcome = "the same" if result["same_after_kill"] else "**not the same**"
    return (
        markdown(("images", f"whole job on {result['cores']} cores", "peak memory"), rows)
        + f"\n\nA job of {NUMBERS[0]} images, killed (SIGKILL) within its third batch and started again, left "
        + f"{result['files']} files, {outcome} as of one that nothing stopped."
    )
