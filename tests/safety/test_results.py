"""Result files survive a kill at any byte and refuse what they do not understand."""

import dataclasses
import json

import pytest

from tests import odd_files
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.safety import questions
from vlguard_jax.safety import results

NOW = "2026-01-31T12:00:00+00:00"
DECODE = results.Decode(8, 1, "fp32", "highest", "greedy", 0)


def verdict(i: int, **changes) -> results.VerdictLine:
    return dataclasses.replace(
        results.VerdictLine(f"key{i}", "j", "1", "", "comply", 1.0, "caf\u00e9 \U0001f600", NOW), **changes
    )


def read(path, **options):
    return results.Lines(path, results.VerdictLine, **options)


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "v.jsonl"
    lines = read(path)
    lines.append([verdict(0), verdict(1)])
    lines.append([verdict(2)])
    assert read(path).lines == lines.lines == [verdict(i) for i in range(3)]
    assert all(json.loads(line)["schema"] == results.SCHEMA for line in path.read_text().splitlines())


def test_a_torn_line_is_cut_at_every_byte(tmp_path):
    path = tmp_path / "v.jsonl"
    read(path).append([verdict(0), verdict(1)])
    data = path.read_bytes()
    first = data.index(b"\n") + 1
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut])
        torn = cut not in (0, first, len(data))
        again = read(path)
        assert bool(again.notice) == torn
        again.append([verdict(7)])
        kept = [verdict(i) for i in range((cut >= first) + (cut == len(data)))]
        assert read(path).lines == [*kept, verdict(7)]


def test_someone_elses_file_is_not_repaired(tmp_path):
    path = tmp_path / "v.jsonl"
    read(path).append([verdict(0)])
    torn = path.read_bytes() + b'{"schema": 1, "ke'
    path.write_bytes(torn)
    assert read(path, repair=False).lines == [verdict(0)]
    assert path.read_bytes() == torn


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("{oops}", "broken JSON at column 2: [^;]*; not a result line: restore the file or delete this line$"),
        (r'{"schema": 1, "raw": "half \ud83d"}', r"half of a surrogate pair \(\\ud83d\) in the text 'half"),
        ("[1]", "not a result line"),
        ("{}", "not a result line"),
        ('{"schema": 99}', "schema 99"),
        ('{"schema": 2, "key": "k"}', "schema 2, this program reads and writes 3; evaluate again in another --workdir"),
        ('{"schema": 3, "key": "k"}', "'judge' is missing"),
    ],
)
def test_a_broken_line_is_named(tmp_path, broken, message):
    path = tmp_path / "v.jsonl"
    read(path).append([verdict(0), verdict(1)])
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], broken, lines[1]]) + "\n")
    with pytest.raises(errors.UserError, match=rf"v\.jsonl:2: .*{message}"):
        read(path)


def test_an_unknown_field_is_named(tmp_path):
    path = tmp_path / "v.jsonl"
    path.write_text(json.dumps({"schema": 3, **dataclasses.asdict(verdict(0)), "mood": 1}) + "\n")
    with pytest.raises(errors.UserError, match="'mood' is unknown"):
        read(path)


REQUEST = results.Request(
    model="m",
    benchmark="b",
    subset="s",
    item_id="i",
    prompt_ids=(1, -200, 2),
    template_sha256="t",
    image_mode="real",
    preprocessing="pad",
    decode=DECODE,
    pictures_sha256=("h",),
)


def test_the_key_hears_everything_that_can_change_an_answer():
    values = dataclasses.asdict(REQUEST)
    changes = [{name: "other"} for name in values if isinstance(values[name], str)]
    changes += [{"prompt_ids": (1, -200, 3)}, {"stand_in": True}]
    changes += [{"pictures_sha256": pictures} for pictures in ((), ("g",), ("h", "g"), ("g", "h"))]
    other = {"typed.Name": "x", "typed.Number": 7.0, "typed.Count": 7, "typed.Seed": 7}
    others = [{f.name: other[f.type]} for f in dataclasses.fields(DECODE)]
    changes += [{"decode": dataclasses.replace(DECODE, **other)} for other in others]
    assert {name for change in changes for name in change} == values.keys()
    keys = [dataclasses.replace(REQUEST, **change).key for change in changes]
    assert len({REQUEST.key, *keys}) == len(changes) + 1


def test_a_setting_at_its_default_does_not_enter_the_key():
    """One that comes later changes no key."""

    @dataclasses.dataclass(frozen=True)
    class Later(results.Decode):
        temperature: float = 0.0

    later = Later(**vars(DECODE))
    assert dataclasses.replace(REQUEST, decode=later).key == REQUEST.key
    warm = dataclasses.replace(later, temperature=1.0)
    assert dataclasses.replace(REQUEST, decode=warm).key != REQUEST.key


def test_keys_and_lines_of_schema_3_stay_what_they_are():
    """Answers of earlier versions are found again, and their lines read."""
    assert REQUEST.key == "d9d7db0e418be7a80bfb053ac112c32019af1b13253baece368baeb575e7022f"
    assert [f.name for f in dataclasses.fields(results.VerdictLine)] == [
        *("key", "judge", "judge_version", "judge_prompt_sha256", "label", "score", "raw", "time", "by")
    ]
    assert len(dataclasses.fields(results.GenerationLine)) == 28 and results.SCHEMA == 3


def test_verdicts_before_services_told_their_model_are_read(tmp_path):
    path = tmp_path / "v.jsonl"
    values = dict.fromkeys(("key", "judge", "judge_version", "judge_prompt_sha256", "raw"), "x")
    values |= {"schema": 3, "label": "comply", "score": 1.0, "time": "2026-01-01T00:00:00+00:00"}
    path.write_text(json.dumps(values) + "\n")
    (line,) = results.Lines(path, results.VerdictLine).lines
    assert line.by == "" and line.verdict.score == 1.0


def test_lines_before_sampling_are_read_and_found_again(tmp_path):
    """Their `decode` has six fields, and greedy fp32 has the same key as then."""
    path = tmp_path / "g.jsonl"
    results.Lines(path, results.GenerationLine).append([generation()])
    values = json.loads(path.read_text())
    for name in ("slots", "kv_cache", "temperature", "top_p"):
        del values["decode"][name]
    assert len(values["decode"]) == 6
    path.write_text(json.dumps(values) + "\n")
    assert results.Lines(path, results.GenerationLine).lines == [generation()]
    settings = config.EvalConfig(decode=config.DecodeSettings(8, 1))
    assert questions.decode(settings, "fp32") == DECODE


def test_what_can_change_an_answer_is_recorded():
    """The number of slots outside fp32, and sampling; the seed, as ever."""
    sampled = config.DecodeSettings(8, 1, 4, temperature=0.7, top_p=0.9, kv_cache="int8")
    found = questions.decode(config.EvalConfig(seed=5, decode=sampled), "bf16")
    assert dataclasses.asdict(found) == {
        **{"max_new": 8, "min_new": 1, "dtype": "bf16", "matmul_precision": "default", "sampling": "drawn"},
        **{"seed": 5, "slots": 4, "kv_cache": "int8", "temperature": 0.7, "top_p": 0.9},
    }
    assert found.choice == "drawn at temperature 0.7, top_p 0.9" and found.told == f"{found.choice}, int8 cache"
    assert DECODE.choice == DECODE.told == "greedy"
    assert questions.decode(config.EvalConfig(decode=config.DecodeSettings(8, 1, 99)), "fp32") == DECODE


def generation(**changes) -> results.GenerationLine:
    pictures = (results.Picture("a.jpg", "1"), results.Picture("b/c.png", "2"))
    values = {"pictures": pictures, "decode": DECODE, "versions": {"jax": "1"}, "time": NOW}
    values |= {"stand_in": False, "withheld": False, "n_prompt_tokens": 3, "n_new_tokens": 4}
    named = {f.name: f.name for f in dataclasses.fields(results.GenerationLine)}
    return results.GenerationLine(**named | values | changes)


def test_pictures_and_decoding_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "g.jsonl"
    lines = [generation(), generation(pictures=())]
    results.Lines(path, results.GenerationLine).append(lines)
    assert results.Lines(path, results.GenerationLine).lines == lines
    assert json.loads(path.read_text().splitlines()[0])["pictures"][1] == {"path": "b/c.png", "sha256": "2"}
    with pytest.raises(errors.UserError, match="half of a surrogate pair"):
        results.Lines(path, results.GenerationLine).append([generation(pictures=(results.Picture("\ud83d", ""),))])


def test_text_that_no_file_can_hold_is_not_written(tmp_path):
    path = tmp_path / "v.jsonl"
    with pytest.raises(errors.UserError, match=r"v\.jsonl: the line of 'key1': half of a surrogate pair"):
        read(path).append([verdict(0), verdict(1, raw="half \ud83d")])
    assert not path.exists()


@pytest.mark.parametrize("look", [read, lambda path: questions.file_hash(path)])
def test_what_is_no_file_is_refused_unread(tmp_path, look):
    for message in odd_files.at(tmp_path / "lines.jsonl"):
        with pytest.raises(errors.UserError, match=rf"lines\.jsonl{message}"):
            look(tmp_path / "lines.jsonl")


def test_what_a_link_leads_to_is_not_repaired(tmp_path):
    (tmp_path / "notes").write_text("kept, without a line's end")
    path = tmp_path / "verdicts.jsonl"
    path.symlink_to(tmp_path / "notes")
    with pytest.raises(
        errors.UserError, match=r"verdicts\.jsonl is a link, a pipe or a device, and a run writes there"
    ):
        read(path)
    assert (tmp_path / "notes").read_text() == "kept, without a line's end"
