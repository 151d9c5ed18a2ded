"""What a tokenizer.json says beside the text's way to the model: added tokens, decoder, post-processor, lengths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lineal.errors import ModelError
from lineal.tokenizers import decode
from lineal.tokenizers.added import AddedToken
from lineal.tokenizers.decode import Rule
from lineal.tokenizers.files.reading import Field, one_of
from lineal.tokenizers.lengths import Padding, Truncation
from lineal.tokenizers.template import Slot, Slots, Template

IDS = 1 << 31
SCHEMES = ("always", "first", "never")


def read_added(field: Field) -> list[AddedToken]:
    """The added tokens. ModelError for an id that two of them have."""
    found: list[AddedToken] = []
    if field.given:
        for entry in field.items():
            token = entry["content"].text()
            flags = [
                entry[name].flag() for name in ("special", "single_word", "lstrip", "rstrip", "normalized")
            ]
            if token:
                found.append(AddedToken(token, entry["id"].number(0, IDS), *flags))
    for token in found:
        try:
            token.content.encode()
        except UnicodeEncodeError:
            raise ModelError(
                f"{field.file}: {field.place} has half a surrogate pair in {token.content!r}."
            ) from None
    by_id: dict[int, str] = {}
    for token in found:
        if by_id.setdefault(token.id, token.content) != token.content:
            raise ModelError(
                f"{field.file}: {field.place} has the id {token.id} twice, for {by_id[token.id]!r} and {token.content!r}."
            )
    return found


def written_added(tokens: Sequence[AddedToken]) -> list[dict[str, Any]]:
    """The added tokens as tokenizer.json lists them, in the order of their ids, which the library counts on."""
    return [
        {
            "id": token.id,
            "content": token.content,
            "single_word": token.single_word,
            "lstrip": token.lstrip,
            "rstrip": token.rstrip,
            "normalized": token.normalised,
            "special": token.special,
        }
        for token in sorted(tokens, key=lambda token: token.id)
    ]


def read_decoder(field: Field) -> Rule | None:
    """The decoder; null gives None. MissingPart for a kind that we lack."""
    if not field.given:
        return None
    kind = field["type"].text()
    if kind == "Sequence":
        rules = [rule for part in field["decoders"].items() if (rule := read_decoder(part)) is not None]
        if any(isinstance(rule, decode.ByteLevel) for rule in rules[1:]):
            raise field.lacks("bytes behind another decoder")
        return decode.Decoders(decode.Decoders(tuple(rules)).flat())
    if kind not in DECODERS:
        raise field["type"].lacks(f"a {kind} decoder")
    return DECODERS[kind](field)


def _replace(field: Field) -> Rule:
    if field["pattern"]["Regex"].given:
        raise field["pattern"].lacks("a pattern in a decoder")
    old = field["pattern"]["String"].text()
    if not old:
        raise field["pattern"].bad("a text that is not empty")
    return decode.Replace(old, field["content"].text())


def _strip(field: Field) -> Rule:
    character = field["content"].text()
    if len(character) != 1:
        raise field["content"].bad("one character")
    return decode.Strip(character, field["start"].number(0, IDS, 0), field["stop"].number(0, IDS, 0))


def _metaspace(field: Field) -> Rule:
    return decode.MetaspaceDecoder(field["replacement"].text(), scheme(field))


def scheme(field: Field) -> str:
    """Where a Metaspace puts its symbol in front: "always", "first" or "never"; old files say yes or no."""
    if field["prepend_scheme"].given:
        return one_of(field["prepend_scheme"], SCHEMES)
    return "always" if field["add_prefix_space"].flag(True) else "never"


DECODERS: dict[str, Callable[[Field], Rule]] = {
    "ByteLevel": lambda _: decode.ByteLevel(),
    "WordPiece": lambda field: decode.WordPieceDecoder(
        field["prefix"].text("##"), field["cleanup"].flag(True)
    ),
    "Metaspace": _metaspace,
    "ByteFallback": lambda _: decode.ByteFallback(),
    "Fuse": lambda _: decode.Fuse(),
    "Replace": _replace,
    "Strip": _strip,
    "BPEDecoder": lambda field: decode.BPEDecoder(field["suffix"].text("</w>")),
}


def written_decoder(rule: Rule | None) -> dict[str, Any] | None:
    """The decoder as tokenizer.json has it."""
    match rule:
        case None | decode.Spaced():
            return None
        case decode.ByteLevel():
            return {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
        case decode.WordPieceDecoder():
            return {"type": "WordPiece", "prefix": rule.prefix, "cleanup": rule.cleanup}
        case decode.MetaspaceDecoder():
            return {
                "type": "Metaspace",
                "replacement": rule.symbol,
                "prepend_scheme": rule.prepend,
                "split": True,
            }
        case decode.ByteFallback() | decode.Fuse():
            return {"type": type(rule).__name__}
        case decode.Replace():
            return {"type": "Replace", "pattern": {"String": rule.old}, "content": rule.new}
        case decode.Strip():
            return {"type": "Strip", "content": rule.character, "start": rule.start, "stop": rule.stop}
        case decode.BPEDecoder():
            return {"type": "BPEDecoder", "suffix": rule.suffix}
        case decode.Decoders():
            return {"type": "Sequence", "decoders": [written_decoder(part) for part in rule.parts]}
    raise ModelError(f"a {type(rule).__name__} cannot be written as tokenizer.json: it has no such decoder.")


def read_template(field: Field) -> Template | None:
    """The post-processor; null gives None. MissingPart for a kind that we lack."""
    if not field.given:
        return None
    kind = field["type"].text()
    if kind == "Sequence":
        return _joined(
            field, [part for entry in field["processors"].items() if (part := read_template(entry))]
        )
    if kind == "ByteLevel":
        return Template(trim=field["trim_offsets"].flag(True))
    if kind == "TemplateProcessing":
        single, pair = (_slots(field[name], field["special_tokens"]) for name in ("single", "pair"))
        return Template(single, pair)
    if kind in ("BertProcessing", "RobertaProcessing"):
        return _classic(field, roberta=kind == "RobertaProcessing")
    raise field["type"].lacks(f"a {kind} post-processor")


def _joined(field: Field, parts: Sequence[Template]) -> Template | None:
    plain = Template()
    real = [part for part in parts if (part.single, part.pair) != (plain.single, plain.pair)]
    if len(real) > 1:
        raise field.lacks("two templates, one around the other")
    if not parts:
        return None
    chosen = real[0] if real else plain
    return Template(chosen.single, chosen.pair, any(part.trim for part in parts))


def _slots(field: Field, named: Field) -> Slots:
    slots: list[Slot] = []
    for entry in field.items():
        content = entry.object()
        if len(content) != 1 or not {"Sequence", "SpecialToken"} & {*content}:
            raise entry.bad("a Sequence or a SpecialToken")
        ((kind, _),) = content.items()
        inner = entry[kind]
        number, name = inner["type_id"].number(0, IDS, 0), inner["id"].text()
        if kind == "Sequence":
            slots.append(Slot(one_of(inner["id"], ("A", "B")), type=number))
            continue
        ids = tuple(i.number(0, IDS) for i in named[name]["ids"].items())
        slots.append(Slot("", ids, number, name))
    return tuple(slots)


def _classic(field: Field, roberta: bool) -> Template:
    first, last = (_classic_slot(field[name]) for name in ("cls", "sep"))
    single = (first, Slot("A"), last)
    if roberta:
        return Template(single, (*single, last, Slot("B"), last), field["trim_offsets"].flag(True))
    return Template(single, (*single, Slot("B", type=1), Slot("", last.ids, 1, last.name)))


def _classic_slot(field: Field) -> Slot:
    pair = list(field.items())
    if len(pair) != 2:
        raise field.bad("a token and its id")
    return Slot("", (pair[1].number(0, IDS),), 0, pair[0].text())


def written_template(template: Template | None, name_of: Callable[[int], str]) -> dict[str, Any] | None:
    """The post-processor as tokenizer.json has it."""
    if template is None:
        return None
    level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": template.trim, "use_regex": True}
    plain = Template()
    if (template.single, template.pair) == (plain.single, plain.pair):
        return level
    special: dict[str, dict[str, Any]] = {}
    for slot in (*template.single, *template.pair):
        if not slot.text:
            special[slot.name] = {
                "id": slot.name,
                "ids": [*slot.ids],
                "tokens": [name_of(i) for i in slot.ids],
            }
    single, pair = ([_written_slot(slot) for slot in slots] for slots in (template.single, template.pair))
    around = {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special}
    return {"type": "Sequence", "processors": [level, around]} if template.trim else around


def _written_slot(slot: Slot) -> dict[str, Any]:
    kind = "Sequence" if slot.text else "SpecialToken"
    return {kind: {"id": slot.text or slot.name, "type_id": slot.type}}


def read_truncation(field: Field) -> Truncation | None:
    """How the file would cut."""
    if not field.given:
        return None
    strategies = {"LongestFirst": "longest_first", "OnlyFirst": "only_first", "OnlySecond": "only_second"}
    return Truncation(
        field["max_length"].number(0, 1 << 62),
        field["stride"].number(0, 1 << 62, 0),
        one_of(field["direction"], ("Left", "Right"), "Right").lower(),
        strategies[one_of(field["strategy"], [*strategies], "LongestFirst")],
    )


def read_padding(field: Field) -> Padding | None:
    """How the file would fill up."""
    if not field.given:
        return None
    strategy = field["strategy"]
    fixed = isinstance(strategy.value, dict)
    if not fixed:
        one_of(strategy, ("BatchLongest",), "BatchLongest")
    multiple = field["pad_to_multiple_of"]
    return Padding(
        field["pad_id"].number(0, IDS, 0),
        field["pad_token"].text("[PAD]"),
        strategy["Fixed"].number(0, 1 << 62) if fixed else None,
        multiple.number(1, 1 << 62) if multiple.given else None,
        one_of(field["direction"], ("Left", "Right"), "Right").lower(),
        field["pad_type_id"].number(0, IDS, 0),
    )


def written_truncation(truncation: Truncation | None) -> dict[str, Any] | None:
    """The truncation as tokenizer.json has it."""
    if truncation is None:
        return None
    strategy = "".join(word.capitalize() for word in truncation.strategy.split("_"))
    side = truncation.side.capitalize()
    return {
        "direction": side,
        "max_length": truncation.length,
        "strategy": strategy,
        "stride": truncation.stride,
    }


def written_padding(padding: Padding | None) -> dict[str, Any] | None:
    """The padding as tokenizer.json has it."""
    if padding is None:
        return None
    return {
        "strategy": "BatchLongest" if padding.length is None else {"Fixed": padding.length},
        "direction": padding.side.capitalize(),
        "pad_to_multiple_of": padding.multiple,
        "pad_id": padding.id,
        "pad_type_id": padding.type,
        "pad_token": padding.token,
    }
