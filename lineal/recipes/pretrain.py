"""Next-token pre-training of a decoder on plain text (Radford et al., 2018; the shape of nanoGPT's small settings)."""

from lineal.recipes.config import LanguageConfig, Paper, with_options

PAPER = Paper(
    year=2018,
    title="Improving language understanding by generative pre-training",
    url="https://cdn.openai.com/research-covers/language-unsupervised/language_understanding_paper.pdf",
    departures=(
        "Blocks are windows of the text drawn by a counter-based hash of (seed, step, row), so that a run resumes "
        "exactly; the paper reads contiguous sequences of a book.",
        "Decay applies to matrices only, decoupled from the gradient (AdamW).",
    ),
)
SUMMARY = "train a decoder on text, next token by next token"
LOOP = "lineal.recipes.next_token"


def default() -> LanguageConfig:
    """A small decoder on the user's text file."""
    return with_options(
        LanguageConfig(), prompt_field="text", layers=4, batch_size=12, steps=2000, learning_rate=1e-3, warmup=100,
        schedule="cosine", save_every=500, eval_every=250, weight_decay=0.1,
    )  # fmt: skip
