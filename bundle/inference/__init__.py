"""The job that makes images with a trained model: what each shall show, and files that say that they are synthetic."""
