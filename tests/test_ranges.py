"""Every setting has a range or choices, and nothing outside them is taken."""

import dataclasses
import math
from typing import Annotated, Any, Literal

import hypothesis
from hypothesis import strategies
import pytest

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import judge_settings
from vlguard_jax import ranges

KINDS = (config.TrainConfig, config.EvalConfig)
LEAVES = [(kind, path, rule) for kind in KINDS for path, rule in ranges.rules(kind).items()]
NUMBERS = [leaf for leaf in LEAVES if leaf[2].kind in (int, float)]


def _plain(kind: type) -> dict[str, Any]:
    base = config.base_train_config() if kind is config.TrainConfig else config.base_eval_config()
    if kind is config.TrainConfig:
        base.data.sources = {"chats": config.source(path="chats.json")}
        base.probe.evaluations = {"chats": config.probed(path="test.json")}
        base.validation.sources = {"chats": config.source(path="held_out.json")}
    else:
        base.local_judges = {"chats": config.local_judge()}
        base.remote_judges = {"chats": config.to_config_dict(judge_settings.RemoteJudge())}
    return base.to_dict()


def _with(plain: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """`plain` with one setting changed; the member of a group is named "chats", in a list it is the only one."""
    *sections, last = path.replace("*", "chats").split(".")
    place = plain
    for name in sections:
        place = place[name]
    place[last.removesuffix("[]")] = [value] if last.endswith("[]") else value
    return plain


def _id(leaf: Any) -> str | None:
    return f"{leaf[0].__name__}.{leaf[1]}"


def test_every_setting_has_a_rule() -> None:
    """Counted by walking the dataclasses themselves, so that no leaf can be missed."""

    def leaves(section: Any) -> int:
        return sum(
            leaves(getattr(section, f.name)) if dataclasses.is_dataclass(getattr(section, f.name)) else 1
            for f in dataclasses.fields(section)
        )

    groups = (config.SourceSettings(), config.SourceSettings(), config.ProbedSettings())
    # both `sources` and `evaluations` themselves are groups
    assert leaves(config.TrainConfig()) - len(groups) + sum(map(leaves, groups)) == len(
        ranges.rules(config.TrainConfig)
    )
    judges = (judge_settings.LocalJudge(), judge_settings.RemoteJudge())
    assert leaves(config.EvalConfig()) - len(judges) + sum(map(leaves, judges)) == len(ranges.rules(config.EvalConfig))
    assert all((rule.range is not None) == (rule.kind in (int, float)) for _, _, rule in LEAVES)
    assert len(NUMBERS) > 40


@pytest.mark.parametrize("leaf", NUMBERS, ids=_id)
def test_numbers_outside_are_refused_by_name(leaf: Any) -> None:
    kind, path, rule = leaf
    assert math.isfinite(rule.range.least) and math.isfinite(rule.range.most) and rule.range.least < rule.range.most
    name = path.replace("*", "chats").removesuffix("[]")
    step = 1 if rule.kind is int else 0.01
    below = (
        [rule.range.least - step] if rule.range.least - step not in rule.range.also else [rule.range.least - 2 * step]
    )
    wrong = [math.nan, math.inf, -math.inf, *below, rule.range.most + step, True, None, "1", 10**5000, -(10**5000)]
    wrong += [1.0] if rule.kind is int else []
    for value in wrong:
        with pytest.raises(errors.UserError) as error:
            config.resolve(_with(_plain(kind), path, value), kind)
        message = str(error.value)
        assert message.startswith(f"config.{name}=") and message.endswith(f" must be {rule}") and "\n" not in message
        assert errors.short(value) in message and len(message) < 400


@pytest.mark.parametrize("leaf", NUMBERS, ids=_id)
def test_ends_and_single_values_are_taken(leaf: Any) -> None:
    _, path, rule = leaf
    for value in (rule.range.least, rule.range.most, *rule.range.also):
        found = rule.checked(rule.kind(value), path)
        assert found == value and type(found) is rule.kind


JSON = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.floats() | strategies.text(),
    lambda inner: strategies.lists(inner, max_size=3) | strategies.dictionaries(strategies.text(), inner, max_size=3),
    max_leaves=4,
)
SURROGATES = strategies.text(strategies.characters(codec=None))


def _prefixes(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


PLACES = sorted(
    {(kind, place) for kind, path, _ in LEAVES for place in _prefixes(path) if not place.endswith("*")}, key=repr
)


@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(strategies.sampled_from(PLACES), JSON | SURROGATES)
def test_any_value_anywhere_is_taken_or_refused(place: tuple[type, str], value: Any) -> None:
    kind, path = place
    try:
        settings = config.resolve(_with(_plain(kind), path, value), kind)
    except errors.UserError as e:
        assert "\n" not in str(e) and len(str(e)) < 2_000
        str(e).encode()  # can be printed
    else:
        assert config.resolve(config.to_config_dict(settings), kind) == settings


def test_what_cannot_be_shown_is_still_named() -> None:
    assert ranges.rules(config.DecodeSettings)["max_new_tokens"] == ranges.Rule(int, ranges.Range(1, 2**16))
    assert str(ranges.Rule(int, ranges.Range(1, 8, also=(-1,)))) == "a whole number from 1 to 8 or -1"
    assert str(ranges.Rule(str, choices=("a", "b"))) == "'a' or 'b'"


def test_a_number_without_range_is_a_mistake_of_the_program() -> None:
    @dataclasses.dataclass(frozen=True)
    class Bare:
        width: int = 1

    @dataclasses.dataclass(frozen=True)
    class Good:
        width: Annotated[int, ranges.Range(1, 2)] = 1
        kind: Literal["a", "b"] = "a"

    with pytest.raises(TypeError, match="width"):
        ranges.rules(Bare)
    assert list(ranges.rules(Good)) == ["width", "kind"]
