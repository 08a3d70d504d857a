"""What every training job shares beside MONAI's stock trainer: draws, checkpoints, averages, tracking."""
