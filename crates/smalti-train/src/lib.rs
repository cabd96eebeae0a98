//! Losses, the two training stages, checkpoints, the run directory and the report.
