"""Equal image quality for every group: Fair Bayesian Perturbation, as published and repaired, and its baselines."""
