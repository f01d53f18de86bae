"""What people decided: read from the files that the pages save, checked and applied."""

from __future__ import annotations

import json
import pathlib

import pytest

from tests.curating import world
from vlguard_jax import errors
from vlguard_jax.curating import asking
from vlguard_jax.curating import decisions
from vlguard_jax.curating import replies
from vlguard_jax.curating import scan
from vlguard_jax.curating import settings
from vlguard_jax.curating import taxonomy

RULES = replies.Rules(taxonomy.read(), settings.AskSettings())
N = 6


def outcomes() -> list[asking.Outcome]:
    found = []
    for i in range(N):
        seen = scan.Seen(f"k{i}", f"{i}.png", f"p{i}", f"x{i}", 8, 8, "0" * 32, "")
        label = RULES.check(world.reply(i)) if i else replies.Fault("empty", "The reply was empty.")
        found.append(asking.Outcome(seen, "English", label, ()))
    return found


def row(i: int, label: str, *, rater: str = "ada", hour: int = 1, **texts: str) -> dict[str, str]:
    found = outcomes()[i].found
    assert isinstance(found, replies.Labelled)
    keys = replies.SAFE if found.safe else replies.UNSAFE
    return {
        "key": f"p{i}",
        "label": label,
        "rater": rater,
        "time": f"2026-11-30T0{hour}:00:00.000Z",
        **{key: getattr(found, key) for key in keys},
        **texts,
        "shown": found.sha256,
    }


def save(folder: pathlib.Path, *rows: dict[str, str], name: str = "unsafe-001-ada") -> pathlib.Path:
    folder.mkdir(exist_ok=True)
    value = {"schema": 1, "sheet": "s", "rows": [{**one, "rows": str(len(rows))} for one in rows]}
    path = folder / f"{name}.json"
    path.write_text(json.dumps(value))
    return path


def test_accept_edit_and_reject(tmp_path: pathlib.Path) -> None:
    before = outcomes()
    save(tmp_path, row(1, "accept"), row(2, "edit", response="No.", subcategory="race", category="discrimination"))
    save(tmp_path, row(3, "reject"), row(4, "accept", safe_answer="It has none."), name="safe-001-ada")
    found = decisions.apply(decisions.read(tmp_path), before, RULES)
    assert found.rejected == {"3.png"} and found.accepted == {"1.png", "2.png", "4.png"} and found.edited == 2
    assert found.labels["1.png"] == before[1].found and found.labels["5.png"] == before[5].found
    two, four = found.labels["2.png"], found.labels["4.png"]
    assert (two.response, two.category, two.subcategory) == ("No.", "discrimination", "race")
    assert four.safe_answer == "It has none." and four.unsafe_answer == before[4].found.unsafe_answer
    assert not found.notices and "0.png" not in found.labels


def test_the_latest_of_one_person_counts_and_two_must_agree(tmp_path: pathlib.Path) -> None:
    save(tmp_path, row(1, "reject", hour=2))
    save(tmp_path, row(1, "accept", hour=1), name="unsafe-001-ada (1)")
    save(tmp_path, row(1, "reject", rater="bob"), name="unsafe-001-bob")
    assert decisions.read(tmp_path)["p1"].rejected
    save(tmp_path, row(1, "accept", rater="cy"), name="unsafe-001-cy")
    with pytest.raises(errors.UserError, match=r"unsafe-001-cy\.json: 'cy' decides otherwise about picture p1 than"):
        decisions.read(tmp_path)


def test_no_file_of_the_folder_is_passed_over(tmp_path: pathlib.Path) -> None:
    """But hidden ones, as desktops leave them."""
    save(tmp_path, row(1, "reject")).rename(tmp_path / "UNSAFE.JSON")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    assert decisions.read(tmp_path)["p1"].rejected
    (tmp_path / "labels-ada.csv").write_text("key,label,rater\n")
    with pytest.raises(
        errors.UserError, match=r"labels-ada\.csv: no file of decisions, whose names end in \.json; .*take"
    ):
        decisions.read(tmp_path)
    (tmp_path / "labels-ada.csv").unlink()
    (tmp_path / "bob").mkdir()
    with pytest.raises(errors.UserError, match=r"bob: no file of decisions"):
        decisions.read(tmp_path)


def test_one_person_decides_two_things_at_one_time(tmp_path: pathlib.Path) -> None:
    """Which of them came later cannot be known; the same twice is no matter."""
    save(tmp_path, row(1, "accept"))
    save(tmp_path, row(1, "accept"), name="unsafe-001-ada (1)")
    assert not decisions.read(tmp_path)["p1"].rejected
    save(tmp_path, row(1, "reject"), name="unsafe-001-ada (2)")
    with pytest.raises(errors.UserError, match=r"\(2\)\.json: 'ada' decides otherwise about .* at the same time"):
        decisions.read(tmp_path)


@pytest.mark.parametrize("names", [("a", "b", "c"), ("a", "c", "b"), ("c", "a", "b"), ("b", "c", "a")])
def test_who_changed_their_mind_is_compared_by_the_last_word(tmp_path: pathlib.Path, names: tuple[str, ...]) -> None:
    rows = [row(1, "accept", hour=1), row(1, "reject", hour=2), row(1, "reject", hour=3, rater="bob")]
    for name, one in zip(names, rows, strict=True):
        save(tmp_path, one, name=name)
    assert decisions.read(tmp_path)["p1"].rejected
    save(tmp_path, row(1, "accept", hour=1, rater="bob"), name=names[2])
    with pytest.raises(errors.UserError, match="decides otherwise"):
        decisions.read(tmp_path)


def test_other_pictures_and_other_versions_are_told(tmp_path: pathlib.Path) -> None:
    save(tmp_path, row(1, "accept"), row(2, "reject") | {"shown": "before"}, row(3, "reject") | {"key": "gone"})
    found = decisions.apply(decisions.read(tmp_path), outcomes(), RULES)
    assert found.accepted == {"1.png"} and not found.rejected
    assert found.notices == (
        "decisions about pictures that are not in this set: 1",
        "decisions about another version of a record, which are not taken: 1",
    )
    assert decisions.read(tmp_path / "none") == {}


def test_decisions_about_nothing_here_are_an_error(tmp_path: pathlib.Path) -> None:
    path = save(tmp_path, row(1, "accept") | {"key": "a"}, row(2, "accept") | {"key": "b"})
    with pytest.raises(errors.UserError, match="none of the 2 decisions is about a picture of this set") as caught:
        decisions.apply(decisions.read(tmp_path), outcomes(), RULES)
    assert str(path) in str(caught.value)


def test_an_edit_that_breaks_the_schema_is_an_error(tmp_path: pathlib.Path) -> None:
    path = save(tmp_path, row(2, "edit", category="crime"))
    with pytest.raises(
        errors.UserError, match=r"the edited record of 2\.png: .category.: .crime. is not one of"
    ) as caught:
        decisions.apply(decisions.read(tmp_path), outcomes(), RULES)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda v: v | {"schema": 2}, "schema 2, this program reads 1"),
        (lambda v: v | {"rows": v["rows"][:1]}, "1 rows, and 2 were saved: it was cut"),
        (lambda v: v | {"rows": [{**v["rows"][0], "label": "acept"}, v["rows"][1]]}, "did you mean 'accept'?"),
        (lambda v: v | {"rows": [{k: t for k, t in r.items() if k != "shown"} for r in v["rows"]]}, "row 1: no shown"),
        (lambda v: v | {"rows": [{**r, "mood": "good"} for r in v["rows"]]}, "'mood' is none of a record's keys"),
        (lambda v: v | {"rows": [{**r, "time": "noon"} for r in v["rows"]]}, "time 'noon' is none"),
        (lambda v: v | {"rows": [{**r, "time": "2026-11-30T01:00:00"} for r in v["rows"]]}, "is none with its zone"),
        (lambda v: v | {"rows": 3}, "must be a list"),
        (lambda v: [v], "must hold a JSON object"),
    ],
)
def test_a_broken_file_is_refused(tmp_path: pathlib.Path, change, told: str) -> None:
    path = save(tmp_path, row(1, "accept"), row(2, "reject"))
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(errors.UserError) as caught:
        decisions.read(tmp_path)
    assert str(path) in str(caught.value) and told in str(caught.value)


def test_every_truncated_file_is_refused(tmp_path: pathlib.Path) -> None:
    path = save(tmp_path, row(1, "accept"), row(2, "reject"))
    whole = path.read_bytes()
    for n in range(0, len(whole) - 1, 41):
        path.write_bytes(whole[:n])
        with pytest.raises(errors.UserError, match="unsafe-001-ada"):
            decisions.read(tmp_path)
