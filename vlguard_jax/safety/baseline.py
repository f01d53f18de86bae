"""Another evaluation's verdicts on the same questions, for paired differences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import pathlib

from vlguard_jax import config as settings_lib
from vlguard_jax import errors
from vlguard_jax.families.chat import conversations
from vlguard_jax.families.chat import templates
from vlguard_jax.safety import asked as asked_lib
from vlguard_jax.safety import left_out
from vlguard_jax.safety import questions as questions_lib
from vlguard_jax.safety import results
from vlguard_jax.safety import summary
from vlguard_jax.safety.benchmarks import benchmark as benchmark_lib
from vlguard_jax.safety.judges import judge as judge_lib

Judging = tuple[judge_lib.Judge, Mapping[str, str]]  # a judge, and what it measures by subset
Verdicts = Mapping[tuple[str, str, str], judge_lib.Verdict]  # (judge, subset, id of the item) -> the baseline's


def read(
    config: settings_lib.EvalConfig,
    folder: pathlib.Path,
    items: Sequence[benchmark_lib.Item],
    judging: Sequence[Judging],
    template: conversations.Template,
) -> Verdicts | None:
    """The verdicts in `config.baseline` on answers to exactly the questions of `items`; None where no baseline is
    named.

    Needs no model and no answer of this run, whose working directory is `folder`. These must be equal: question with
    suffix, picture, `template` (or the one that `config.baseline_template` names), preprocessing of pictures, limits of
    an answer and its sampling. A question of a control run (a blank in place of the picture, or none) that the baseline
    was not asked is paired with the same question about its real picture: the difference is the picture's effect.

    Raises:
      UserError: there is no finished evaluation, an item was not asked there or was asked differently, or a judge has
        not read its answer.
    """
    if not config.baseline:
        return None
    there = pathlib.Path(config.baseline)
    if there.resolve() == folder.resolve():
        raise errors.UserError(f"config.baseline={there} is this run's own --workdir; name that of another evaluation")
    answers = _answers(there, {item.subset for item in items})
    verdicts = {
        (v.key, v.rule): v.verdict
        for v in results.Lines(there / results.VERDICTS, results.VerdictLine, repair=False).lines
    }
    found = {}
    for item in items:
        line = _same(config, item, answers.get((item.subset, item.id), []), there, template)
        for judge, measured in judging:
            if item.subset in measured:
                found[judge.name, item.subset, item.id] = _verdict(
                    judge, item, verdicts.get((line.key, results.rule(judge))), there
                )
    return found


def _answers(there: pathlib.Path, subsets: Iterable[str]) -> dict[tuple[str, str], list[results.GenerationLine]]:
    """(subset, id) -> the answers behind the baseline's rates."""
    if not there.is_dir():
        raise errors.UserError(f"config.baseline={there}: no such folder; name the --workdir of a finished evaluation")
    if not (there / summary.NAME).exists():
        raise errors.UserError(
            f"config.baseline={there}: no finished evaluation, it has no {summary.NAME}; run or finish evaluate"
            " there first"
        )
    rows = summary.read(there / summary.NAME, summary.Row)
    lines = results.Lines(there / results.GENERATIONS, results.GenerationLine, repair=False).lines
    if not lines:
        raise errors.UserError(
            f"config.baseline={there}: no answers; name the --workdir of an evaluation, not a folder above one"
        )
    weights = {row.weights_sha256 for row in rows if row.subset in subsets}
    found: dict[tuple[str, str], list[results.GenerationLine]] = {}
    for line in lines:
        if line.weights_sha256 in weights:
            found.setdefault((line.subset, line.item_id), []).append(line)
    return found


def _same(
    config: settings_lib.EvalConfig,
    item: benchmark_lib.Item,
    lines: Sequence[results.GenerationLine],
    there: pathlib.Path,
    template: conversations.Template,
) -> results.GenerationLine:
    """The last answer to what `item` asks."""
    where = f"config.baseline={there}: {item.subset} item {item.id}"
    if not lines and (item.subset, item.id) in left_out.read(there):
        raise errors.UserError(
            f"{where} was not asked there but left out ({there / left_out.SKIPPED}); ask it there too, or leave it out"
            " here (config.benchmark.on_bad_picture, on_long_prompt)"
        )
    if not lines:
        raise errors.UserError(
            f"{where} was not asked there; evaluate the baseline on the same benchmark and limit first"
        )
    mode = questions_lib.image_mode(config.benchmark, item)
    question = results.sha256(item.question)
    ours = asked_lib.asked(question, mode, _pictures(item) if mode == "real" else [""] * len(item.pictures))
    about = [line for line in lines if asked_lib.of_line(line) == ours]
    if not about and mode != "real" and item.pictures:
        if missing := [picture.path for picture in item.pictures if not picture.path.is_file()]:
            raise errors.UserError(
                f"{where}: {missing[0]} is missing, so its picture cannot be compared with the baseline's; put it there"
            )
        real = asked_lib.asked(question, "real", _pictures(item))
        about = [line for line in lines if asked_lib.of_line(line) == real]
    if not about:
        raise errors.UserError(
            f"{where} was asked with {ours.difference(asked_lib.of_line(lines[-1]))} there; evaluate the baseline on"
            " the same questions and pictures first"
        )
    theirs = asked_lib.how_of(about[-1])
    difference = theirs.difference(_how(config, mode, template))
    if difference:
        way = "; name it in config.baseline_template if that is meant" if difference.startswith("template") else ""
        raise errors.UserError(f"{where} was asked with {difference}; evaluate the baseline in the same way first{way}")
    return about[-1]


def _pictures(item: benchmark_lib.Item) -> list[str]:
    """sha256 of the files of the item's pictures."""
    return [questions_lib.file_hash(picture.path) for picture in item.pictures]


def _how(config: settings_lib.EvalConfig, mode: str, template: conversations.Template) -> asked_lib.How:
    name, sha256 = template.name, template.sha256
    if config.baseline_template:  # a template in Jinja is another one with another tokenizer
        known = templates.TEMPLATES.get(config.baseline_template)
        name, sha256 = config.baseline_template, known.sha256 if known else ""
    image_mode = config.model.image_mode
    preprocessing = image_mode if mode == "real" and image_mode != "auto" else ""
    decode = questions_lib.decode(config, "fp32")  # any number format
    return asked_lib.How(name, sha256, preprocessing, decode.min_new, decode.max_new, decode.choice)


def _verdict(
    judge: judge_lib.Judge, item: benchmark_lib.Item, found: judge_lib.Verdict | None, there: pathlib.Path
) -> judge_lib.Verdict:
    where = f"config.baseline={there}: {item.subset} item {item.id}"
    if found is None:
        raise errors.UserError(
            f"{where} has no verdict of {judge.name} (version {judge.version}); run evaluate there with this"
            " judge first"
        )
    if not judge_lib.of_reference(judge, found, item.reference):
        raise errors.UserError(f"{where} was judged against another expected answer; run evaluate there again first")
    return found
