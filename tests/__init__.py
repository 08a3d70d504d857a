"""Tests, in the layout of ``bundle``."""
