"""The script of the run on real slices: its stages, its figures and its page; on made-up numbers, without a job."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from bundle.cohorts.slices import Slices
from bundle.errors import InputError, check_overrides
from scripts import jobs, real_data
from scripts.make_weights import stage_command
from scripts.real_data_page import section, write_section


@pytest.fixture
def results():
    ends = {"value": 0.61, "ci95": [0.5, 0.72]}
    side = {
        "n": 512, "proportion": {"female": 0.2, "male": 0.8}, "ci95": {"female": [0.0, 0.45], "male": [0.55, 1.0]},
        "raw_proportion": {"female": 0.4, "male": 0.6}, "gap": 0.31, "verdict": "cannot tell", "standard_error": 0.13,
        "ambiguity": 0.3, "agreement": 0.7, "kid": {"clip": {"value": 0.01, "ci95": [0.0, 0.02]}},
        "cautions": ["fewer than 100 subjects of a group to measure the judge on"],
        "label_shift": {"p_value": 0.0312},
    }  # fmt: skip
    report = {
        "groups": ["female", "male"], "target": {"female": 0.51, "male": 0.49}, "before": side,
        "after": copy.deepcopy(side) | {"gap": 0.05}, "real": {"agreement": 0.68, "ambiguity": 0.25},
        "judge": {"sensitivity": 0.7, "specificity": 0.8, "subjects": 54, "recall": {"female": 0.8, "male": 0.7}},
        "kid_change": {"clip": {"value": 0.0, "ci95": [-0.01, 0.01]}}, "detectable_gap": 0.36,
    }  # fmt: skip
    return {
        "date": "2000-01-01",
        "command": "python -m scripts.real_data",
        "patients": {"guide": {"female": 28, "male": 27}, "judge": {"female": 28, "male": 26}},
        "source": {"male": 0.85},
        "classifiers": {"cross-validated": ends, "guide": ends, "judge": ends},
        "shortcuts": {"site alone": ends},
        "needed": real_data.needed(report, 110),
        "report": report,
    }


def test_every_option_of_every_stage_exists(root, monkeypatch):
    monkeypatch.chdir(root)
    shared = {"dataset_dir": "data", "outputs_dir": "out", "tracking_uri": "sqlite:///out/mlflow.db"}
    commands = [stage_command(stage, real_data.OVERLAY, shared) for stage in real_data.STAGES]
    commands.append(jobs.command("training", ["configs/align.yaml", real_data.OVERLAY], **shared, **real_data.ALIGN))
    commands.append(jobs.command("evaluating", ["configs/evaluate.yaml", real_data.OVERLAY], **shared))
    for words in commands:
        check_overrides(["monai/bundle/__main__.py", *words[2:]])


def test_each_fold_has_its_own_weights():
    names = [stage.name for stage in real_data.STAGES]
    assert len(names) == len(set(names)) == len({stage.file for stage in real_data.STAGES}) == 15
    judges = [stage for stage in real_data.STAGES if stage.options.get("role") == "judge" and "fold" in stage.options]
    assert [stage.options["fold"] for stage in judges] == list(range(5))
    assert [stage.file for stage in judges] == [f"judge_{fold}.pt" for fold in range(5)]


def test_options_reach_the_stages_of_their_config():
    changed = [real_data._with(stage, {"train_clip": {"iterations": 3}}) for stage in real_data.STAGES]
    short = {stage.name for stage in changed if stage.options["iterations"] == 3}
    assert short == {"clip", "clip_neutral"}


@pytest.mark.parametrize("folder", ["models", ".", "docs/results", "outputs/../models"])
def test_weights_of_these_data_never_lie_where_they_would_be_published(folder):
    with pytest.raises(InputError, match="give a folder in outputs/"):
        real_data.require_outside(Path(folder))


def test_other_folders_are_allowed(tmp_path):
    for folder in (Path("outputs/tcga_lgg"), Path("data/x"), tmp_path):
        real_data.require_outside(folder)


@pytest.fixture
def alignment(tmp_path, monkeypatch):
    """`align` whose job writes its model in place of tuning; returns how often the job has run."""
    jobs.write_json({"guide.pt": {"sha256": "a"}}, tmp_path / "models" / "manifest.json")
    ran = []

    def pretend(words):
        ran.append(words)
        (tmp_path / "align" / "model.pt").write_text("")

    def call(**options):
        real_data.align(options, tmp_path)
        return len(ran)

    monkeypatch.setattr(real_data, "run", pretend)
    return call


def test_a_complete_alignment_is_left_and_a_changed_one_begun_again(alignment, tmp_path):
    assert [alignment(iterations=3), alignment(iterations=3)] == [1, 1]
    (tmp_path / "align" / "report.json").write_text("{}")
    assert alignment(iterations=4) == 2
    assert not (tmp_path / "align" / "report.json").exists()
    jobs.write_json({"guide.pt": {"sha256": "b"}}, tmp_path / "models" / "manifest.json")
    assert alignment(iterations=4) == 3
    (tmp_path / "align" / "model.pt").unlink()
    (tmp_path / "align" / "checkpoint.pt").write_text("")
    assert alignment(iterations=4) == 4
    assert (tmp_path / "align" / "checkpoint.pt").exists()


def test_a_network_that_reads_the_site_is_found_out():
    rng = np.random.default_rng(0)
    persons = [{"subject": f"p{i}", "site": "DU" if i % 3 else "HT"} for i in range(120)]
    truth = np.array([rng.random() < (0.9 if person["site"] == "HT" else 0.1) for person in persons]).astype(int)
    site = np.array([person["site"] == "HT" for person in persons])
    slices = Slices(torch.randint(0, 255, (120, 1, 16, 16)) / 255, persons)
    fold = {person["subject"]: number % 5 for number, person in enumerate(persons)}
    found = real_data.shortcuts(site + 0.01 * rng.random(120), truth, slices, fold)
    assert found["site alone"].value > 0.8
    assert found["field of view and brightness alone"].value < 0.65
    assert found["network, only patients of the same site compared"].value < 0.7
    assert found["network, patients of the largest site (DU)"].high < 0.85


def test_more_patients_are_needed_for_a_smaller_gap(results):
    report = results["report"]
    few, many = real_data.needed(report, 110, gap=0.2), real_data.needed(report, 110, gap=0.1)
    assert few["patients"]["8192"] < many["patients"]["8192"]
    assert many["patients"]["512"] is None  # under images_at_least
    assert 512 < many["images_at_least"] < 2048
    report["judge"]["specificity"] = 0.3
    assert real_data.needed(report, 110)["patients"] == {}


def test_the_page_says_what_was_measured(results):
    text = section(results)
    assert "| male, adjusted count [95 %] | 80.0 % [55.0, 100.0] | 80.0 % [55.0, 100.0] |" in text
    assert "| gap to the target | 31.0 % | 5.0 % |" in text
    assert "109 patients of known sex" in text
    assert "| label shift, p | 0.031 | 0.031 |" in text
    # J = .5, variance of the calls (.13 x .5)^2 = .004225, of which .24 / 512 = .000469 is the images';
    # with 110 patients in place of 54: 2.8016 sqrt(.000469 + .003756 x 54 / 110) / .5 = .2695
    assert "with 80 % power would be 26.9 %" in text
    assert "with 512 images no number of patients is enough, with 2048 images" in text
    assert "Caution: fewer than 100 subjects" in text
    results["needed"]["patients"] = {}
    assert "no better than chance" in section(results)


def test_only_its_own_part_of_the_page_is_written(results, tmp_path):
    page = tmp_path / "results.md"
    page.write_text("# Results\n\nbefore\n")
    for _ in range(2):
        write_section(page, results)
    text = page.read_text()
    assert text.startswith("# Results\n\nbefore\n\n<!-- tcga_lgg: generated by")
    assert text.count("### TCGA-LGG") == 1
    page.write_text(text + "\nafter\n")
    write_section(page, results | {"date": "2001-01-01"})
    assert page.read_text() == text.replace("2000", "2001") + "\nafter\n"
