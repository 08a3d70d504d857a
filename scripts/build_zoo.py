"""The folder that a pull request to MONAI's Model Zoo carries: docs/zoo.md.

python -m scripts.build_zoo                                     # or: make zoo
python -m scripts.build_zoo --weights_url https://host/folder   # weights to be downloaded, named by large_files.yml
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml
from monai.bundle import ConfigParser

from bundle.errors import InputError
from bundle.files import file_digest
from bundle.weights import load_weights
from scripts.jobs import start

NAME = "brats_mri_text_fair_generative_diffusion"
PARTS = ("bundle", "configs", "docs", "models", "scripts", "LICENSE", "requirements.txt")
LEFT_OUT = ("docs/results/", "docs/zoo_test.py")  # each run behind the tables; it goes where the zoo keeps its tests
NETWORK = "models/judge.pt"  # the weights of network_def
TWINS = {"train": "align", "inference": "inference", "evaluate": "evaluate"}  # JSON by the names that MONAI looks for
MAX_MEGABYTES = 25  # of a file in the zoo's repository


def build_zoo(out: str = "outputs/zoo", weights_url: str | None = None) -> None:
    """Make ``out``/models/<name> and ``out``/ci/unit_tests anew from the files that git knows.

    Args:
        out: folder that looks like the zoo's repository.
        weights_url: where the files of models/ lie; they are then left out of the folder and named, with their
            SHA-256, in large_files.yml.
    """
    folder, partial = Path(out) / "models" / NAME, Path(out) / "models" / f".{NAME}"
    shutil.rmtree(partial, ignore_errors=True)
    for name in _known_files():
        _copy(Path(name), partial / name)
    load_weights(_network(), NETWORK)  # a bare state dict that fits, as the zoo's tools expect
    shutil.copyfile(NETWORK, partial / "models" / "model.pt")
    for twin, config in TWINS.items():
        content = ConfigParser.load_config_file(f"configs/{config}.yaml")
        (partial / "configs" / f"{twin}.json").write_text(json.dumps(content, indent=4) + "\n")
    if weights_url is not None:
        _name_weights(partial, weights_url.rstrip("/"))
    _require_small(partial)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
    _copy(Path("docs/zoo_test.py"), Path(out) / "ci" / "unit_tests" / f"test_{NAME}.py")
    size = sum(path.stat().st_size for path in _files(folder)) / 1e6
    print(f"{folder}: {sum(1 for _ in _files(folder))} files, {size:.1f} MB")


def _known_files() -> list[str]:
    """Files of the bundle that git tracks. Raises InputError outside of a clone."""
    done = subprocess.run(["git", "ls-files", "-z", *PARTS], capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"git ls-files: {done.stderr.strip()[:120]}; run this in a clone of the bundle")
    return [name for name in done.stdout.split("\0") if name and not name.startswith(LEFT_OUT)]


def _network():
    parser = ConfigParser()
    parser.read_config("configs/inference.yaml")
    return parser.get_parsed_content("network_def")


def _name_weights(folder: Path, url: str) -> None:
    """Take the weights out of the folder; say where each lies, and its checksum."""
    weights = sorted(path for path in _files(folder / "models") if path.suffix in (".pt", ".safetensors"))
    entries = [_entry(path, folder, url) for path in weights]
    (folder / "large_files.yml").write_text(yaml.safe_dump({"large_files": entries}, sort_keys=False))
    for path in weights:
        path.unlink()


def _entry(path: Path, folder: Path, url: str) -> Mapping[str, str]:
    name = path.relative_to(folder).as_posix()
    return {"path": name, "url": f"{url}/{name}", "hash_val": file_digest(path), "hash_type": "sha256"}


def _require_small(folder: Path) -> None:
    for path in _files(folder):
        if path.stat().st_size > MAX_MEGABYTES * 1e6:
            raise InputError(f"{path}: larger than {MAX_MEGABYTES} MB, which the zoo refuses; give --weights_url")


def _files(folder: Path) -> Iterable[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


if __name__ == "__main__":
    start(build_zoo)
