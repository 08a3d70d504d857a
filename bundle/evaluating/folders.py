"""The evaluation of images in folders, made by any model: PNG, JPEG, NIfTI and DICOM."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bundle.attributes import Attribute
from bundle.cohorts.slices import Slices
from bundle.cohorts.tables import read_table
from bundle.errors import InputError
from bundle.evaluating.assessment import Assessment, Prompts, Side
from bundle.evaluating.pictures import picture_names, read_pictures, require_same_names
from bundle.evaluating.probes import with_second_judge
from bundle.evaluating.unseen import Judge, require_another, require_holdout, require_unseen
from bundle.evaluating.writing import write
from bundle.evaluation.likeness import Texts
from bundle.evaluation.readings import Instruments, Readings, read
from bundle.evaluation.representation import People
from bundle.weights import digest


@dataclass
class FolderEvaluation:
    """What is measured of images in folders, and on what.

    Args:
        generated: folder of the images, read with all folders in it.
        reference: folder of another model's images, or of the same model's before it was tuned; files of one name come
            from one prompt and noise.
        transforms: by kind, picture, volume and dicom, what turns {"image": path} into (C, H, W) in [0, 1].
        prompts: CSV with the columns file, relative to the folder, and prompt.
        validation: images of people of known group, on whom the judge's errors are measured.
        real: images in the proportions aimed at; ``target`` (G,) where others are.
        training: images that the generator learned from, for memorisation.
        trained_on: as in the evaluation of a generator; None where it is not known, which the report then says.
        spaces: name -> image features; ``own_space`` serves the second judge, the prompts and memorisation.
        text_features: texts to unit features (P, d) of the own space.
        show_closest: whether the page shows training images beside the generated ones that are nearest to them.
        other_reports: report.json of runs with other seeds.
    """

    generated: str
    transforms: Mapping[str, Callable]
    judge: Judge
    attribute: Attribute
    validation: Slices
    real: Slices
    spaces: Mapping[str, Callable[[Tensor], Tensor]]
    own_space: str
    output_dir: str
    cache_dir: str
    seed: int = 0
    reference: str | None = None
    guide: Judge | None = None
    prompts: str | None = None
    target: Tensor | None = None
    training: Slices | None = None
    trained_on: Mapping[str, Sequence] | None = None
    text_features: Callable[[Sequence[str]], Tensor] | None = None
    margin: float = 0.05
    show_closest: bool = False
    other_reports: Sequence[str] = field(default_factory=list)

    def run(self) -> dict:
        """Measure, write the report in all its forms to ``output_dir``, print the table, return the report."""
        started = time.monotonic()
        self._check_judge()
        folders = {"before": self.reference, "after": self.generated}
        folders = {name: folder for name, folder in folders.items() if folder is not None}
        names = {name: picture_names(folder) for name, folder in folders.items()}
        require_same_names({folders[name]: found for name, found in names.items()})
        texts, prompt = self._prompts(names["after"])
        sides = {name: Side(self._look(folder, names[name], name), prompt) for name, folder in folders.items()}
        made = self._assessment(texts).report(
            sides,
            self.seed,
            started,
            others=self.other_reports,
            folders=folders,
            weights={"judge": digest(self.judge)},
            judge_training_known=self.trained_on is not None,
        )
        training = self.training.images if self.training and self.show_closest else None
        write(made, self.output_dir, sides, texts, training)
        return made

    def _look(self, folder: str, names: Sequence[str], label: str) -> Readings:
        shape = self.real.pixels(slice(1)).shape[1:]
        images = read_pictures(folder, names, self.transforms, self.cache_dir, shape)
        return read(images, self.instruments, label=f"reading {label}")

    def _check_judge(self) -> None:
        if self.guide is not None:
            require_another(self.guide, self.judge)
        if self.trained_on is not None:
            require_unseen(self.trained_on, self.judge, self.validation.subjects())
        if self.training is not None:
            require_holdout(self.training.subjects(), self.validation.subjects(), self.real.subjects())

    @cached_property
    def instruments(self) -> Instruments:
        guide = {} if self.guide is None else {"guide": self.guide}
        return Instruments({"judge": self.judge, **guide}, self.spaces)

    def _assessment(self, texts: Sequence[str]) -> Assessment:
        known = self.validation.where(lambda row: row[self.attribute.name] in self.attribute.groups)
        people = People(tuple(self.attribute.groups), self._read(known, "validation images"), images="plain")
        people, probe = with_second_judge(people, self.own_space)
        target = self.target
        if target is None:
            target = self.attribute.observed_proportions(self.real.rows, "real")
        space = Instruments({}, {self.own_space: self.spaces[self.own_space]})
        return Assessment(
            attribute=self.attribute,
            target=np.asarray(target, dtype=float),
            targets={},
            people=people,
            probe=probe,
            real=self._read(self.real, "real images"),
            margin=self.margin,
            prompts=self._embedded(texts),
            training=None if self.training is None else self._read(self.training, "training images", space),
            own_space=self.own_space,
        )

    def _read(self, slices: Slices, label: str, instruments: Instruments | None = None) -> Readings:
        groups = self.attribute.indices(slices.rows)
        instruments = self.instruments if instruments is None else instruments
        return read(slices.images, instruments, slices.subjects(), groups, f"reading {label}")

    def _prompts(self, files: Sequence[str]) -> tuple[list[str], NDArray | None]:
        """The distinct prompts, and the index of each file's; nothing without a table of them."""
        if self.prompts is None:
            return [], None
        prompt = {row["file"]: row["prompt"] for row in read_table(self.prompts, ["file", "prompt"])}
        without = [file for file in files if file not in prompt]
        if without:
            raise InputError(
                f"{self.prompts}: no row for '{without[0]}' ({len(without)} of these); write one row for every image, "
                f"with its path below {self.generated}"
            )
        texts = sorted({prompt[file] for file in files})
        number = {text: i for i, text in enumerate(texts)}
        return texts, np.array([number[prompt[file]] for file in files])

    def _embedded(self, texts: Sequence[str]) -> Prompts | None:
        if not texts:
            return None
        known = None if self.text_features is None else self.text_features(texts).cpu().double().numpy()
        return Prompts(texts, ["all"] * len(texts), None if known is None else Texts(self.own_space, known))
