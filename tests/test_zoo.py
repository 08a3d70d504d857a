"""The folder for the Model Zoo, and the zoo's checks on it without a network."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from monai.bundle import ckpt_export, verify_metadata, verify_net_in_out

from bundle.errors import InputError
from bundle.files import file_digest
from scripts import build_zoo as zoo
from tests.test_metadata import SCHEMA


@pytest.fixture(scope="module")
def built(root, tmp_path_factory):
    """What looks like the zoo's repository, with the schema where the zoo keeps what it has fetched."""
    out, before = tmp_path_factory.mktemp("zoo"), os.getcwd()
    os.chdir(root)
    try:
        zoo.build_zoo(str(out))
    finally:
        os.chdir(before)
    schema = out / "models" / zoo.NAME / "eval" / "schema.json"
    schema.parent.mkdir()
    schema.write_text(json.dumps({"$schema": "https://json-schema.org/draft/2019-09/schema", **SCHEMA}))
    (out / "models" / "model_info.json").write_text("{}")
    return out


@pytest.fixture
def folder(built, monkeypatch):
    monkeypatch.chdir(built)
    return Path("models") / zoo.NAME


def test_it_holds_what_the_zoo_asks_for(folder):
    needed = ["LICENSE", "configs/metadata.json", "configs/logging.conf", "docs/README.md", "docs/data_license.txt"]
    needed += ["models/model.pt", "configs/inference.json", "configs/train.json", "configs/evaluate.json"]
    assert [name for name in needed if not (folder / name).is_file()] == []
    assert not (folder / "tests").exists()
    assert max(path.stat().st_size for path in folder.rglob("*")) < 25e6
    assert (Path("ci") / "unit_tests" / f"test_{zoo.NAME}.py").is_file()
    assert file_digest(folder / "models" / "model.pt") == file_digest(folder / "models" / "judge.pt")


def test_metadata(folder):
    verify_metadata(meta_file=str(folder / "configs" / "metadata.json"), filepath=str(folder / "eval" / "schema.json"))


@pytest.mark.parametrize("config", ["inference.json", "inference.yaml"])
def test_network_in_and_out(folder, config):
    files = {"meta_file": str(folder / "configs" / "metadata.json"), "config_file": str(folder / "configs" / config)}
    verify_net_in_out(net_id="network_def", bundle_root=str(folder), **files)


def test_export(folder, tmp_path):
    exported = tmp_path / "model.ts"
    ckpt_export(
        net_id="network_def",
        filepath=str(exported),
        ckpt_file=str(folder / "models" / "model.pt"),
        meta_file=str(folder / "configs" / "metadata.json"),
        config_file=[str(folder / "configs" / "inference.json"), str(folder / "docs" / "deploy" / "classifier.yaml")],
        bundle_root=str(folder),
    )
    extra = {"metadata.json": "", "inference.json": "", "classifier.yaml": "", "classifier.json": ""}
    network = torch.jit.load(str(exported), _extra_files=extra)
    assert json.loads(extra["metadata.json"])["version"]
    assert network(torch.rand(2, 1, 128, 128)).shape == (2, 2)


def test_the_twins_are_what_they_are_twins_of(folder, root):
    for twin, config in zoo.TWINS.items():
        original = yaml.safe_load((root / "configs" / f"{config}.yaml").read_text())
        assert json.loads((folder / "configs" / f"{twin}.json").read_text()) == original


def test_weights_that_lie_elsewhere(root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(root)
    zoo.build_zoo(str(tmp_path), weights_url="https://example.org/w/")
    folder = tmp_path / "models" / zoo.NAME
    assert not list((folder / "models").rglob("*.pt"))
    entries = yaml.safe_load((folder / "large_files.yml").read_text())["large_files"]
    (judge,) = [entry for entry in entries if entry["path"] == "models/judge.pt"]
    assert judge["url"] == "https://example.org/w/models/judge.pt"
    assert judge["hash_val"] == file_digest(root / "models" / "judge.pt")
    assert {entry["hash_type"] for entry in entries} == {"sha256"}
    assert "MB" in capsys.readouterr().out


def test_a_file_too_large_is_refused_and_the_folder_before_stays(root, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    kept = tmp_path / "models" / zoo.NAME / "kept"
    kept.parent.mkdir(parents=True)
    kept.write_text("")
    monkeypatch.setattr(zoo, "MAX_MEGABYTES", 1)
    with pytest.raises(InputError, match="larger than 1 MB, which the zoo refuses; give --weights_url"):
        zoo.build_zoo(str(tmp_path))
    assert kept.is_file()


def test_outside_of_a_clone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="run this in a clone"):
        zoo.build_zoo(str(tmp_path))


@pytest.mark.slow
def test_the_unit_test_for_the_zoo_passes(built):
    command = [sys.executable, f"ci/unit_tests/test_{zoo.NAME}.py"]
    done = subprocess.run(command, cwd=built, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.skipif("MODEL_ZOO" not in os.environ, reason="MODEL_ZOO names no clone of Project-MONAI/model-zoo")
@pytest.mark.parametrize("mode", ["min", "full"])
def test_the_zoos_own_verification_passes(built, mode):
    script = Path(os.environ["MODEL_ZOO"]) / "ci" / "verify_bundle.py"
    words = [sys.executable, str(script), "-b", zoo.NAME, "-p", "models", "-m", mode]
    done = subprocess.run(words, cwd=built, capture_output=True, text=True, timeout=900)
    shutil.rmtree(built / "models" / zoo.NAME / "models" / "verify_model.ts", ignore_errors=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "metadata format is verified correctly" in done.stdout
    assert mode == "min" or "export weights into TorchScript module successfully" in done.stdout
