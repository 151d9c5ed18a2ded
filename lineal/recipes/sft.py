"""Supervised fine-tuning: next-token cross-entropy on the completions only."""

from lineal.recipes.config import LanguageConfig, Paper, with_options

PAPER = Paper(
    year=2022,
    title="Training language models to follow instructions with human feedback",
    url="https://arxiv.org/abs/2203.02155",
    departures=("The loss is a mean over the completion tokens of the whole batch; prompts carry no loss.",),
)
SUMMARY = "fine-tune on prompts with gold completions"
LOOP = "lineal.recipes.next_token"


def default() -> LanguageConfig:
    """A small decoder on the embedded arithmetic task."""
    return with_options(LanguageConfig(), steps=1000, save_every=500)
