"""Fine-tuning as in GPT-1 (Radford et al., 2018) and BERT: task-aware inputs, a linear head, an auxiliary language-model loss."""

from lineal.recipes.config import FinetuneConfig, Paper, with_options

PAPER = Paper(
    year=2018,
    title="Improving language understanding by generative pre-training",
    url="https://cdn.openai.com/research-covers/language-unsupervised/language_understanding_paper.pdf",
    departures=(
        "The auxiliary loss is the mean over a sequence's tokens and over sequences, as in the authors' code; the paper "
        "writes a sum.",
        "The delimiter is a token of its own for pairs, similarity and choices alike.",
        "A score is told by squared error on standardised scores.",
        "Of a context that is too long for its choices the beginning is cut; of other texts the end.",
        "BERT's heads take N(0, 0.02) and the same loop: dropout 0.1 before the head, AdamW; its code cuts a long context into "
        "windows 128 pieces apart, here they share a half.",
    ),
)
SUMMARY = "fine-tune a pre-trained model on labelled texts (GPT-1, BERT)"
LOOP = "lineal.recipes.finetune_loop"
ESSENTIAL = (
    "model", "task", "data", "eval_data", "text_field", "second_field", "choices_field", "label_field", "target", "limit",
    "auxiliary", "fresh", "learning_rate", "batch_size", "epochs", "seed", "out",
)  # fmt: skip


def default() -> FinetuneConfig:
    """The paper's settings: rate 6.25e-5, batches of 32, 3 epochs, dropout 0.1, auxiliary weight 0.5."""
    return with_options(FinetuneConfig(), dropout=0.1, save_every=200)
