"""From documents to pairs: what is read and held out, the vocabulary that is learned, and the pairs with words hidden."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from lineal.errors import ModelError, UsageError
from lineal.tokenizers import Tokenizer
from lineal.tokenizers.opening import open_tokenizer
from lineal.tokenizers.pipeline import Pipeline
from lineal.tokenizers.text import normalise
from lineal.tokenizers.training import KINDS, Learning, train
from lineal.train.bert_options import BertRunConfig, DocumentOptions
from lineal.train.build import model_folder
from lineal.train.data import read_sources
from lineal.train.masked_batches import Pairs
from lineal.train.masking import Masking, Vocabulary
from lineal.train.order import Order
from lineal.train.sentence_pairs import documents_of, encode_documents
from lineal.train.translation.vocabulary import remembered

SPLIT_SEED = 0
"""Which documents are held out does not depend on the run's seed."""


@dataclass(frozen=True)
class Corpus:
    """Documents to train on and to evaluate on."""

    train: list[str]
    held: list[str]


def read_corpus(options: DocumentOptions) -> Corpus:
    """The documents; those that are held out are chosen by a permutation of all, the same for every seed."""
    given, judged = read_sources(options, "bert")
    documents = documents_of(given, options.document_words)
    if judged is not None:
        return Corpus(documents, documents_of(judged, options.document_words))
    order = Order(max(1, len(documents)), SPLIT_SEED).items(0, len(documents))
    count = round(options.held_out * len(documents))
    if not 0 < count < len(documents):
        raise UsageError(
            f"{options.data}: --held-out {options.held_out:g} of {len(documents)} documents leaves {len(documents) - count} to "
            f"learn from and {count} to judge by: give more documents (a blank line parts them), --eval-data or another share."
        )
    held = set(order[:count])
    return Corpus(
        [text for i, text in enumerate(documents) if i not in held], [documents[i] for i in sorted(held)]
    )


def learn(documents: list[str], options: DocumentOptions) -> Tokenizer:
    """BERT's WordPiece, learned from the documents; rare characters are left to [UNK]."""
    parts = KINDS["wordpiece"].parts
    if options.cased:
        parts = replace(parts, normaliser=normalise.Bert(lowercase=False))
    learning = Learning(vocab_size=options.vocab_size, coverage=0.9999)
    return train("wordpiece", texts=documents, parts=parts, learning=learning)


def tokenizer_of(config: BertRunConfig, corpus: Corpus, folder: Path | None) -> Pipeline:
    """The tokenizer that --tokenizer names, the model's own, or one learned from the documents and kept in `folder`."""
    named = config.model.tokenizer
    if named is not None or config.model.model is not None:
        found = open_tokenizer(named or model_folder(str(config.model.model)))
    elif folder is None:
        found = learn(corpus.train, config.documents)
    else:
        found = remembered(folder, lambda: learn(corpus.train, config.documents))
    if not isinstance(found, Pipeline):
        raise ModelError(f"a {type(found).__name__} has no [MASK]: bert needs a WordPiece tokenizer.")
    return found


def pairs_of(config: BertRunConfig, corpus: Corpus, tokenizer: Pipeline) -> tuple[Pairs, Pairs]:
    """The pairs to train on and to evaluate on."""
    options, block = config.documents, config.optimiser.block
    words = Vocabulary.of(tokenizer)
    masking = Masking(options.mask_rate, options.most_masked or block, options.whole_words)
    train = encode_documents(corpus.train, tokenizer, options.cut)
    held = encode_documents(corpus.held, tokenizer, options.cut)
    short, seed = options.short_sequences, config.run.seed
    return (
        Pairs(train, words, masking, block, short, seed, options.duplicates),
        Pairs(held, words, masking, block, short, SPLIT_SEED, 1),
    )
