"""Another evaluation's verdicts on the same questions, for paired differences."""

from __future__ import annotations

from collections.abc import Sequence
import pathlib

from vlguard_jax import errors
from vlguard_jax.safety import questions as questions_lib
from vlguard_jax.safety import results
from vlguard_jax.safety.judges import judge as judge_lib


class Baseline:
    """The answers and verdicts in another evaluation's working directory, read once."""

    def __init__(self, folder: pathlib.Path):
        """Raises UserError: a broken result line."""
        self._folder = folder
        self._answers = results.Lines(folder / results.GENERATIONS, results.GenerationLine, repair=False).lines
        self._verdicts = results.Lines(folder / results.VERDICTS, results.VerdictLine, repair=False).lines

    def verdicts(self, judge: judge_lib.Judge, questions: Sequence[questions_lib.Question]) -> list[judge_lib.Verdict]:
        """One verdict of `judge` per question, on the answer about the same picture.

        A question of a control run (one colour in place of the picture, or none) that the other run was not asked in this way is
        paired with the same item about its real picture: the difference is what the picture does.

        Raises:
          UserError: there is none for one of the questions.
        """
        by_key = {v.key: v.verdict for v in self._verdicts if v.rule == results.rule(judge)}
        answers = [a for a in self._answers if a.key in by_key]
        same = {(a.subset, a.item_id, a.image_sha256): by_key[a.key] for a in answers}
        real = {(a.subset, a.item_id): by_key[a.key] for a in answers if a.image_mode == "real"}
        found = []
        for question in questions:
            item = question.item
            verdict = same.get((item.subset, item.id, question.image_sha256))
            if verdict is None and question.image_mode != "real":
                verdict = real.get((item.subset, item.id))
            if verdict is None:
                raise errors.UserError(
                    f"config.baseline={self._folder}: no verdict of {judge.name} on {item.subset} item {item.id} with the same"
                    " picture; evaluate the baseline on the same benchmark first"
                )
            found.append(verdict)
        return found
