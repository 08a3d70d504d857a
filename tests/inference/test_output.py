"""The folder of a job: the same bytes whatever happens on the way, and a manifest that tells what they are."""

import csv
import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image

from bundle import files as bundle_files
from bundle.errors import InputError
from bundle.evaluating.folders import FolderEvaluation
from bundle.evaluating.pictures import picture_names
from bundle.inference import formats, output
from bundle.inference.prompts import InTurn, Request


def rows(folder):
    with (folder / "manifest.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


class Killed(BaseException):
    """Ends the job as a signal would: nothing catches it, nothing is written afterwards."""


def killed_at(monkeypatch, owner, name, call):
    """Let the job be killed when a function is called for the ``call``-th time."""
    real, calls = getattr(owner, name), iter(range(1, 1000))

    def counting(*args, **kwargs):
        if next(calls) == call:
            raise Killed
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, counting)


def test_the_manifest_has_a_row_for_each_image(job, tmp_path):
    made = job(tmp_path, nifti=True, pixel_size=1.5).run()
    found, names = rows(tmp_path), sorted(path.name for path in (tmp_path / "images").iterdir())
    assert names == [row["file"] for row in found] == [f"{i:06d}.png" for i in range(10)]
    assert sorted(path.name for path in (tmp_path / "nifti").iterdir()) == [f"{i:06d}.nii.gz" for i in range(10)]
    assert [row["stated"] for row in found] == ["", "female"] * 5
    assert [row["prompt"] for row in found[:2]] == ["no tumor", "a glioma, woman"]
    images = [np.asarray(Image.open(tmp_path / "images" / name)) for name in names]
    for row, pixels in zip(found, images, strict=True):
        assert row["sha256"] == hashlib.sha256(pixels.tobytes()).hexdigest()
    looked_at = torch.from_numpy(np.stack(images))[:, None].float() / 255
    read = made.output.judge.predict(looked_at)
    assert [float(row["judge_male"]) for row in found] == pytest.approx(read[:, 1].tolist(), abs=1e-6)
    assert len({row["sha256"] for row in found}) == 10


def test_the_head_says_what_they_are_and_were_made_with(job, tmp_path):
    job(tmp_path).run()
    head, found = json.loads((tmp_path / "manifest.json").read_text()), rows(tmp_path)
    assert head["synthetic"] is True
    assert set(head["versions"]) == {"torch", "monai", "open_clip_torch", "diffusers", "transformers"}
    assert set(head["networks"]) == {"denoiser", "judge"}
    assert head["settings"]["num_images"] == head["images"]["number"] == head["judge"]["n"] == 10
    assert head["table"]["sha256"] == hashlib.sha256((tmp_path / "manifest.csv").read_bytes()).hexdigest()
    assert list(head["table"]["columns"]) == list(found[0])
    men = sum(float(row["judge_male"]) > 0.5 for row in found) / 10
    assert head["judge"]["share"] == pytest.approx({"female": 1 - men, "male": men})
    assert head["judge"]["by_stated"]["female"]["n"] == 5
    assert "errors not counted" in head["judge"]["meaning"]


def test_an_image_depends_on_seed_index_and_prompt(job, tmp_path):
    whole = rows(job(tmp_path / "a").run().output.folder)
    for batch_size in (3, 10):  # a last bit could differ; the toy's does not show in 8 bits
        again = rows(job(tmp_path / str(batch_size), batch_size=batch_size).run().output.folder)
        assert [row["sha256"] for row in again] == [row["sha256"] for row in whole]
    other = rows(job(tmp_path / "seed", seed=1).run().output.folder)
    assert not {row["sha256"] for row in other} & {row["sha256"] for row in whole}
    turned = InTurn([Request("a glioma, woman", "female"), Request("no tumor")])
    turned = rows(job(tmp_path / "turned", wanted=turned).run().output.folder)
    assert not {row["sha256"] for row in turned} & {row["sha256"] for row in whole}


@pytest.mark.parametrize(
    ("where", "what", "call"),
    [
        (formats, "png", 1),  # at the first image
        (formats, "png", 7),  # within the second batch
        (bundle_files.Path, "replace", 12),  # an image beside its name
        (output.manifest, "line", 1 + 8),  # before the rows of the second batch
        (output.manifest, "calls", 1),  # with all images there, before the manifest
    ],
)
def test_a_killed_job_goes_on_to_the_same_bytes(job, files, tmp_path, monkeypatch, where, what, call):
    options = {"nifti": True, "pixel_size": 1.5}
    job(tmp_path / "whole", **options).run()
    with monkeypatch.context() as patch:
        killed_at(patch, where, what, call)
        with pytest.raises(Killed):
            job(tmp_path / "killed", **options).run()
    assert not (tmp_path / "killed" / "manifest.json").exists()
    resumed = job(tmp_path / "killed", **options).run()
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    assert resumed.output.done % 4 == 0 or resumed.output.done == 10


def test_a_row_that_was_half_written_does_not_count(job, files, tmp_path):
    job(tmp_path / "whole").run()
    job(tmp_path / "cut").run()
    (tmp_path / "cut" / "manifest.json").unlink()
    table = tmp_path / "cut" / "manifest.csv"
    content = table.read_bytes()
    (tmp_path / "cut" / ".manifest.csv").write_bytes(content[: content.index(b"000005.png") + 20])
    table.unlink()
    assert job(tmp_path / "cut").output.done == 4
    job(tmp_path / "cut").run()
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_a_finished_job_is_not_run_again_unless_an_image_is_missing(job, files, tmp_path, monkeypatch):
    job(tmp_path).run()
    before = files(tmp_path)
    with monkeypatch.context() as patch:
        killed_at(patch, formats, "png", 1)
        assert job(tmp_path).run().output.complete
    assert files(tmp_path) == before
    (tmp_path / "images" / "000005.png").unlink()
    assert job(tmp_path).output.done == 4
    job(tmp_path).run()
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"seed": 1}, "settings.seed"),
        ({"number": 12}, "settings.num_images"),
        ({"batch_size": 5}, "settings.batch_size"),
        ({"wanted": InTurn([Request("a")])}, "settings.prompts"),
        ({"nifti": True, "pixel_size": 1.5}, "settings.nifti"),
        ({"settings": {"guidance": 3.0}}, "settings.guidance"),
    ],
)
def test_a_folder_of_other_settings_is_refused_and_stays(job, files, tmp_path, change, name):
    job(tmp_path, settings={"guidance": 2.0}).run()
    before = files(tmp_path)
    with pytest.raises(InputError, match=f"settings.json: made with {name} = .*give another --output_dir"):
        job(tmp_path, **{"settings": {"guidance": 2.0}, **change}).output.start()
    assert files(tmp_path) == before


def test_other_weights_are_other_settings(job, tmp_path):
    job(tmp_path).run()
    changed = job(tmp_path)
    with torch.no_grad():
        changed.denoiser.enter.weight += 0.1
    with pytest.raises(InputError, match=r"made with networks\.denoiser"):
        changed.output.start()


def test_a_folder_of_something_else_is_refused(job, tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(InputError, match=r"holds images and no settings\.json"):
        job(tmp_path).output.start()
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(InputError, match=r"settings\.json: damaged"):
        job(tmp_path).output.start()


def test_nothing_of_other_images_is_embedded_with_a_batch(job, tmp_path):
    """What is held does not grow with the number of images: contexts of one batch at a time."""
    made, sizes = job(tmp_path), []
    context = made.inferer.text_encoder.context
    made.inferer.text_encoder.context = lambda prompts: sizes.append(len(prompts)) or context(prompts)
    made.run()
    assert sizes == [5, 5, 3]  # and the empty prompt


def test_the_evaluation_reads_the_folder_as_it_is(job, tmp_path):
    job(tmp_path, nifti=True, pixel_size=1.5).run()
    names = picture_names(tmp_path / "images")
    assert len(names) == 10
    evaluation = FolderEvaluation.__new__(FolderEvaluation)
    evaluation.prompts, evaluation.generated = str(tmp_path / "manifest.csv"), str(tmp_path / "images")
    texts, prompt = evaluation._prompts(names)
    assert [texts[place] for place in prompt[:2]] == ["no tumor", "a glioma, woman"]
