"""Text as vectors without context: counts, n-gram models, TF-IDF, word vectors, and what tells whether they are good."""
