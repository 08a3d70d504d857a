"""A MONAI Deploy application around the exported judge: a DICOM series in, probabilities as JSON out.

An example for docs/pipelines.md. It was written by the App SDK's published operators and has not been run here: the SDK
is not among this bundle's requirements. What it reads, the archive with classifier.yaml, is tested.

    monai-deploy exec docs/deploy/app.py -i series/ -o result/ -m models/judge.ts
"""

import json
from pathlib import Path

from monai.deploy.conditions import CountCondition
from monai.deploy.core import AppContext, Application, Fragment, Operator, OperatorSpec
from monai.deploy.core.domain import Image
from monai.deploy.core.io_type import IOType
from monai.deploy.operators.dicom_data_loader_operator import DICOMDataLoaderOperator
from monai.deploy.operators.dicom_series_selector_operator import DICOMSeriesSelectorOperator
from monai.deploy.operators.dicom_series_to_volume_operator import DICOMSeriesToVolumeOperator
from monai.deploy.operators.monai_bundle_inference_operator import (
    BundleConfigNames,
    IOMapping,
    MonaiBundleInferenceOperator,
)

GROUPS = ("female", "male")  # channel_def of the output in configs/metadata.json
RULES = '{"selections": [{"name": "MR", "conditions": {"Modality": "(?i)MR"}}]}'


class WriteReading(Operator):
    """Writes the classifier's probabilities, and that they are a reading and not a finding."""

    def __init__(self, fragment: Fragment, *args, folder: Path, **kwargs):
        self.folder = folder
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec):
        spec.input("pred")

    def compute(self, op_input, op_output, context):
        probabilities = [float(value) for value in op_input.receive("pred").flatten()]
        content = {
            "meaning": "raw reading of a research classifier, not for clinical use",
            "probabilities": dict(zip(GROUPS, probabilities, strict=True)),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "reading.json").write_text(json.dumps(content, indent=2))


class JudgeApp(Application):
    """Series, selection, volume, classifier, file."""

    def compose(self):
        context = AppContext({})
        load = DICOMDataLoaderOperator(
            self, CountCondition(self, 1), input_folder=Path(context.input_path), name="load"
        )
        select = DICOMSeriesSelectorOperator(self, rules=RULES, name="select")
        volume = DICOMSeriesToVolumeOperator(self, name="volume")
        judge = MonaiBundleInferenceOperator(
            self,
            input_mapping=[IOMapping("image", Image, IOType.IN_MEMORY)],
            output_mapping=[IOMapping("pred", dict, IOType.IN_MEMORY)],
            app_context=context,
            bundle_config_names=BundleConfigNames(config_names=["classifier"]),
            bundle_path=Path(context.model_path),
            name="judge",
        )
        write = WriteReading(self, folder=Path(context.output_path), name="write")
        self.add_flow(load, select, {("dicom_study_list", "dicom_study_list")})
        self.add_flow(select, volume, {("study_selected_series_list", "study_selected_series_list")})
        self.add_flow(volume, judge, {("image", "image")})
        self.add_flow(judge, write, {("pred", "pred")})


if __name__ == "__main__":
    JudgeApp().run()
