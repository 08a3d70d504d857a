"""The command for images of any model, from folders and a datalist to the report."""

import json

import numpy as np
import pytest
from PIL import Image

from bundle.errors import InputError
from scripts import evaluate as script
from scripts.evaluate import evaluate


@pytest.fixture
def given(tmp_path):
    """Thirty generated pictures and forty real people, women dark above and men bright, and the options."""
    rng = np.random.default_rng(0)

    def write(path, man):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 100, (40, 40))
        pixels[:20] += 120 * man
        Image.fromarray(pixels.astype(np.uint8)).save(path)

    for i in range(30):
        write(tmp_path / "generated" / f"{i:02d}.png", i % 3 > 0)
    records = []
    for i in range(40):
        write(tmp_path / "real" / f"{i}.png", i % 2)
        role = ("validation", "target")[i // 2 % 2]
        records.append({"subject": f"p{i}", "image": f"{i}.png", "sex": ("female", "male")[i % 2], "role": role})
    datalist = tmp_path / "real" / "cohort.json"
    datalist.write_text(json.dumps(records))
    return {"generated": str(tmp_path / "generated"), "real": str(datalist), "output_dir": str(tmp_path / "report")}


def test_from_folders_to_the_report(given, root, random_models, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    evaluate(
        **given,
        judge=str(random_models / "judge.pt"),
        guide=str(random_models / "guide.pt"),
        models_dir=str(random_models),
        cache_dir=str(tmp_path / "cache"),
        tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
    )
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert (report["after"]["n"], report["judge"]["subjects"], report["real"]["n"]) == (30, 20, 20)
    assert report["judge_training_known"] is True  # subjects.json lies beside the weights
    assert report["second_judge"]["name"] == "linear probe on clip_neutral"
    assert "SYNTHETIC" not in (tmp_path / "report" / "report.html").read_text()  # there are no pairs to show


def test_roles_say_who_serves_for_what(given, tmp_path):
    assert script._roles(given["real"]) == {"people_role": "validation", "target_role": "target"}
    datalist = tmp_path / "real" / "cohort.json"
    records = json.loads(datalist.read_text())
    for record in records:
        record["role"] = "source" if record["role"] == "target" else record["role"]
    datalist.write_text(json.dumps(records))
    with pytest.raises(InputError, match="nobody has the role 'target'"):
        script._roles(given["real"])
    for record in records:
        del record["role"]
    datalist.write_text(json.dumps(records))
    assert script._roles(given["real"]) == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"generated": "nowhere"}, "--generated nowhere: no such folder"),
        ({"reference": "nowhere"}, "--reference nowhere: no such folder"),
        ({"judge": "judge.pt"}, "--judge judge.pt: no such file"),
        ({"prompts": "none.csv"}, "--prompts none.csv: no such file"),
        ({"real": "none.json"}, "none.json: no such datalist"),
    ],
)
def test_what_is_missing_is_named_before_anything_runs(given, random_models, monkeypatch, change, message):
    monkeypatch.setattr(script, "run", None)
    with pytest.raises(InputError, match=message):
        evaluate(**{**given, "judge": str(random_models / "judge.pt"), **change})
