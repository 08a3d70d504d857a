"""The alignment of a pipeline of Stable Diffusion 1.5's size with random weights, in fp32, fp16 and bf16.

    python -m scripts.benchmark stable_diffusion     # minutes on a GPU; without one a much smaller pipeline

Random weights draw nothing, so this says what an iteration costs and whether it stays finite, and no more. MONAI's
trainer knows autocast on CUDA alone: on a CPU the passes of the alignment are in half precision, with its loss scaled,
and those of the anchor are not.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from ignite.engine import Events
from monai.bundle import ConfigParser
from monai.engines import SupervisedTrainer
from tqdm import tqdm
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from scripts.jobs import markdown

ITERATIONS = 50
PRECISIONS = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789,.-'"
# Stable Diffusion 1.5's own sizes are the defaults of diffusers' classes but for these.
FULL = {"width": 768, "layers": 12, "unet": (320, 640, 1280, 1280), "vae": (128, 256, 512, 512)}
REDUCED = {"width": 64, "layers": 2, "unet": (32, 64, 128, 128), "vae": (16, 32, 32, 32)}


def pipeline(folder: Path, widths: Mapping[str, Any]) -> Path:
    """Write a pipeline of these widths with random weights."""
    torch.manual_seed(0)
    words = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer({word: i for i, word in enumerate(words)}, [], model_max_length=77)
    width = widths["width"]
    text = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=widths["layers"],
        num_attention_heads=width // 64,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    unet = UNet2DConditionModel(block_out_channels=widths["unet"], cross_attention_dim=width)
    blocks = len(widths["vae"])
    autoencoder = AutoencoderKL(
        block_out_channels=widths["vae"],
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        layers_per_block=2,
        norm_num_groups=16,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, clip_sample=False
    )
    made = StableDiffusionPipeline(
        autoencoder, CLIPTextModel(text), tokenizer, unet, scheduler, None, None, requires_safety_checker=False
    )
    made.save_pretrained(folder, safe_serialization=True)
    return folder


def measure(work: Path, earlier: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Of each image size and precision: losses, steps that were not finite, seconds, images a second, memory.

    Yields what is measured so far after each run; ``earlier``, of a command that was stopped on such a device, is gone
    on with.
    """
    gpu = torch.cuda.is_available()
    base = pipeline(work / "pipeline", FULL if gpu else REDUCED)
    device = torch.cuda.get_device_name() if gpu else "no GPU: a pipeline of reduced size"
    runs = list(earlier.get("runs", [])) if earlier.get("device") == device else []
    done = {(run["size"], run["precision"]) for run in runs}
    sizes, batch = ((256, 512), 8) if gpu else ((64,), 4)
    for size, precision in product(sizes, PRECISIONS):
        if (size, precision) not in done:
            runs.append(_run(base, size, precision, batch, work / f"{size}_{precision}"))
            today = date.today().isoformat()
            yield {"device": device, "date": today, "iterations": ITERATIONS, "batch": batch, "runs": runs}


def _run(base: Path, size: int, name: str, batch: int, folder: Path) -> dict[str, Any]:
    """The trainer of align.yaml on this pipeline, without what it writes; the first tenth of the steps warms up."""
    trainer = _trainer(base, size, PRECISIONS[name], batch, folder)
    seconds, losses, skipped = [], [], []
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    bar, started = tqdm(total=ITERATIONS, desc=f"{size} px, {name}"), time.perf_counter()

    def note(engine: Any) -> None:
        nonlocal started
        losses.append(float(engine.state.output["total"]))
        skipped.append(bool(engine.state.output["skipped"]))
        seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
        bar.update()

    trainer.add_event_handler(Events.ITERATION_COMPLETED, note)
    trainer.run()
    steady = np.array(seconds[ITERATIONS // 10 :])
    peak = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else None
    return {
        "size": size,
        "precision": name,
        "losses": [round(loss, 5) for loss in losses],
        "not_finite": [number for number, bad in enumerate(skipped, 1) if bad],
        "seconds": round(float(np.median(steady)), 3),
        "images_per_second": round(batch / float(np.median(steady)), 3),
        "peak_gb": None if peak is None else round(peak, 2),
    }


def _trainer(base: Path, size: int, dtype: torch.dtype | None, batch: int, folder: Path) -> SupervisedTrainer:
    """With nothing attached but the alignment."""
    parser = ConfigParser()
    parser.read_config(["configs/align.yaml", "configs/base_diffusers.yaml"])
    options = {"pretrained": str(base), "image_size": size, "iterations": ITERATIONS, "output_dir": str(folder)}
    batches = {"batch_size": batch, "anchor_batch_size": batch, "pool_size": 2 * batch, "cache_dir": str(folder)}
    precision = {"amp": dtype is not None, "amp_dtype": dtype or torch.float16}
    for name, value in {**options, **batches, **precision}.items():
        parser[name] = value
    parser["train"]["handlers"] = [parser["train"]["handlers"][0]]
    on_cpu = dtype is not None and not torch.cuda.is_available()
    if on_cpu:
        parser["step"]["autocast"] = "$lambda: torch.autocast('cpu', @amp_dtype)"
    trainer = parser.get_parsed_content("train::trainer")
    if on_cpu:
        trainer.add_event_handler(Events.STARTED, _scale_on_cpu)
    return trainer


def _scale_on_cpu(engine: SupervisedTrainer) -> None:
    engine.scaler = torch.amp.GradScaler("cpu")


def stable_diffusion_table(result: Mapping[str, Any]) -> str:
    """Each run in a row; its loss is that of the last ten iterations, beside fp32's the largest difference in any."""
    if not result:
        return ""
    losses = {(run["size"], run["precision"]): np.array(run["losses"]) for run in result["runs"]}
    rows = []
    for run in result["runs"]:
        own, reference = losses[run["size"], run["precision"]], losses[run["size"], "fp32"]
        skipped = run["not_finite"]
        bad = f"{len(skipped)}, the last is {skipped[-1]}" if skipped else 0
        # What a small pipeline takes without a GPU says nothing of a large one on it, least of all in half precision.
        costs = (f"{run['seconds']} s", run["images_per_second"], f"{run['peak_gb']} GB")
        apart = f"{100 * np.abs(own / reference - 1).max():.2f} %"
        cells = (*(costs if run["peak_gb"] else ("-", "-", "-")), bad, f"{own[-10:].mean():.4g}", apart)
        rows.append((f"{run['size']} px", run["precision"], *cells))
    columns = "images, precision, iteration, images a second, peak memory, steps not finite, loss, most apart from fp32"
    note = f"{result['iterations']} iterations from one seed, batches of {result['batch']}."
    return f"{markdown(columns.split(', '), rows)}\n\n{result['date']}, {result['device']}; {note}"
