"""Networks that MONAI lacks, and thin wrappers that give its networks the interfaces used here."""
