"""Text as vectors, without context: counts, word2vec, GloVe, and how vectors are judged."""
