"""The words by which a figure caption tells modality, body part and sex, and how a sex is taken out of a caption.

All lists stand here. A word counts where it stands alone ("man" is inside "woman"), in capitals or not. A word that
ends with a hyphen is a stem: ``cerebr-`` is any word that begins so. A word that is written with a capital here counts
only as written here ("MR", but not "Mr"). Between the parts of a phrase there may be spaces, a hyphen, or nothing.

The lists are simple. They miss cases, and some words mean other things too: "head" is also a part of the femur.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(", "))


MODALITY: dict[str, tuple[str, ...]] = {
    # T1 and T2 alone would also be vertebrae. This list and the one for the brain give the counts in the tests.
    "mr": _words(
        "MR, mri, mris, fmri, magnetic resonance, flair, dwi, diffusion weighted, "
        "t1 w, t1 wi, t1 weighted, t2 w, t2 wi, t2 weighted"
    ),
    "ct": _words(
        "ct, cect, ncct, hrct, cbct, computed tomogra-, computerized tomogra-, computerised tomogra-, "
        "computed axial tomogra-"
    ),
    "x-ray": _words("x ray, x rays, cxr, radiograph-, roentgen-, plain film, plain films, orthopantomogra-"),
    "ultrasound": _words("ultraso-, sonogra-, echocardiogra-, echogra-, doppler"),
}

BODY_PART: dict[str, tuple[str, ...]] = {
    "brain": _words(
        "brain-, midbrain, cerebr-, cerebell-, head, intracrani-, cranial, cranium, cranio, craniec-, craniop-, "
        "craniot-, craniov-, cortex, cortical, white matter, gyri-, frontal lobe-, temporal lobe-, parietal lobe-, "
        "occipital lobe-, basal ganglia, putam-, thalam-, hypothalam-, hippocamp-, corpus callosum, third ventricle-, "
        "3rd ventricle-, hydroceph-, pons, pontine-, pituitar-, sella-, encephal-, subdural, glio-, meningio-"
    ),
    "chest": _words(
        "chest, thorax, thorac-, lung, lungs, pulmon-, pleur-, mediastin-, bronch-, trachea-, heart, cardiac, cardio-, "
        "myocard-, pericard-, coronary, rib, ribs, stern-, breast, breasts"
    ),
    "abdomen": _words(
        "abdom-, liver, hepat-, intrahepat-, spleen, splen-, pancrea-, kidney, kidneys, renal, adrenal, gallbladder, "
        "bile duct, bile ducts, biliar-, stomach, gastr-, bowel, colon, colonic, ileum, jejun-, duoden-, intestin-, "
        "append-, periton-, retroperiton-, mesenter-"
    ),
}

SEX: dict[str, tuple[str, ...]] = {
    "female": _words("female, females, woman, women, girl, girls, lady, ladies, she, her, hers, herself"),
    "male": _words("male, males, man, men, boy, boys, gentleman, gentlemen, he, his, him, himself"),
}
# Phrases with such a word that name nobody's sex: a part of the heart, a stain, a protein.
NO_SEX = _words("bundle of his, his bundle, his purkinje, HE, HIS, HER, man made")

# What a word of SEX becomes: the first pattern that is the whole of it.
NEUTRAL = (
    (r"s/he|s?he(?:/| or )s?he", "the patient"),
    (r"(?:his|her)(?:/| or )(?:his|her)", "the patient's"),
    (r"himself|herself|he|she|him", "the patient"),
    (r"his|hers|her", "the patient's"),
    (r"men|women|males|females|gentlemen|ladies", "patients"),
    (r"man|woman|male|female|gentleman|lady", "patient"),
    (r"boys|girls", "children"),
    (r"boy|girl", "child"),
)
# Nouns before which "male" and "female" are left out; elsewhere they become "patient".
_NOUNS = (
    "patients? child children infants? bab(?:y|ies) newborns? neonates? f(?:o?)etus(?:es)? toddlers? adolescents? "
    "teenagers? adults? subjects? volunteers? participants? controls? athletes? cadavers? specimens? donors? "
    "rats? mouse mice rabbits? dogs? cats? pigs? sheep breasts? pelvis urethra genitalia anatomy body"
).replace(" ", "|")
_ADJECTIVE = re.compile(rf"\b(?:(an?)\s+)?(?:male|female)\s+({_NOUNS})\b", re.IGNORECASE)
_REPEATED = re.compile(
    r"\b(?:patients?(?:/| and | or | )(patients?)|(child(?:ren)?)(?:/| and | or | )\2)\b", re.IGNORECASE
)


def mentions(text: str, lists: Mapping[str, Sequence[str]]) -> list[str]:
    """Names of the ``lists`` of which ``text`` has at least one word, in their order."""
    return [name for name, words in lists.items() if _pattern(tuple(words)).search(text)]


def sexes(text: str) -> list[str]:
    """The sexes that a text names: none, "female", "male" or both."""
    return mentions(_pattern(NO_SEX).sub(" ", text), SEX)


def neutral(text: str) -> str:
    """The text with every word that names a sex replaced by one that names none; else unchanged.

    A man is "patient", a boy "child", "she" becomes "the patient" and "his" "the patient's"; "male" and "female" are
    left out before a noun such as "patient". Ages stay.
    """
    if not sexes(text):
        return text
    text = _ADJECTIVE.sub(_without_adjective, text)
    text = _sex_words().sub(_replaced, text)
    text = _REPEATED.sub(lambda match: _like(match[0], match[1] or match[2]), text)
    return re.sub(r"\bpatients's\b", "patients'", text, flags=re.IGNORECASE)


def _without_adjective(match: re.Match[str]) -> str:
    article, noun = match.groups()
    words = f"{'an' if noun[0] in 'aeiouAEIOU' else 'a'} {noun}" if article else noun
    return _like(match[0], words)


def _replaced(match: re.Match[str]) -> str:
    if match.lastgroup == "kept":
        return match[0]
    found = next(text for pattern, text in NEUTRAL if re.fullmatch(pattern, match[0], re.IGNORECASE))
    return _like(match[0], found)


def _like(model: str, text: str) -> str:
    """The text, with a capital at the start where the ``model`` has one."""
    return text[0].upper() + text[1:] if model[0].isupper() else text


@lru_cache(maxsize=1)
def _sex_words() -> re.Pattern[str]:
    """Phrases that are kept, in the group of that name, or else anything that NEUTRAL replaces."""
    words = "|".join(pattern for pattern, _ in NEUTRAL)
    return re.compile(rf"(?P<kept>{_pattern(NO_SEX).pattern})|\b(?:{words})\b", re.IGNORECASE)


@lru_cache(maxsize=64)
def _pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    """What finds any of the words, as the module's docstring says."""
    return re.compile(rf"\b(?:{'|'.join(_expression(word) for word in words)})", re.IGNORECASE)


def _expression(word: str) -> str:
    parts = r"[\s\u2010-\u2015\u2212-]*".join(re.escape(part) for part in word.removesuffix("-").split())
    whole = parts if word.endswith("-") else rf"{parts}\b"
    return f"(?-i:{whole})" if word != word.lower() else whole
