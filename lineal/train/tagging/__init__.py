"""Tagging words: sentences from CoNLL files, spans, features of every word, and a trained tagger in use."""
