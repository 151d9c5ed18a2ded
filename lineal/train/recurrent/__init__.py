"""Training recurrent readers: windows of truncated back-propagation, vocabularies, documents."""
