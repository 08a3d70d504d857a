"""Pictures of every kind become slices: grey, in colour, DICOM."""

import json

import numpy as np
import pydicom
import pytest
from monai.bundle import ConfigParser
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from bundle.attributes import Attribute
from bundle.cohorts import picture_slices
from bundle.errors import InputError
from bundle.images import as_bytes

SEX = Attribute("sex", ["female", "male"])


@pytest.fixture
def slices(root, tmp_path, monkeypatch):
    """A function that writes the datalist of some files and reads them as slices."""
    monkeypatch.chdir(root)

    def make(*files, channels=1, pipeline="slice_preprocessing", role="source"):
        records = [
            {"subject": f"p{i}", "image": file, "sex": "male", "role": "source", "caption": "x"}
            for i, file in enumerate(files)
        ]
        (tmp_path / "list.json").write_text(json.dumps(records))
        parser = ConfigParser({"image_channels": channels})
        parser.read_config("configs/pictures.yaml")
        parser["image_channels"], parser["image_size"] = channels, 128
        transform = parser.get_parsed_content(pipeline)
        return picture_slices(role, tmp_path / "list.json", SEX, transform, tmp_path / "cache")

    make.folder = tmp_path
    return make


def levels(slices):
    """What is shown, (N, C, H, W) from 0 to 255."""
    return as_bytes(slices.pixels())


def half(shape, dtype=np.uint8, bright=200):
    """Dark above, bright below."""
    values = np.zeros(shape, dtype)
    values[shape[0] // 2 :] = bright
    return values


def test_a_wide_picture_keeps_its_middle_and_its_orientation(slices):
    values = half((40, 80))
    values[:, :20] = values[:, 60:] = 255  # cut away
    Image.fromarray(values).save(slices.folder / "a.png")
    made = slices("a.png")
    assert levels(made).shape == (1, 1, 128, 128)
    assert levels(made)[0, 0, :60].max() == 0
    assert (levels(made)[0, 0, 70:] == 200).all()
    assert (made.rows[0]["caption"], made.rows[0]["subject"]) == ("x", "p0")
    assert "image" not in made.rows[0]


def test_colour_is_kept_or_made_grey(slices):
    Image.fromarray(np.stack([half((40, 40)), half((40, 40)) // 2, half((40, 40)) * 0], -1)).save(
        slices.folder / "a.png"
    )
    assert levels(slices("a.png", channels=3))[0, :, 100, 64].tolist() == [200, 100, 0]
    # ITU-R 601: .299 * 200 + .587 * 100
    assert int(levels(slices("a.png"))[0, 0, 100, 64]) == pytest.approx(0.299 * 200 + 0.587 * 100, abs=1)


def test_grey_and_palette_pictures_serve_colour_too(slices):
    Image.fromarray(half((40, 40))).convert("P").save(slices.folder / "a.png")
    assert levels(slices("a.png", channels=3))[0, :, 100, 64].tolist() == [200] * 3


def dicom(path, values, number=0, series=None, photometric="MONOCHROME2"):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    data.SeriesInstanceUID, data.InstanceNumber = series or generate_uid(), number
    data.Rows, data.Columns, data.SamplesPerPixel = *values.shape, 1
    data.PhotometricInterpretation, data.BitsAllocated, data.BitsStored, data.HighBit = photometric, 16, 12, 11
    data.PixelRepresentation, data.PixelSpacing, data.SliceThickness = 0, [1, 1], 2
    data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, 2 * number], [1, 0, 0, 0, 1, 0]
    data.PixelData = values.astype(np.uint16).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, data, enforce_file_format=True)


def test_dicom_of_twelve_bits(slices):
    dicom(slices.folder / "a.dcm", half((40, 60), np.uint16, 3000))
    made = slices("a.dcm", pipeline="dicom_preprocessing")
    assert levels(made).shape == (1, 1, 128, 128)
    assert levels(made)[0, 0, :60].max() == 0
    assert (levels(made)[0, 0, 70:] == 255).all()


def test_dicom_whose_high_values_are_dark_is_turned_round(slices):
    dicom(slices.folder / "a.dcm", 3000 - half((40, 60), np.uint16, 3000), photometric="MONOCHROME1")
    made = slices("a.dcm", pipeline="dicom_preprocessing")
    assert levels(made)[0, 0, :60].max() == 0
    assert (levels(made)[0, 0, 70:] == 255).all()


def test_the_middle_of_a_dicom_series(slices):
    series = generate_uid()
    for number in range(5):
        dicom(
            slices.folder / "scan" / f"{number}.dcm",
            half((40, 40), np.uint16, 1000 if number == 2 else 0) + number,
            number,
            series,
        )
    made = slices("scan", pipeline="dicom_preprocessing")
    assert (levels(made)[0, 0, 70:] == 255).all()
    assert levels(made)[0, 0, :60].max() == 0


def test_a_role_that_nobody_has(slices):
    Image.fromarray(half((40, 40))).save(slices.folder / "a.png")
    with pytest.raises(InputError, match="nobody has the role 'judge', there are source"):
        slices("a.png", role="judge")
