"""Alignment of a generator's group proportions with a target (Han et al., arXiv 2406.14847)."""
