"""Generated images as DICOM Secondary Capture files that are marked as synthetic.

    python -m scripts.to_dicom --manifest outputs/inference/manifest.json

The files depend on the manifest alone: written again, they are the same.
"""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm

from bundle.inference.dicom import convert
from scripts.jobs import start


def to_dicom(manifest: str, out: str | None = None) -> None:
    """Write one DICOM file for each image of a finished job.

    Args:
        manifest: manifest.json of the job.
        out: folder of the files; dicom/ beside the manifest by default.
    """
    folder = Path(out) if out is not None else Path(manifest).parent / "dicom"
    number = sum(1 for _ in tqdm(convert(manifest, folder), desc="DICOM", unit="file"))
    print(f"{folder}: {number} files")


if __name__ == "__main__":
    start(to_dicom)
