"""Captions by index into distinct texts."""

from types import SimpleNamespace

import torch

from bundle.prompts import neutral_caption, stated_caption
from bundle.training.captions import caption_slices, embed

ROWS = [
    {"modality": "flair", "level": "ventricular", "lesion": False, "sex": sex, "age": None}
    for sex in ("male", "female", "male", None)
] + [{"modality": "t1ce", "level": "upper", "lesion": True, "grade": "HGG", "side": "left", "sex": "male", "age": 50}]


def test_every_image_points_to_its_wordings():
    captions = caption_slices(SimpleNamespace(rows=ROWS), ["neutral", "stated"])
    assert captions.index.shape == (5, 2)
    for row, (neutral, stated) in zip(ROWS, captions.index.tolist()):
        assert captions.texts[neutral] == neutral_caption(row)
        assert captions.texts[stated] == stated_caption(row)
    assert captions.first == [neutral_caption(row) for row in ROWS]


def test_each_text_stands_once():
    captions = caption_slices(SimpleNamespace(rows=ROWS), ["neutral", "stated"])
    # neutral: healthy, sick; stated: man, woman, patient, and the sick man of 50
    assert len(captions.texts) == len(set(captions.texts)) == 6
    assert len(caption_slices(SimpleNamespace(rows=ROWS), ["neutral"]).texts) == 2


def test_contexts_in_batches():
    clip = SimpleNamespace(context=lambda texts: torch.tensor([[[float(len(text))]] for text in texts]))
    texts = ["a" * length for length in range(7)]
    assert embed(clip, texts, batch_size=3).flatten().tolist() == [0, 1, 2, 3, 4, 5, 6]
