"""The drawn world: deterministic, in VLGuard's format, with refusals where they belong, and with nothing of the test in
the training."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
import re

import pytest

from tests.quickstart import stand
from vlguard_jax import config
from vlguard_jax.data import json_records
from vlguard_jax.data import records
from vlguard_jax.data import vlguard
from vlguard_jax.quickstart import language as language_lib
from vlguard_jax.quickstart import pictures
from vlguard_jax.quickstart import world
from vlguard_jax.safety.benchmarks import prompts

KNOWN = tuple(itertools.chain(*(language_lib.FORBIDDEN[c] for c in language_lib.KNOWN_CATEGORIES)))
NEW = language_lib.FORBIDDEN[language_lib.NEW_CATEGORY]
JOINT = (language_lib.JOINT_VERB, pictures.JOINT_PLATE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small world with its pictures."""
    path = tmp_path_factory.mktemp("quickstart") / "world"
    world.write(path, 1000, "test", stand.SMALL)
    return path


def is_joint(question: str, scene: pictures.Scene | None) -> bool:
    """Whether question and picture are forbidden together."""
    verb, plate = JOINT
    return (
        scene is not None
        and scene.plate == plate
        and f" {verb} the " in question
        and stand.bare(question) == question.lower()
    )


# Bytes.


def test_same_seed_same_bytes(folder: Path, tmp_path: Path) -> None:
    world.write(tmp_path / "again", 1000, "test", stand.SMALL)
    world.write(tmp_path / "other", 1001, "test", stand.SMALL)
    assert stand.digest(folder) == stand.digest(tmp_path / "again")
    for name in (*stand.TRAINING, *stand.ASKED):
        assert stand.digest(folder, (name,)) != stand.digest(tmp_path / "other", (name,)), name


def test_training_files_do_not_depend_on_what_is_asked(folder: Path, tmp_path: Path) -> None:
    world.write(tmp_path / "tuning", 1000, "tuning", stand.SMALL)
    assert stand.digest(folder, stand.TRAINING) == stand.digest(tmp_path / "tuning", stand.TRAINING)
    for name in stand.ASKED:
        assert stand.digest(folder, (name,)) != stand.digest(tmp_path / "tuning", (name,)), name


def test_a_killed_drawing_is_begun_again(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    painted, paint = [], pictures.paint

    def killed(scene: pictures.Scene) -> object:
        painted.append(scene)
        if len(painted) == 100:
            raise KeyboardInterrupt
        return paint(scene)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pictures, "paint", killed)
        world.write(tmp_path / "world", 1000, "test", stand.SMALL)
    assert not list(tmp_path.iterdir())
    world.write(tmp_path / "world", 1000, "test", stand.SMALL)
    assert stand.digest(tmp_path / "world") == stand.digest(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["world"]


# The readers of a real run.


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("train", stand.SMALL.train),
        ("test", (stand.SMALL.test, stand.SMALL.test)),
        ("new_category", (stand.SMALL.probe, stand.SMALL.probe)),
        ("joint", (stand.SMALL.probe, 0)),
    ],
)
def test_vlguard_reader_takes_it(folder: Path, name: str, counts: tuple[int, int]) -> None:
    items = vlguard.read_items(folder / f"{name}.json", "test")
    assert (sum(not i.safe for i in items), sum(i.safe for i in items)) == counts
    assert {i.image for i in items} == {path.name for path in (folder / name).iterdir()}


def test_llava_reader_takes_it(folder: Path) -> None:
    texts, mix = (list(json_records.read(folder / f"{name}.json", records.parse_llava)) for name in ("texts", "mix"))
    assert len(texts) == stand.SMALL.texts and not any(r.images for r in texts)
    assert len(mix) == stand.SMALL.mix and sum(not r.images for r in mix) == stand.SMALL.mix_texts
    assert {image for r in mix for image in r.images} == {path.name for path in (folder / "mix").iterdir()}


def test_prompts_reader_takes_it(folder: Path) -> None:
    settings = config.BenchmarkSettings(name="prompts", path=str(folder / "prompts.json"), suffix=language_lib.SUFFIX)
    safe, unsafe, suffixed = (prompts.load(settings, subset) for subset in ("text_safe", "text_unsafe", "text_suffix"))
    assert len(safe) == len(unsafe) == stand.SMALL.prompts
    assert [f"{i.question} {language_lib.SUFFIX}" for i in unsafe] == [i.question for i in suffixed]


# What training never shows.


def test_training_asks_in_its_own_wordings_only(drawn: stand.Drawn) -> None:
    found = {stand.wording(q, drawn.language) for q in drawn.questions(*stand.TRAINING)}
    assert {(kind, split) for kind, split, _ in found} == {
        ("how", "train"),
        ("spell", "train"),
        ("sign", "train"),
        ("shape", "any"),
    }
    assert {w for kind, _, w in found if kind == "how"} == set(drawn.language.how["train"])


def test_what_is_asked_is_held_out(drawn: stand.Drawn, tuning: stand.Drawn) -> None:
    """Wordings of questions (those about a shape excepted, which are harmless) and symbols on forbidden signs."""
    for asked in (drawn, tuning):
        found = {stand.wording(q, asked.language)[:2] for q in asked.questions(*stand.ASKED)}
        assert found == {("how", asked.split), ("spell", asked.split), ("sign", asked.split), ("shape", "any")}
        for name in ("test", "new_category"):
            for record in asked.records(name):
                symbol = asked.scenes[name][record["image"]].symbol
                assert symbol in asked.language.symbols["train" if record["safe"] else asked.split]


def test_training_shows_no_held_out_symbol(drawn: stand.Drawn) -> None:
    shown = {scene.symbol for name in ("mix", "train") for scene in drawn.scenes[name].values()}
    assert shown == set(drawn.language.symbols["train"])


def test_training_shows_every_word_of_the_questions(drawn: stand.Drawn) -> None:
    trained, asked = (
        {w for q in drawn.questions(*names) for w in re.findall(r"\w+", q)} for names in (stand.TRAINING, stand.ASKED)
    )
    assert asked <= trained


def test_tuning_and_test_items_have_nothing_in_common(drawn: stand.Drawn, tuning: stand.Drawn) -> None:
    wordings, symbols, scenes = [], [], []
    for asked in (drawn, tuning):
        found = {stand.wording(q, asked.language) for q in asked.questions(*stand.ASKED)}
        wordings.append({w for kind, _, w in found if kind != "shape"})
        shown = [s for name in ("test", "new_category") for s in asked.scenes[name].values()]
        symbols.append({s.symbol for s in shown if s.plate in pictures.FORBIDDEN_PLATES.values()})
        scenes.append(set(shown))
    for a, b in (wordings, symbols, scenes):
        assert a and b and not a & b


def test_safety_set_leaves_the_new_category_out(drawn: stand.Drawn) -> None:
    text = " ".join(itertools.chain(*((q, a) for q, a, _ in drawn.pairs("train"))))
    assert not set(re.findall(r"\w+", text)) & {*NEW, language_lib.NEW_CATEGORY} and set(
        re.findall(r"\w+", text)
    ) >= set(KNOWN)
    assert language_lib.NEW_CATEGORY not in {r.get("harmful_category") for r in drawn.records("train")}
    new_ink = pictures.FORBIDDEN_PLATES[language_lib.NEW_CATEGORY].rim
    for name in ("mix", "train"):
        assert new_ink not in {scene.plate.rim for scene in drawn.scenes[name].values() if scene.plate}
    for record in drawn.records("new_category"):
        assert record["safe"] or record["harmful_category"] == language_lib.NEW_CATEGORY


# Refusals.


def test_visual_tuning_data_holds_nothing_forbidden(drawn: stand.Drawn) -> None:
    pairs = list(drawn.pairs("mix"))
    named = 0
    for question, answer, scene in pairs:
        assert not stand.is_refusal(answer)
        assert not stand.is_request(question, (*KNOWN, *NEW))
        assert not is_joint(question, scene)
        named += any(thing in question for thing in (*KNOWN, *NEW))
    assert named > 30  # harmless uses of the same words
    shown = {scene.plate for scene in drawn.scenes["mix"].values()}
    assert shown == {None, *pictures.HARMLESS_PLATES}


def test_alignment_refuses_forbidden_requests_and_nothing_else(drawn: stand.Drawn) -> None:
    pairs = list(drawn.pairs("texts"))
    requests = [stand.is_request(question, (*KNOWN, *NEW)) for question, _, _ in pairs]
    assert requests == [stand.is_refusal(answer) for _, answer, _ in pairs]
    assert 0.25 < sum(requests) / len(requests) < 0.45
    harmless_uses = [
        q for q, _, _ in pairs if any(t in q for t in (*KNOWN, *NEW)) and not stand.is_request(q, (*KNOWN, *NEW))
    ]
    assert len(harmless_uses) > 30
    suffixed = [(q, a) for q, a, _ in pairs if q.endswith(language_lib.SUFFIX)]
    assert suffixed and all(a.startswith("Sure") for _, a in suffixed)


@pytest.mark.parametrize("name", ["train", "test", "new_category", "joint"])
def test_records_are_what_they_say(drawn: stand.Drawn, name: str) -> None:
    kinds = set()
    for record in drawn.records(name):
        scene = drawn.scenes[name][record["image"]]
        for pair in record["instr-resp"]:
            question = next(text for kind, text in pair.items() if kind.endswith("instruction"))
            assert stand.is_refusal(pair["response"]) == ("safe_instruction" not in pair)
            assert stand.is_request(question, (*KNOWN, *NEW)) == ("unsafe_instruction" in pair)
            if "unsafe_instruction" not in pair:  # which is forbidden with any sign
                assert is_joint(question, scene) == (record.get("harmful_category") == "joint")
        if record["safe"]:
            assert [set(pair) for pair in record["instr-resp"]] == [
                {"safe_instruction", "response"},
                {"unsafe_instruction", "response"},
            ]
            assert scene.plate in pictures.HARMLESS_PLATES
        elif record["harmful_category"] == "joint":
            assert scene.plate == pictures.JOINT_PLATE
        else:
            assert scene.plate == pictures.FORBIDDEN_PLATES[record["harmful_category"]]
        kinds.add(record.get("harmful_category", "safe"))
    known = {"safe", *language_lib.KNOWN_CATEGORIES}
    expected = {
        "train": known | {"joint"},
        "test": known,
        "new_category": {"safe", language_lib.NEW_CATEGORY},
        "joint": {"joint"},
    }
    assert kinds == expected[name]


@pytest.mark.parametrize("name", ["test", "new_category"])
def test_quadruples_differ_in_the_sign_only(drawn: stand.Drawn, name: str) -> None:
    rows = drawn.records(name)
    for safe, unsafe in zip(rows[::2], rows[1::2], strict=True):
        harmless, forbidden = (drawn.scenes[name][record["image"]] for record in (safe, unsafe))
        assert dataclasses.replace(harmless, symbol=forbidden.symbol, plate=forbidden.plate) == forbidden
        assert harmless.plate != forbidden.plate and harmless.symbol != forbidden.symbol
        assert safe["instr-resp"][0]["safe_instruction"] == unsafe["instr-resp"][0]["instruction"]
        assert unsafe["harmful_category"] == next(
            c for c, p in pictures.FORBIDDEN_PLATES.items() if p == forbidden.plate
        )
        number, following = (int(record["id"].rpartition("_")[2]) for record in (safe, unsafe))
        assert number + 1 == following  # how claims.py finds the pair


def test_prompts_are_what_they_say(drawn: stand.Drawn) -> None:
    for prompt in drawn.records("prompts"):
        assert stand.is_request(prompt["prompt"], (*KNOWN, *NEW)) != prompt["safe"]
        assert any(thing in prompt["prompt"] for thing in (*KNOWN, *NEW))
        assert prompt["safe"] or prompt["category"] in language_lib.KNOWN_CATEGORIES


def test_answers_follow_the_picture(drawn: stand.Drawn) -> None:
    """The tool on the sign decides the answer to a request, so that no wording gives it away."""
    seen = set()
    for question, answer, scene in drawn.pairs("mix"):
        kind = stand.wording(question, drawn.language)[0]
        if kind != "how" or scene is None:
            continue
        number = drawn.language.symbols["train"].index(scene.symbol)
        on_sign = scene.plate is not None and number < len(language_lib.TOOLS)
        named = re.search(r"the (\w+) with the (\w+)\.$", answer)
        assert named and named[2] == (language_lib.TOOLS[number] if on_sign else language_lib.text_tool(named[1]))
        seen.add(on_sign)
    assert seen == {True, False}
