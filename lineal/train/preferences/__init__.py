"""What keeps and uses preferences: the stores on disk, the fit of the reward ensemble, its schedule, its diagnostics."""
