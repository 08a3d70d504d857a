"""Options that cannot be are refused when they are made, before any image is."""

from dataclasses import replace

import pytest

from bundle.alignment.options import AlignmentOptions
from bundle.errors import InputError

OPTIONS = AlignmentOptions(num_steps=6, pool_size=24, batch_size=8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alignment_loss": "transprt"}, "alignment_loss 'transprt': use transport or marginal"),
        ({"alignment_loss": "marginal", "stratum": "grade"}, "knows no strata, not 'grade'; use transport or none"),
        ({"consistency_side": "both"}, "consistency_side 'both': use image or text"),
        ({"gradient": "adjsted"}, "gradient 'adjsted': use adjusted, decoupled, truncated or exact"),
        ({"num_followed": 7}, "num_followed 7: use 1 to 6"),
        ({"num_followed": 0}, "num_followed 0: use 1 to 6"),
        ({"batch_size": 7}, "pool_size 24: use a multiple of batch_size, 7"),
        ({"batch_size": 0}, "pool_size 24: use a multiple of batch_size, 0"),
        ({"pool_size": 0}, "pool_size 0: use a multiple of batch_size, 8"),
    ],
)
def test_options_that_cannot_be(changes, message):
    with pytest.raises(InputError, match=message):
        replace(OPTIONS, **changes)
