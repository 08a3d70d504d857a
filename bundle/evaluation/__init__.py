"""Measures of fairness, quality and faithfulness for any generator's images: arrays in, numbers with intervals out."""
