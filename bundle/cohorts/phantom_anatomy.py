"""Anatomy of the phantom: random but recognisable brains, defined in millimetres and drawn on any grid.

The head frame is RAS in millimetres with its origin in the middle of the head. `draw_subject` draws everything that is
random about one person; `render` is deterministic but for the scanner's noise, whose seed the subject carries.

Sex acts through one number only: the asymmetry of the lateral ventricles, |log area ratio|. Which side is larger is a
fair coin, and the total size of the ventricles, the head, the tilt, the contrasts and the lesion are drawn without
looking at sex. Telling the sexes apart therefore takes a comparison of two shapes, not an intensity or a size.
"""

from dataclasses import dataclass

import numpy as np

MODALITIES = ("t1", "t1ce", "t2", "flair")
TISSUES = ("white", "grey", "fluid", "oedema", "enhancing", "necrosis")
CONTRASTS = np.array(  # modality x tissue, relative to the scanner's gain
    [
        [0.80, 0.60, 0.19, 0.52, 0.50, 0.27],
        [0.74, 0.57, 0.18, 0.50, 1.35, 0.25],
        [0.42, 0.58, 1.05, 0.92, 0.75, 0.95],
        [0.50, 0.61, 0.15, 1.08, 0.88, 0.40],
    ]
)
SEGMENTATION_LABELS = {"necrosis": 1, "oedema": 2, "enhancing": 4}  # BraTS
ASYMMETRY = {"female": (0.20, 0.18), "male": (0.90, 0.19)}  # mean and SD of the trait before folding at 0
GREY_THICKNESS = 3.4  # mm
PARTIAL_VOLUME = 2.4  # mm over which one tissue gives way to another


@dataclass(frozen=True)
class Ventricle:
    """One lateral ventricle, a bent ellipsoid; millimetres in the head frame."""

    side: int  # +1 right, -1 left
    half_width: float
    half_length: float
    centre_y: float
    bend: float  # how far the horns turn away from the midline


@dataclass(frozen=True)
class Lesion:
    """A glioma: oedema around a core; millimetres in the head frame."""

    centre: np.ndarray  # (3,)
    radius: float
    half_height: float
    core: float  # radius of the core over the radius of the oedema
    enhancement: float  # how much of the core's rim takes up contrast agent, 0 to 1
    necrotic: float  # radius of the necrosis over the radius of the core
    lobes: np.ndarray  # (4, 2) amplitude and phase of the outline's harmonics


@dataclass(frozen=True)
class Subject:
    """All that is random about one phantom; angles in radians, lengths in millimetres."""

    sex: str
    grade: str
    age: int
    asymmetry: float  # the trait: |log ratio of the ventricles' areas|
    larger_side: str
    semi_axes: np.ndarray  # (3,) right, anterior, superior
    egg: float  # how much the forehead is narrower than the back
    tilt: float  # rotation in the axial plane
    shift: np.ndarray  # (3,)
    outline: np.ndarray  # (4, 2) amplitude and phase of the outline's harmonics
    folds: np.ndarray  # (waves, 4) angular, axial and radial frequency, phase
    sulcus_depth: float
    sulcus_lengths: np.ndarray  # (5, 2) amplitude and phase of the depth's harmonics around the head
    ventricle_level: float
    ventricle_half_height: float
    septum: float  # half the gap between the ventricles
    ventricles: tuple[Ventricle, Ventricle]
    lesion: Lesion
    contrasts: np.ndarray  # (modality, tissue)
    bias: np.ndarray  # (modality, 6) coefficients of the receive field's polynomial
    noise: float  # SD relative to the gain
    noise_seed: int


def draw_subject(sex: str, rng: np.random.Generator, variety: float = 1.0) -> Subject:
    """Draw one person of a given sex; only `asymmetry` depends on it.

    `variety` multiplies the spread of the head's size and form, of the ventricles' size and of how far the tissues'
    contrasts are stretched: more kinds of people, none of whose images is noisier.
    """
    spread = variety * np.array([0.045, 0.03, 0.03, 0.03])
    semi_axes = np.array([66.0, 83.0, 65.0]) * np.exp(rng.normal(0, spread[0]) + rng.normal(0, spread[1:]))
    asymmetry = abs(rng.normal(*ASYMMETRY[sex]))
    larger = rng.choice([-1, 1])
    grade = "HGG" if rng.random() < 0.7 else "LGG"
    level = rng.normal(0.05, 0.03) * 2 * semi_axes[2]
    return Subject(
        sex=sex,
        grade=grade,
        age=int(rng.integers(20, 81)),
        asymmetry=float(asymmetry),
        larger_side="right" if larger > 0 else "left",
        semi_axes=semi_axes,
        egg=rng.uniform(0.04, 0.13),
        tilt=float(np.clip(rng.normal(0, np.radians(5)), -np.radians(12), np.radians(12))),
        shift=rng.normal(0, [4, 4, 2]),
        outline=np.stack([rng.normal(0, 0.006 * variety, 4), rng.uniform(0, 2 * np.pi, 4)], axis=1),
        folds=_draw_folds(rng),
        sulcus_depth=rng.uniform(12, 18),
        sulcus_lengths=np.stack([rng.normal(0, 0.2, 5), rng.uniform(0, 2 * np.pi, 5)], axis=1),
        ventricle_level=level,
        ventricle_half_height=rng.uniform(32, 40),
        septum=rng.uniform(3.2, 4.2),
        ventricles=_draw_ventricles(asymmetry * larger, rng, variety),
        lesion=_draw_lesion(grade, semi_axes, rng),
        contrasts=_draw_contrasts(rng, variety),
        bias=rng.normal(0, 0.045, (len(MODALITIES), 6)),
        noise=rng.uniform(0.02, 0.04),
        noise_seed=int(rng.integers(2**63)),
    )


def _draw_folds(rng: np.random.Generator) -> np.ndarray:
    waves = 6
    angular = rng.integers(6, 16, waves) * rng.choice([-1, 1], waves)
    axial, radial = rng.normal(0, 0.06, waves), rng.normal(0, 0.16, waves)
    return np.stack([angular, axial, radial, rng.uniform(0, 2 * np.pi, waves)], axis=1)


def _draw_ventricles(log_ratio: float, rng: np.random.Generator, variety: float) -> tuple[Ventricle, Ventricle]:
    """Share a total area, drawn without regard to the ratio, between right and left by exp(log_ratio)."""
    total = np.exp(rng.normal(0, 0.2 * variety))
    bend, centre_y = rng.uniform(4, 9), rng.normal(-4, 4)
    ventricles = []
    for side in (1, -1):
        area = 2 * total / (1 + np.exp(-side * log_ratio))
        stretch = np.exp(rng.normal(0, 0.05))
        ventricles.append(
            Ventricle(
                side=side,
                half_width=7.6 * area**0.6 / stretch,
                half_length=24.0 * area**0.4 * stretch,
                centre_y=centre_y + rng.normal(0, 1.5),
                bend=bend * np.exp(rng.normal(0, 0.15)),
            )
        )
    return tuple(ventricles)


def _draw_lesion(grade: str, semi_axes: np.ndarray, rng: np.random.Generator) -> Lesion:
    side, radius = rng.choice([-1, 1]), rng.uniform(14, 22)
    high = grade == "HGG"
    centre = [side * rng.uniform(0.56, 0.70), rng.uniform(-0.50, 0.45), rng.uniform(-0.40, 0.60)] * semi_axes
    return Lesion(
        centre=centre,
        radius=radius,
        half_height=radius * rng.uniform(0.9, 1.2),
        core=rng.uniform(0.64, 0.78) if high else rng.uniform(0.48, 0.56),
        enhancement=rng.uniform(0.85, 1.0) if high else rng.uniform(0.65, 0.85),
        necrotic=rng.uniform(0.40, 0.55) if high else 0.0,
        lobes=np.stack([rng.normal(0, [0.07, 0.05, 0.03, 0.03]), rng.uniform(0, 2 * np.pi, 4)], axis=1),
    )


def _draw_contrasts(rng: np.random.Generator, variety: float) -> np.ndarray:
    gain = 600 * np.exp(rng.normal(0, 0.3, (len(MODALITIES), 1)))
    stretch = np.exp(rng.normal(0, 0.1 * variety, (len(MODALITIES), 1)))
    middle = CONTRASTS[:, :2].mean(axis=1, keepdims=True)
    contrasts = middle * (CONTRASTS / middle) ** stretch
    return gain * contrasts * np.exp(rng.normal(0, 0.04, CONTRASTS.shape))


def render(subject: Subject, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Draw a subject on the grid of three axes in millimetres, RAS.

    Returns the modalities, each int16 of shape (len(x), len(y), len(z)) and exactly 0 outside the brain, and the
    BraTS segmentation (uint8, same shape).
    """
    grid = np.meshgrid(*(np.asarray(axis, dtype=np.float32) for axis in (x, y, z)), indexing="ij", sparse=True)
    frame = _head_frame(subject, *grid)
    depth = _depth(subject, *frame)
    inside = depth > 0
    points = [np.broadcast_to(axis, inside.shape)[inside] for axis in frame]
    fractions = _tissue_fractions(subject, *points, depth[inside])
    signals = _signals(subject, fractions, points)
    images = {
        name: _scatter(np.clip(np.rint(signal), 1, 32767), inside, np.int16)
        for name, signal in zip(MODALITIES, signals)
    }
    return images, _scatter(_labels(fractions), inside, np.uint8)


def _scatter(values: np.ndarray, inside: np.ndarray, dtype: type) -> np.ndarray:
    volume = np.zeros(inside.shape, dtype)
    volume[inside] = values
    return volume


def _head_frame(subject: Subject, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, ...]:
    x, y, z = x - np.float32(subject.shift[0]), y - np.float32(subject.shift[1]), z - np.float32(subject.shift[2])
    cos, sin = np.float32(np.cos(subject.tilt)), np.float32(np.sin(subject.tilt))
    return cos * x + sin * y, cos * y - sin * x, z


def _depth(subject: Subject, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Depth below the brain's hull in millimetres (approximate), negative outside."""
    right, anterior, superior = subject.semi_axes.astype(np.float32)
    u, v, w = x / right, y / anterior, z / superior
    u = u * (1 + np.float32(subject.egg) * v)
    radius = (u * u + v * v) ** 1.15 + np.abs(w) ** 2.3
    radius = radius ** (1 / 2.3) * (1 - _harmonics(subject.outline, np.arctan2(v, u), first=2))
    notch = 3.0 * np.exp(-((x / 3.5) ** 2))  # the fissure opens at the poles
    return (1 - radius) * (0.5 * (right + anterior)) - notch


def _harmonics(coefficients: np.ndarray, angle: np.ndarray, first: int) -> np.ndarray:
    return sum(
        np.float32(amplitude) * np.cos(order * angle + np.float32(phase))
        for order, (amplitude, phase) in enumerate(coefficients, start=first)
    )


def _cover(distance: np.ndarray) -> np.ndarray:
    """Share of a voxel that lies inside a surface, from the signed distance in millimetres (positive inside)."""
    return np.clip(0.5 + distance / PARTIAL_VOLUME, 0, 1)


def _tissue_fractions(subject: Subject, x, y, z, depth: np.ndarray) -> np.ndarray:
    """Partial volumes (tissue, points), painted from the white matter outwards; they sum to one."""
    fractions = np.zeros((len(TISSUES), x.size), np.float32)
    fractions[0] = 1

    def paint(tissue: str, cover: np.ndarray) -> None:
        nonlocal fractions
        fractions *= 1 - cover
        fractions[TISSUES.index(tissue)] += cover

    pial = _pial_distance(subject, x, y, z, depth)
    paint("grey", np.maximum(_cover(GREY_THICKNESS - pial), 0.8 * _cover(_nuclei(subject, x, y, z))))
    paint("fluid", _cover(-pial))
    ventricles = np.maximum(*(_ventricle(subject, ventricle, x, y, z) for ventricle in subject.ventricles))
    paint("fluid", _cover(ventricles))
    room = _cover(np.minimum(depth - 4, -ventricles - 4))  # oedema spares the cortex and the ventricles' walls
    lesion = subject.lesion
    radius, size = _lesion_radius(lesion, x, y, z)
    core = lesion.core * size
    paint("oedema", room * _cover(size - radius))
    paint("enhancing", room * lesion.enhancement * _cover(core - radius) * _cover(radius - lesion.necrotic * core))
    paint("necrosis", room * _cover(lesion.necrotic * core - radius) * (lesion.necrotic > 0))
    return fractions


def _pial_distance(subject: Subject, x, y, z, depth: np.ndarray) -> np.ndarray:
    """Distance to the nearest cerebrospinal fluid of surface, sulci and fissure in millimetres, negative inside it."""
    sulci = _sulcus_distance(subject, x, y, z, depth) - 0.8
    below = depth - subject.sulcus_depth * (1 + _harmonics(subject.sulcus_lengths, np.arctan2(y, x), first=3))
    sulci = np.where(below > 0, np.hypot(np.maximum(sulci, 0), below), sulci)
    return np.minimum(np.minimum(depth - 0.8, sulci), _fissure(subject, x, y, z))


def _sulcus_distance(subject: Subject, x, y, z, depth: np.ndarray) -> np.ndarray:
    """Distance to the folds' zero lines in millimetres: |F| / |grad F| of a sum of waves around the head."""
    angle, inward = np.arctan2(y, x), subject.semi_axes[1] - depth
    waves = slope_angle = slope_axial = slope_radial = 0
    for m, k_z, k_r, phase in subject.folds.astype(np.float32):
        argument = m * angle + k_z * z + k_r * inward + phase
        waves, sine = waves + np.cos(argument), np.sin(argument)
        slope_angle, slope_axial, slope_radial = (
            slope_angle + m * sine,
            slope_axial + k_z * sine,
            slope_radial + k_r * sine,
        )
    circumference = np.hypot(x, y) + 1
    slope = np.sqrt((slope_angle / circumference) ** 2 + slope_axial**2 + slope_radial**2)
    return np.abs(waves) / (slope + 0.08)


def _fissure(subject: Subject, x, y, z) -> np.ndarray:
    """Distance to the interhemispheric fissure, which stops where the corpus callosum bridges the hemispheres."""
    height = (z - subject.ventricle_level) / (subject.ventricle_half_height + 6)
    bridge = 40 * np.sqrt(np.clip(1 - height * height, 0, 1))
    middle = np.mean([ventricle.centre_y for ventricle in subject.ventricles])
    across = np.abs(x - 1.2 * np.sin(y / 9 + np.float32(subject.folds[0, 3]))) - 0.8
    along = bridge - np.abs(y - middle)
    return np.where(along > 0, np.hypot(np.maximum(across, 0), np.maximum(along, 0)), across)


def _nuclei(subject: Subject, x, y, z) -> np.ndarray:
    """Signed distance to the lentiform nucleus and the thalamus of both sides, positive inside."""
    level = z - subject.ventricle_level
    lentiform = 1 - np.hypot((np.abs(x) - 31 + 0.15 * y) / 7, np.hypot((y - 6) / 17, (level + 16) / 20))
    thalamus = 1 - np.hypot((np.abs(x) - 15) / 10, np.hypot((y + 16) / 13, (level + 18) / 16))
    return 8 * np.maximum(lentiform, thalamus)


def _ventricle(subject: Subject, ventricle: Ventricle, x, y, z) -> np.ndarray:
    """Signed distance to a lateral ventricle in millimetres (approximate), positive inside."""
    along = (y - ventricle.centre_y) / ventricle.half_length
    height = (z - subject.ventricle_level) / subject.ventricle_half_height
    centre = subject.septum + ventricle.half_width + ventricle.bend * along * along * (1 - 0.4 * height)
    across = (ventricle.side * x - centre) / ventricle.half_width
    return ventricle.half_width * (1 - np.sqrt(across**2 + along**2 + height**4))


def _lesion_radius(lesion: Lesion, x, y, z) -> tuple[np.ndarray, np.ndarray]:
    """Distance from the lesion's axis and the oedema's outer radius at that angle and level, both in millimetres."""
    x, y, z = x - lesion.centre[0], y - lesion.centre[1], z - lesion.centre[2]
    flat = np.clip(1 - (z / lesion.half_height) ** 4, 0, 1) ** 0.25
    size = lesion.radius * flat * (1 + _harmonics(lesion.lobes, np.arctan2(y, x), first=2))
    return np.hypot(x, y), np.where(flat > 0, size, -PARTIAL_VOLUME)


def _signals(subject: Subject, fractions: np.ndarray, points: list[np.ndarray]) -> np.ndarray:
    """Signal (modality, points): tissue contrasts under a smooth receive field, with Rician-like noise."""
    u, v, w = (axis / extent for axis, extent in zip(points, subject.semi_axes.astype(np.float32)))
    field = subject.bias.astype(np.float32) @ np.stack([u, v, w, u * v, u * u - v * v, v * w])
    signals = subject.contrasts.astype(np.float32) @ fractions * np.exp(field)
    level = subject.noise * subject.contrasts[:, :2].mean(axis=1, keepdims=True) / 0.6
    noise = np.random.default_rng(subject.noise_seed).standard_normal(signals.shape, np.float32)
    return np.abs(signals + level.astype(np.float32) * noise)


def _labels(fractions: np.ndarray) -> np.ndarray:
    tumour = fractions[TISSUES.index("oedema") :]
    labels = np.array([SEGMENTATION_LABELS[name] for name in TISSUES[TISSUES.index("oedema") :]], np.uint8)
    return np.where(tumour.sum(axis=0) > 0.5, labels[tumour.argmax(axis=0)], 0)
