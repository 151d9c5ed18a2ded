"""What every recipe states: its paper's facts; and, from one place, the options that recipes are configured by."""

from __future__ import annotations

from dataclasses import dataclass

from lineal.train.bert_options import BertRunConfig, DocumentOptions, EncoderOptimiserOptions, EncoderOptions
from lineal.train.environment_options import (
    EnvironmentConfig,
    EnvironmentOptions,
    EnvironmentRunOptions,
    PolicyOptions,
    StepAlgorithmOptions,
)
from lineal.train.finetune.options import FinetuneConfig, TaskOptions, TuningOptions
from lineal.train.gpt_options import CorpusOptions, GPTConfig
from lineal.train.mixture_options import ExpertOptions, MixtureConfig
from lineal.train.options import (
    AlgorithmOptions,
    DataOptions,
    LanguageConfig,
    ModelOptions,
    OptimiserOptions,
    PolicyGradientConfig,
    RunOptions,
    SamplingOptions,
    from_json,
    to_json,
    with_options,
)
from lineal.train.recurrent.elmo_options import BiLMOptions, ElmoRecipeConfig, SentencesOptions
from lineal.train.recurrent.options import (
    ClassifierOptions,
    ReaderOptions,
    StageOptions,
    StepOptions,
    ULMFiTConfig,
)
from lineal.train.tagging.options import TaggerConfig, TaggerOptions, TagOptions
from lineal.train.vectors.options import (
    GloveConfig,
    GloveOptions,
    VectorsRunOptions,
    Word2VecConfig,
    Word2VecOptions,
    WordsOptions,
)

__all__ = [
    "AlgorithmOptions",
    "BertRunConfig",
    "BiLMOptions",
    "ClassifierOptions",
    "CorpusOptions",
    "DataOptions",
    "DocumentOptions",
    "ElmoRecipeConfig",
    "EncoderOptimiserOptions",
    "EncoderOptions",
    "EnvironmentConfig",
    "EnvironmentOptions",
    "EnvironmentRunOptions",
    "ExpertOptions",
    "FinetuneConfig",
    "GPTConfig",
    "GloveConfig",
    "GloveOptions",
    "LanguageConfig",
    "MixtureConfig",
    "ModelOptions",
    "OptimiserOptions",
    "Paper",
    "PolicyGradientConfig",
    "PolicyOptions",
    "ReaderOptions",
    "RunOptions",
    "SamplingOptions",
    "SentencesOptions",
    "StageOptions",
    "StepAlgorithmOptions",
    "StepOptions",
    "TagOptions",
    "TaggerConfig",
    "TaggerOptions",
    "TaskOptions",
    "TuningOptions",
    "VectorsRunOptions",
    "Word2VecConfig",
    "Word2VecOptions",
    "WordsOptions",
    "ULMFiTConfig",
    "from_json",
    "to_json",
    "with_options",
]


@dataclass(frozen=True)
class Paper:
    """Where a recipe comes from, and each sentence in which we depart from it (they become docs/departures.md)."""

    year: int
    title: str
    url: str
    departures: tuple[str, ...] = ()
