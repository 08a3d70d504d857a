"""The jobs on a pipeline of diffusers: tuned on the source cohort, aligned, resumed, exported, sampled elsewhere."""

import monai
import pytest
import torch
from diffusers import StableDiffusionPipeline
from ignite.engine import Events
from monai.bundle import ConfigWorkflow

from bundle.networks.pretrained import load_denoiser
from bundle.weights import load_weights
from tests.pipelines import save_tiny_pipeline

SHORT = {"image_size": 32, "num_steps": 4, "decay": 0.0, "batch_size": 4, "iterations": 2}
ALIGN = {**SHORT, "anchor_batch_size": 4, "pool_size": 8, "num_snapshots": 1}


@pytest.fixture
def workflow(root, small_cohort, tmp_path, monkeypatch):
    """Builds a job on a pipeline with the committed guide, judge and CLIP."""
    monkeypatch.chdir(root)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def build(job, pretrained, output_dir, run_id="training", **options):
        made = ConfigWorkflow(
            [f"configs/{job}.yaml", "configs/base_diffusers.yaml", str(small_cohort)],
            "configs/metadata.json",
            logging_file=False,
            workflow_type="train",
            run_id=run_id,
            pretrained=str(pretrained),
            models_dir="models",
            output_dir=str(output_dir),
            cache_dir=str(small_cohort.parent / "cache"),
            tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
            **options,
        )
        made.initialize()
        return made

    yield build
    monai.utils.set_determinism(None)


def changed(pretrained, weights):
    """Names of the denoiser's weights that are no longer the pipeline's, the rounding to half precision apart."""
    before, after = load_denoiser(str(pretrained)), load_weights(load_denoiser(str(pretrained)), weights)
    state = after.state_dict()
    return {name for name, value in before.state_dict().items() if (value - state[name]).abs().max() > 1e-3}


ADAPTED, WHOLE = {"r": 4, "lora_alpha": 64}, None


@pytest.mark.parametrize(
    ("prediction", "lora"),
    [
        ("epsilon", ADAPTED),
        pytest.param("v_prediction", ADAPTED, marks=pytest.mark.slow),
        pytest.param("epsilon", WHOLE, marks=pytest.mark.slow),
        pytest.param("v_prediction", WHOLE, marks=pytest.mark.slow),
    ],
)
def test_from_a_pipeline_to_a_pipeline(workflow, tmp_path, prediction, lora):
    pretrained = save_tiny_pipeline(tmp_path / "base", prediction)
    options = {"lora": lora, "learning_rate": 0.01}
    workflow("train_diffusion", pretrained, tmp_path / "tuned", **SHORT, **options).run()
    tuned = tmp_path / "tuned" / "model.pt"
    attention = {name for name in changed(pretrained, tuned) if ".to_" in name}
    assert attention
    assert (changed(pretrained, tuned) == attention) is (lora is not None)
    aligned = tmp_path / "aligned"
    workflow("align", pretrained, aligned, base=str(tuned), **ALIGN, **options).run()
    workflow("align", pretrained, aligned, run_id="exporting").run()
    exported = StableDiffusionPipeline.from_pretrained(aligned / "pipeline", use_safetensors=True, safety_checker=None)
    exported.set_progress_bar_config(disable=True)
    images = exported(["a brain mr"], num_inference_steps=4, output_type="np").images
    assert images.shape == (1, 16, 16, 3)
    saved, state = load_denoiser(str(aligned / "pipeline")), torch.load(aligned / "model.pt", weights_only=True)
    assert all(torch.equal(value, state[name].float()) for name, value in saved.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("lora", [ADAPTED, WHOLE], ids=["adapters", "all weights"])
def test_a_stopped_alignment_goes_on_exactly(workflow, tmp_path, lora):
    pretrained = save_tiny_pipeline(tmp_path / "base")
    options = {**ALIGN, "iterations": 4, "lora": lora, "learning_rate": 0.01}
    workflow("align", pretrained, tmp_path / "whole", **options).run()
    stopped = workflow("align", pretrained, tmp_path / "stopped", **options)
    trainer = stopped.parser.get_parsed_content("train::trainer")
    trainer.add_event_handler(Events.ITERATION_STARTED(once=4), _stop)
    with pytest.raises(RuntimeError) as caught:
        stopped.run()
    assert str(caught.value.__cause__) == "stopped"
    workflow("align", pretrained, tmp_path / "stopped", **options).run()
    whole, resumed = (torch.load(tmp_path / name / "model.pt", weights_only=True) for name in ("whole", "stopped"))
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def _stop(engine):
    raise RuntimeError("stopped")
