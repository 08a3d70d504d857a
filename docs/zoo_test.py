"""The zoo's unit test of this bundle: workflows have all their properties, and two images come out.

It is copied to ci/unit_tests of the zoo by `make zoo`, and runs from the zoo's root as its other tests do.
"""

import json
import os
import sys
import tempfile
import unittest

from monai.bundle import ConfigWorkflow

NAME = "brats_mri_text_fair_generative_diffusion"


class TestBundle(unittest.TestCase):
    """In the bundle's own folder, which its training and evaluation configs name their parts from."""

    def setUp(self):
        self.before = os.getcwd()
        os.chdir(os.path.join("models", NAME))
        sys.path.insert(0, os.getcwd())
        self.folder = tempfile.TemporaryDirectory()

    def tearDown(self):
        self.folder.cleanup()
        sys.path.pop(0)
        os.chdir(self.before)

    def workflow(self, name, kind, *overlays, **options):
        made = ConfigWorkflow(
            config_file=[f"configs/{name}.json", *overlays],
            meta_file="configs/metadata.json",
            logging_file="configs/logging.conf",
            workflow_type=kind,
            output_dir=self.folder.name,
            **options,
        )
        made.initialize()
        return made

    def test_inference(self):
        made = self.workflow("inference", "inference", prompts=["axial FLAIR brain MRI, middle level, no tumor"] * 2)
        assert made.check_properties() == []
        made.run()
        with open(os.path.join(self.folder.name, "manifest.json")) as stream:
            assert json.load(stream)["images"]["number"] == 2

    def test_training(self):
        from bundle.cohorts import phantom

        roles = ("source", "target", "guide", "judge", "validation")
        lists = {role: str(phantom.generate(self.folder.name, role, subjects=24)) for role in roles}
        options = {"datalists": lists, "dataset_dir": self.folder.name, "cache_dir": self.folder.name}
        sizes = {"iterations": 2, "num_snapshots": 2, "batch_size": 4, "anchor_batch_size": 4, "pool_size": 8}
        made = self.workflow("train", "train", "configs/cohort_datalist.yaml", models_dir="models", **options, **sizes)
        assert made.check_properties() == []
        made.run()
        assert os.path.isfile(os.path.join(self.folder.name, "model.pt"))


if __name__ == "__main__":
    unittest.main()
