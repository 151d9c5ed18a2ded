"""How completions are sampled, as one frozen value; importable without torch."""

from __future__ import annotations

from dataclasses import dataclass

from lineal.errors import UsageError

FILTERS = (
    "repetition", "frequency", "presence", "no_repeat_ngram", "temperature", "top_k", "top_p", "min_p",
)  # fmt: skip
"""Every filter by its name, in the order in which they act unless `filter_order` says otherwise."""


@dataclass(frozen=True)
class Sampling:
    """How completions are sampled: their length, the filters on the distribution, what stops them.

    Filters act in the order that `filter_order` names: penalties and n-gram blocking on the logits, then temperature,
    top-k, top-p, min-p, unless it says otherwise. Each is off at its default. Their formulas are in
    `lineal.ops.filters`.
    """

    max_new_tokens: int = 256
    """Most tokens of one completion, the end token included."""
    repetition_penalty: float = 1.0
    """Divides the logits of tokens seen before; 1 turns it off."""
    repetition_mode: str = "power"
    """power: logit / penalty^n over generated tokens; huggingface: once, by sign, over prompt and generated tokens."""
    frequency_penalty: float = 0.0
    """Subtracted once per time the token was generated."""
    presence_penalty: float = 0.0
    """Subtracted once from every token that was generated."""
    no_repeat_ngram: int = 0
    """No sequence of this many tokens occurs twice in prompt and completion; 0 turns it off."""
    temperature: float = 1.0
    """softmax(logits / temperature); 0 takes the most probable token."""
    top_k: int = 0
    """Keep the k most probable tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of most probable tokens whose probabilities reach p; 1 keeps all."""
    min_p: float = 0.0
    """Keep tokens at least min_p times as probable as the most probable one; 0 keeps all."""
    filter_order: tuple[str, ...] = FILTERS
    """The order in which filters act; those that are off may be left out, one that is on may not."""
    stop: tuple[str, ...] = ()
    """Texts that end a completion; their tokens are kept."""
    stop_ids: tuple[int, ...] = ()
    """Token ids that end a completion, beside the end-of-text token; kept too."""
    max_batch: int = 512
    """Most completions decoded at once; the others wait and join as these finish. Bounds the cache's memory."""
    half: bool = False
    """Multiply in bfloat16 on a CPU that does so natively, weights, cache and sums staying float32: what a policy
    trained under autocast is sampled with. Ignored where products of this kind can't be had."""

    def __post_init__(self) -> None:
        """Refuse values that mean nothing, naming the field, the value and the range."""
        for name, holds, allowed in (
            ("max_new_tokens", self.max_new_tokens >= 1, "at least 1"),
            ("repetition_penalty", self.repetition_penalty > 0, "above 0 (1 turns it off)"),
            ("repetition_mode", self.repetition_mode in ("power", "huggingface"), "power or huggingface"),
            ("no_repeat_ngram", self.no_repeat_ngram >= 0, "0 (off) or a length"),
            ("temperature", 0 <= self.temperature < float("inf"), "0 (greedy) or above, and finite"),
            ("top_k", self.top_k >= 0, "0 (off) or a count"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1 (off)"),
            ("min_p", 0 <= self.min_p <= 1, "from 0 (off) to 1"),
            ("max_batch", self.max_batch >= 1, "at least 1"),
            (
                "stop",
                not isinstance(self.stop, str) and all(self.stop),
                "a tuple of texts, none of them empty",
            ),
        ):
            if not holds:
                raise UsageError(f"{name} is {getattr(self, name)!r}: it must be {allowed}.")
        self._check_order()

    def _check_order(self) -> None:
        order = self.filter_order
        strange = [name for name in order if name not in FILTERS]
        if strange:
            raise UsageError(f"filter_order names {strange[0]!r}, which is none of {', '.join(FILTERS)}.")
        if len(set(order)) < len(order):
            raise UsageError(f"filter_order {' '.join(order)} names a filter twice: each acts once.")
        missing = [name for name in FILTERS if self.uses(name) and name not in order]
        if missing:
            raise UsageError(
                f"{missing[0]} is on, but filter_order {' '.join(order)} leaves it out: name it where it is to act."
            )

    def uses(self, name: str) -> bool:
        """Whether the filter of that name is on."""
        return self.value(name) != (1 if name in ("repetition", "temperature", "top_p") else 0)

    def value(self, name: str) -> float:
        """The number that the filter of that name takes."""
        return getattr(self, f"{name}_penalty" if name in FILTERS[:3] else name)

    @property
    def filters(self) -> tuple[str, ...]:
        """The filters that are on, in the order in which they act."""
        return tuple(name for name in self.filter_order if self.uses(name))

    @property
    def truncates(self) -> bool:
        """Whether top-k, top-p or min-p cut tokens off; greedy decoding needs none of them."""
        return self.temperature > 0 and (self.top_k > 0 or self.top_p < 1 or self.min_p > 0)

    @property
    def penalises(self) -> bool:
        """Whether the next distribution depends on which tokens came before, other than through the model."""
        return (
            self.repetition_penalty != 1
            or self.frequency_penalty != 0
            or self.presence_penalty != 0
            or self.no_repeat_ngram > 0
        )

    @property
    def faithful(self) -> bool:
        """Whether tokens come from softmax(logits / temperature) itself, so that `behaviour_logp` is what drew them."""
        return self.temperature > 0 and not (self.truncates or self.penalises)
