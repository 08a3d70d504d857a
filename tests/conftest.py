"""Fixtures that all tests share."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The bundle's folder."""
    return ROOT


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of the real data sets: ``FAIR_TEST_DATA``, by default ``../shared/data`` from the bundle's folder."""
    folder = Path(os.environ.get("FAIR_TEST_DATA", "../shared/data"))
    folder = folder if folder.is_absolute() else ROOT / folder
    if not folder.is_dir():
        pytest.skip(f"no data at {folder}; set FAIR_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def tcga_lgg(test_data: Path) -> Path:
    """The real TCGA-LGG slices in the Buda layout."""
    folder = test_data / "tcga_lgg" / "kaggle_3m"
    if not folder.is_dir():
        pytest.skip(f"no TCGA-LGG slices at {folder}")
    return folder
