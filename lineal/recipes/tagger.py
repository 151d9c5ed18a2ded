"""A bidirectional LSTM tagger, given ELMo's layers, fixed vectors or nothing (the tasks of Peters et al., 2018)."""

from lineal.recipes.config import Paper, TaggerConfig, with_options

PAPER = Paper(
    year=2018,
    title="Deep contextualized word representations",
    url="https://arxiv.org/abs/1802.05365",
    departures=(
        "Tags are told word by word by a softmax; the paper's tagger for names has a conditional random field on top.",
        "Words have learned vectors of their own beside the features; the paper's have characters too.",
    ),
)
SUMMARY = "tag words (parts of speech, names) with a BiLSTM, with ELMo's layers or without"
LOOP = "lineal.recipes.tagger_loop"
ESSENTIAL = (
    "data", "eval_data", "word_column", "tag_column", "spans", "limit", "features", "model", "vectors", "tune_features",
    "layer_norm", "lstm_width", "epochs", "learning_rate", "batch_size", "steps", "seed", "out",
)  # fmt: skip


def default() -> TaggerConfig:
    """Adam at 2e-3, batches of 32 sentences, 15 passes."""
    return with_options(
        TaggerConfig(), batch_size=32, epochs=15.0, learning_rate=2e-3, schedule="linear", beta1=0.9, beta2=0.999,
        max_grad_norm=5.0, discriminative=1.0, weight_decay=0.0, save_every=200, ratio=100.0,
    )  # fmt: skip
