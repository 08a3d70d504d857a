"""What cannot be used ends the command before any compute, with a last line that names file, field and remedy."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from bundle.files import write_tensors
from tests.forked import run_bundle

HEAVY = "reference images"  # the first thing that an alignment computes
SLICES = "slices of"  # the first that it makes of a cohort


@pytest.fixture
def cohort(small_cohort, tmp_path) -> tuple[Path, Path]:
    """A config overlay whose target cohort may be damaged, and that cohort's datalist."""
    overlay = yaml.safe_load(small_cohort.read_text())
    folder = tmp_path / "target"
    shutil.copytree(Path(overlay["datalists"]["target"]).parent, folder)
    overlay["datalists"]["target"] = str(folder / "datalist.json")
    path = tmp_path / "cohort.yaml"
    path.write_text(yaml.safe_dump(overlay))
    return path, folder / "datalist.json"


def change(datalist: Path, **columns) -> None:
    """Give the first record other values, or every record one fewer column (None)."""
    records = json.loads(datalist.read_text())
    for name, value in columns.items():
        for record in records if value is None else records[:1]:
            record[name] = value
    datalist.write_text(json.dumps(records))


def missing_file(cohort, models, tmp_path):
    change(cohort[1], flair="nowhere.nii.gz")
    return {}, ["datalist.json", "'flair'", "nowhere.nii.gz", "correct the path"]


def truncated_file(cohort, models, tmp_path):
    volume = cohort[1].parent / json.loads(cohort[1].read_text())[0]["flair"]
    volume.write_bytes(volume.read_bytes()[:-4000])
    return {}, [volume.name, "'flair'", "truncated", "copy it again"]


def no_attribute(cohort, models, tmp_path):
    change(cohort[1], sex=None)
    return {}, ["datalist.json", "'sex'", "add the column"]


def unknown_group(cohort, models, tmp_path):
    change(cohort[1], sex="Male")
    return {}, ["datalist.json", "'sex'", "did you mean 'male'"]


def proportions_that_do_not_sum_to_one(cohort, models, tmp_path):
    return {"target": {"male": 0.7, "female": 0.7}}, ["target", "sum to 1.4", "change them"]


def weights_of_another_network(cohort, models, tmp_path):
    folder = tmp_path / "models"
    shutil.copytree(models, folder)
    shutil.copy(folder / "judge.pt", folder / "denoiser.pt")
    return {"models_dir": folder}, ["denoiser.pt", "does not fit", "use the weights"]


def clip_of_an_unknown_name(cohort, models, tmp_path):
    return {"clip_name": "ViT-B-99", "clip_pretrained": "openai"}, ["ViT-B-99", "open_clip.list_pretrained()"]


def clip_that_nobody_has(cohort, models, tmp_path):
    return {"clip_name": "ViT-B-32", "clip_pretrained": "nobody"}, ["ViT-B-32", "nobody", "local-dir:"]


def mistyped_option(cohort, models, tmp_path):
    return {"learning_rte": 0.1}, ["learning_rte", "align.yaml", "learning_rate"]


def mistyped_value(cohort, models, tmp_path):
    return {"gradient": "adjsted"}, ["gradient", "adjsted", "use adjusted"]


def folder_of_another_run(cohort, models, tmp_path):
    write_tensors({"settings": {}}, tmp_path / "taken" / "checkpoint.pt")
    return {"output_dir": tmp_path / "taken"}, ["taken/checkpoint.pt", "made with", "another --output_dir"]


NEED_A_COHORT = (folder_of_another_run,)  # to be found: what the run would have started with


@pytest.mark.parametrize(
    "fault",
    [
        missing_file,
        truncated_file,
        no_attribute,
        unknown_group,
        proportions_that_do_not_sum_to_one,
        weights_of_another_network,
        clip_of_an_unknown_name,
        clip_that_nobody_has,
        mistyped_option,
        mistyped_value,
        folder_of_another_run,
    ],
    ids=lambda fault: fault.__name__,
)
def test_the_last_line_says_what_to_do(fault, root, cohort, random_models, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    options, words = fault(cohort, random_models, tmp_path)
    given = {"models_dir": random_models, "cache_dir": tmp_path / "cache", "output_dir": tmp_path / "out", **options}
    flags = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    configs = str(["configs/align.yaml", str(cohort[0])])
    status, lines = run_bundle(["run", "training", "--config_file", configs, *flags])
    printed, last = "\n".join(lines), lines[-1]
    assert status == 1
    assert last.startswith("error: "), last
    assert [word for word in words if word not in last] == [], last
    assert HEAVY not in printed
    assert (SLICES in printed) is (fault in NEED_A_COHORT)
    assert not (tmp_path / "out").exists()
