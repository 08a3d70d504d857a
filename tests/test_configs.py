"""The configs: what they name exists, MONAI finds what it asks of a bundle, and every job is built."""

import inspect
import sys
from collections import Counter
from pathlib import Path
from pydoc import locate

import monai
import pytest
import torch
from monai.bundle import ConfigComponent, ConfigParser, ConfigWorkflow, ReferenceResolver

ROOT = Path(__file__).parent.parent
CONFIGS = sorted(path.name for path in (ROOT / "configs").glob("*.yaml"))
TRAININGS = [name for name in CONFIGS if name.startswith("train_") or name == "align.yaml"]
EVALUATIONS = ["evaluate.yaml", "evaluate_fairness.yaml"]
JOBS = [*TRAININGS, *EVALUATIONS]
OPTIONS = {  # of a small phantom
    "align.yaml": {"pool_size": 4, "batch_size": 4},
    "train_fairdiffusion.yaml": {"probe_size": 16},
}
OVERLAYS = {  # that name entries inside the job which they are laid over
    "plain.yaml": "align.yaml",
    "multi_gpu.yaml": "align.yaml",
    "images_phantom.yaml": "evaluate_images.yaml",
}


@pytest.fixture(autouse=True)
def in_root(root, monkeypatch):
    monkeypatch.chdir(root)


def parsed(*names):
    parser = ConfigParser()
    parser.read_config([f"configs/{name}" for name in names])
    parser.parse()
    return parser


def stack(name):
    return (OVERLAYS[name], name) if name in OVERLAYS else (name,)


def nodes(content):
    """Every value of a config, dictionaries and lists before what they hold."""
    yield content
    items = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    for item in items:
        yield from nodes(item)


def test_the_configs_are_found():
    assert {"common.yaml", "align.yaml", "evaluate.yaml", "cohort_phantom.yaml", *OVERLAYS} <= set(CONFIGS)
    assert len(TRAININGS) >= 5


@pytest.mark.parametrize("name", JOBS)
def test_every_job_has_the_ids_that_tools_ask_for(name):
    parser = parsed(name)
    run_id = "evaluating" if name in EVALUATIONS else "training"
    for entry in ("bundle_root", "device", "dataset_dir", "output_dir", "initialize", run_id):
        assert parser.get(entry) is not None, entry
    assert parser.get("run") == parser.get(run_id)


@pytest.mark.parametrize("name", JOBS)
def test_the_header_says_how_to_run_it(name):
    header = [line for line in (ROOT / "configs" / name).read_text().splitlines()[:8] if line.startswith("#")]
    run_id = "evaluating" if name in EVALUATIONS else "training"
    assert any(f"python -m monai.bundle run {run_id} --config_file configs/{name}" in line for line in header)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_target_exists_and_takes_these_arguments(name):
    for node in nodes(parsed(*stack(name)).get()):
        if not isinstance(node, dict) or "_target_" not in node:
            continue
        found = locate(ConfigComponent(node).resolve_module_name())
        assert callable(found), node["_target_"]
        arguments = {key: value for key, value in node.items() if not (key.startswith("_") and key.endswith("_"))}
        inspect.signature(found).bind_partial(**arguments)


@pytest.mark.parametrize("name", [*JOBS, *OVERLAYS, "evaluate_images.yaml"])
def test_every_reference_leads_somewhere(name):
    parser = parsed(*stack(name))
    texts = [node for node in nodes(parser.get()) if isinstance(node, str)]
    references = {reference for text in texts for reference in ReferenceResolver.match_refs_pattern(text)}
    assert references
    assert [reference for reference in references if reference not in parser] == []


def test_the_checks_above_find_what_is_wrong():
    parser = ConfigParser({"a": "$@b::c + 1", "b": {"d": 1}})
    assert [reference for reference in ReferenceResolver.match_refs_pattern(parser["a"]) if reference not in parser]
    with pytest.raises(TypeError, match="bias_"):
        inspect.signature(torch.nn.Linear).bind_partial(bias_=1)


@pytest.mark.parametrize("name", ["align.yaml", "evaluate.yaml"])
def test_guide_and_judge_share_neither_weights_nor_architecture(name):
    parser = parsed(name)
    assert parser.get("guide")["path"] != parser.get("judge")["path"]
    assert parser.get("guide")["network"] != parser.get("judge")["network"]
    guide, judge = (parser.get(f"{role}_def")["backbone"] for role in ("guide", "judge"))
    assert guide["_target_"] != judge["_target_"]


def test_plain_fine_tuning_is_the_alignment_without_its_handler():
    align, plain = parsed("align.yaml"), parsed("align.yaml", "plain.yaml")
    handlers = [parser.get("train")["handlers"] for parser in (align, plain)]
    changed = [i for i, pair in enumerate(zip(*handlers, strict=True)) if pair[0] != pair[1]]
    assert changed == [i for i, node in enumerate(handlers[0]) if "@alignment" in nodes(node)]
    assert [handlers[1][i]["_disabled_"] for i in changed] == [True]
    left_out = {"alignment", "stopping"}
    assert plain.get("checkpointed") == {k: v for k, v in align.get("checkpointed").items() if k not in left_out}


@pytest.fixture
def workflow(small_cohort, random_models, tmp_path, monkeypatch):
    """Build a job on a small phantom with weights that nobody trained; its configs' `initialize` has run."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # `initialize` sets it

    def build(name, kind, **options):
        shared = {
            "models_dir": str(random_models),
            "output_dir": str(tmp_path / "out"),
            "cache_dir": str(small_cohort.parent / "cache"),
        }
        made = ConfigWorkflow(
            [f"configs/{name}", str(small_cohort)],
            "configs/metadata.json",
            logging_file=False,
            workflow_type=kind,
            tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
            **shared,
            **options,
        )
        made.initialize()
        return made

    yield build
    monai.utils.set_determinism(None)


@pytest.mark.parametrize("name", TRAININGS)
def test_monai_finds_all_properties_of_a_training(name, workflow):
    options = OPTIONS.get(name, {})
    made = workflow(name, "train", iterations=2, **options)
    assert made.check_properties() == []
    assert made.max_epochs == 1
    subjects = 12 if name == "align.yaml" else 24  # the other half of the target cohort is for the evaluation
    assert len(made.train_dataset) == subjects * 2 * 3  # modalities, levels
    assert isinstance(made.trainer, monai.engines.SupervisedTrainer)


def test_the_evaluation_is_built(workflow, random_models):
    made = workflow("evaluate.yaml", "infer", tuned=str(random_models / "denoiser.pt"))
    evaluation = made.parser.get_parsed_content("evaluation")
    assert list(evaluation.spaces) == ["clip", "clip_neutral"]
    assert set(evaluation.trained_on) == {"guide", "judge", "second_judge"}
    kinds = Counter((row["modality"], row["level"]) for row in evaluation.validation.rows)
    assert list(kinds.values()) == [8] * 6  # two slices of each of 24 subjects, every kind as often
    anchored = made.parser.get_parsed_content("load_cohort")("target").halves()[0].subjects()
    assert not set(anchored) & set(evaluation.real.subjects())


def test_a_target_by_number_within_strata_is_compared_with_its_mixture(workflow, random_models):
    target = {"HGG": {"male": 0.9}, "LGG": {"male": 0.1}}
    made = workflow("evaluate.yaml", "infer", tuned=str(random_models / "denoiser.pt"), target=target, stratum="grade")
    real, overall = (made.parser.get_parsed_content(name) for name in ("real_slices", "overall_target"))
    sexes = {row["subject"]: row["sex"] for row in real.rows}.values()
    male = sum(sex == "male" for sex in sexes) / len(sexes)
    assert male == pytest.approx(float(overall[1]), abs=1 / len(sexes))
    assert 0.1 < float(overall[1]) < 0.9


def test_a_classifier_is_not_calibrated_on_whom_it_was_trained(workflow):
    made = workflow("train_classifier.yaml", "train", iterations=1, held_out_role="guide")
    with pytest.raises(RuntimeError, match="require_disjoint") as raised:
        made.run()
    assert "training and calibration share" in str(raised.value.__cause__)
