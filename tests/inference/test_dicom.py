"""Generated images as DICOM: valid, marked, of nobody, and the same each time."""

import json

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import SecondaryCaptureImageStorage

from bundle.errors import InputError
from bundle.inference.dicom import convert, secondary_capture, to_bytes
from scripts.to_dicom import to_dicom

# Type 1 and 2 attributes of the modules of the Secondary Capture Image IOD (PS3.3 A.8.1) that apply to one still frame.
REQUIRED = (
    "SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID Modality ConversionType SamplesPerPixel "
    "PhotometricInterpretation Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation PixelData"
).split()
MAY_BE_EMPTY = (
    "PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime ReferringPhysicianName StudyID "
    "AccessionNumber SeriesNumber Manufacturer InstanceNumber PatientOrientation"
).split()


@pytest.fixture
def finished(job, tmp_path):
    return job(tmp_path / "job", number=3, pixel_size=1.5).run().output.folder


def test_the_files_are_valid_and_say_what_they_are(finished, capsys):
    to_dicom(str(finished / "manifest.json"))
    assert capsys.readouterr().out.rstrip().endswith("dicom: 3 files")
    read = [pydicom.dcmread(path) for path in sorted((finished / "dicom").iterdir())]
    for index, data in enumerate(read):
        assert data.file_meta.MediaStorageSOPClassUID == data.SOPClassUID == SecondaryCaptureImageStorage
        assert data.file_meta.MediaStorageSOPInstanceUID == data.SOPInstanceUID
        assert all(data.get(name) not in (None, "") for name in REQUIRED)
        assert all(name in data for name in MAY_BE_EMPTY)
        assert list(data.ImageType) == ["DERIVED", "SECONDARY"]
        assert (data.BurnedInAnnotation, data.ConversionType, data.SyntheticData) == ("NO", "SYN", "YES")
        for text in (data.SeriesDescription, data.DerivationDescription, data.ImageComments, str(data.PatientName)):
            assert "synthetic" in text.lower()
        assert data.PatientID.startswith("SYNTHETIC")
        assert (data.PatientSex, data.PatientBirthDate, data.StudyDate) == ("", "", "")
        assert (list(data.PixelSpacing), list(data.PatientOrientation)) == ([1.5, 1.5], ["L", "P"])
        assert np.array_equal(data.pixel_array, np.asarray(Image.open(finished / "images" / f"{index:06d}.png")))
    assert len({data.SOPInstanceUID for data in read}) == 3
    assert len({(data.StudyInstanceUID, data.SeriesInstanceUID) for data in read}) == 1
    for data in read:
        assert all(pydicom.uid.UID(uid).is_valid for uid in (data.SOPInstanceUID, data.StudyInstanceUID))
    assert "glioma, woman" in read[1].ImageComments


def test_the_same_manifest_gives_the_same_bytes_and_another_other_identifiers(finished, job, tmp_path):
    path = finished / "manifest.json"
    first, second = ([file.read_bytes() for file in convert(path, tmp_path / name)] for name in ("first", "second"))
    assert first == second
    other = job(tmp_path / "other", number=3, seed=1, pixel_size=1.5).run().output.folder / "manifest.json"
    made = [pydicom.dcmread(file).SOPInstanceUID for file in convert(other, tmp_path / "third")]
    assert not set(made) & {pydicom.dcmread(file).SOPInstanceUID for file in (tmp_path / "first").iterdir()}


def test_pictures_in_colour_and_of_unknown_size(finished):
    head = json.loads((finished / "manifest.json").read_text())
    head["settings"]["pixel_size"] = None
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)  # an odd number of bytes
    data = secondary_capture(pixels, {"index": "0", "prompt": "a naevus"}, head, "key")
    read = pydicom.dcmread(pydicom.filebase.DicomBytesIO(to_bytes(data)))
    assert np.array_equal(read.pixel_array, pixels)
    assert "PixelSpacing" not in read


def test_what_is_not_as_the_manifest_says_is_refused(finished, tmp_path):
    path = finished / "manifest.json"
    with pytest.raises(InputError, match="no such file"):
        list(convert(finished / "none.json", tmp_path))
    with pytest.raises(InputError, match="no manifest of generated images"):
        list(convert(finished / "settings.json", tmp_path))
    picture = finished / "images" / "000001.png"
    Image.fromarray(np.asarray(Image.open(picture)) // 2).save(picture)
    with pytest.raises(InputError, match=r"000001\.png: not the pixels that the manifest names"):
        list(convert(path, tmp_path))
    picture.unlink()
    with pytest.raises(InputError, match=r"000001\.png: cannot be read"):
        list(convert(path, tmp_path))
    (finished / "manifest.csv").write_text("file\n")
    with pytest.raises(InputError, match=r"manifest\.csv: changed since"):
        list(convert(path, tmp_path))
