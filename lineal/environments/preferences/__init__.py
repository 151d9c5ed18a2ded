"""Learning from preferences: what is compared, which pairs are asked about, and who answers."""
