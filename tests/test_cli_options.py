"""Options derive from a dataclass: names, types, help, and errors of one line each."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineal.cli_options import OTHER_NAMES, help_lines, nearest, options_of, parse
from lineal.errors import UsageError
from lineal.recipes.config import LanguageConfig, PolicyGradientConfig


@dataclass(frozen=True)
class Ship:
    """One group."""

    sail_area: float = 12.5
    """Square metres. Measured flat."""
    crew: int = 3
    """People
    aboard."""
    anchor: bool = True
    """Drop it."""
    name: str | None = None
    """What is painted on it."""


@dataclass(frozen=True)
class Trip:
    """The other group, which refuses what means nothing."""

    stops: tuple[str, ...] = ()
    """Harbours."""
    lengths: tuple[float, ...] = (1.0,)
    """Miles between them."""
    wind: Literal["low", "high"] = "low"
    """How it blows."""
    max_knots: float | None = None
    """The most it may make; none for no limit."""

    def __post_init__(self) -> None:
        if self.max_knots is not None and self.max_knots <= 0:
            raise UsageError(f"max_knots is {self.max_knots}: a ship that stands still arrives nowhere.")


@dataclass(frozen=True)
class Voyage:
    """Both."""

    ship: Ship = field(default_factory=Ship)
    trip: Trip = field(default_factory=Trip)


def one_line(words: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse(Voyage(), words.split())
    assert "\n" not in str(caught.value) and "│" not in str(caught.value)
    return str(caught.value)


def test_options_come_from_the_groups_in_order_with_their_docs() -> None:
    options = options_of(Voyage())
    assert [o.name for o in options][:5] == ["sail_area", "crew", "anchor", "name", "stops"]
    assert [o.group for o in options] == ["ship"] * 4 + ["trip"] * 4
    assert options[0].flag == "--sail-area"
    assert options[1].help == "People aboard."
    assert options[0].default == 12.5


def test_nothing_given_is_the_default_itself() -> None:
    default = Voyage()
    assert parse(default, []) is not None
    assert parse(default, []) == default


@pytest.mark.parametrize("flag", ["--sail-area", "--sail_area"])
@pytest.mark.parametrize("joined", [True, False])
def test_dash_underscore_and_equals_all_work(flag: str, joined: bool) -> None:
    words = [f"{flag}=3.5"] if joined else [flag, "3.5"]
    assert parse(Voyage(), words).ship.sail_area == 3.5


def test_values_take_their_types() -> None:
    words = "--crew 7 --name Ada --stops a b c --lengths 1 -2.5 --wind high --max-knots 1e1 --no-anchor"
    made = parse(Voyage(), words.split())
    assert made == Voyage(Ship(12.5, 7, False, "Ada"), Trip(("a", "b", "c"), (1.0, -2.5), "high", 10.0))


@pytest.mark.parametrize(
    ("words", "value"),
    [("--anchor", True), ("--no-anchor", False), ("--anchor=false", False), ("--anchor TRUE", True)],
)
def test_switches(words: str, value: bool) -> None:
    assert parse(Voyage(), words.split()).ship.anchor is value


def test_the_last_of_a_repeated_option_counts_and_lists_collect() -> None:
    made = parse(Voyage(), ["--crew", "1", "--crew", "2", "--stops", "a", "--stops", "b", "c"])
    assert made.ship.crew == 2
    assert made.trip.stops == ("a", "b", "c")


def test_none_unsets_an_optional_value_and_only_that() -> None:
    start = Voyage(trip=Trip(max_knots=3.0))
    assert parse(start, ["--max-knots", "none"]).trip.max_knots is None
    assert "must be a whole number" in one_line("--crew none")


def test_negative_numbers_and_spaces_are_values() -> None:
    assert parse(Voyage(), ["--sail-area", "-1"]).ship.sail_area == -1.0
    assert parse(Voyage(), ["--name", "Ada L."]).ship.name == "Ada L."
    assert parse(Voyage(), ["--name=--x"]).ship.name == "--x"
    assert parse(Voyage(), ["--name="]).ship.name == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--sale-area 3", "there is no option --sale-area; did you mean --sail-area?"),
        ("--zzzz 3", "there is no option --zzzz; --help-all lists those there are."),
        ("--crew 1.5", "--crew 1.5: must be a whole number."),
        ("--name x --sail-area wide", "--sail-area wide: must be a number."),
        ("--wind gale", "--wind gale: must be one of low, high."),
        ("--lengths 1 two", "--lengths 1 two: must be a number."),
        ("--crew", "--crew needs a value: a whole number."),
        ("--crew 1 2", "--crew takes one value, not 2: put spaces in quotes."),
        ("--anchor maybe", "--anchor maybe: a switch is true or false, or stands alone."),
        ("--no-anchor=true", "--no-anchor takes no value; write --anchor or --no-anchor."),
        ("--no-crew", "there is no option --no-crew; did you mean --crew?"),
        ("ship", "'ship' is no option: an option starts with --, and its value follows it."),
        ("--sail-area nan", "--sail-area nan: must be a finite number."),
        ("--sail-area inf", "--sail-area inf: must be a finite number."),
        ("--max-knots 0", "max_knots is 0.0: a ship that stands still arrives nowhere."),
    ],
)
def test_what_is_wrong_is_said_on_one_line(words: str, said: str) -> None:
    assert one_line(words) == said


def test_nothing_is_printed_when_a_value_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    one_line("--crew many")
    assert capsys.readouterr() == ("", "")


def test_names_from_other_tools_are_understood_as_hints() -> None:
    names = [option.name for option in options_of(PolicyGradientConfig())]
    assert nearest("num_generations", names) == "; did you mean --group-size?"
    assert nearest("model_name_or_path", names) == "; did you mean --model?"


def test_every_hint_leads_to_an_option_that_exists() -> None:
    own = {o.name for config in (PolicyGradientConfig(), LanguageConfig()) for o in options_of(config)} | {
        "samples"
    }
    assert {name.replace("-", "_") for name in OTHER_NAMES.values()} <= own
    # A name that is an option of its own must not be taken for another one.
    assert not {name.replace("-", "_") for name in OTHER_NAMES} & own


OPTIONS = {option.name: option for option in options_of(Voyage())}


@given(
    crew=st.integers(-(10**9), 10**9),
    area=st.floats(allow_nan=False, allow_infinity=False),
    name=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20).filter(
        lambda text: text.lower() != "none"
    ),
    anchor=st.booleans(),
)
def test_what_is_typed_is_what_arrives(crew: int, area: float, name: str, anchor: bool) -> None:
    words = [f"--crew={crew}", f"--sail-area={area!r}", f"--name={name}", f"--anchor={anchor}"]
    assert parse(Voyage(), words).ship == Ship(area, crew, anchor, name)


def test_help_is_grouped_and_names_every_option() -> None:
    text = "\n".join(help_lines(Voyage()))
    assert (
        text.index("ship") < text.index("--sail-area X") < text.index("trip") < text.index("--stops TEXT ...")
    )
    assert "Square metres. Measured flat [12.5]" in text
    assert all(f"--{f.name.replace('_', '-')}" in text for part in (Ship, Trip) for f in fields(part))


def test_short_help_shows_the_chosen_ones_and_one_sentence() -> None:
    text = "\n".join(help_lines(Voyage(), ["sail_area"]))
    assert "Square metres [12.5]" in text
    assert "Measured" not in text and "--crew" not in text and "trip" not in text


def test_help_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in (60, 80, 300):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert max(map(len, help_lines(PolicyGradientConfig()))) <= min(columns, 100)
