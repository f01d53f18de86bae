"""What is checked before a model is loaded; needs no jax."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import limits
from vlguard_jax.data import images
from vlguard_jax.safety.judges import judge as judge_lib

WITHOUT_REFERENCE = ("refusal", "harm", "harm_score")


def check_pictures(paths: Sequence[str]) -> None:
    """Raise UserError for files that no model could use, before one is loaded."""
    for path in paths:
        try:
            with open(path, "rb", opener=files.without_waiting) as file:
                images.look(file, None, "", decode=False)
        except FileNotFoundError as e:
            raise errors.UserError(f"--picture={path}: no such picture") from e
        except (OSError, ValueError) as e:
            raise errors.UserError(f"--picture={path}: not a readable picture: {images.reason(e)}") from e


def read_question(read: Callable[[int], bytes]) -> str:
    """The question on standard input, which `read` reads, without the line feed at its end.

    Raises:
      UserError: it is empty, too long, or no UTF-8.
    """
    content = read(limits.QUESTION_BYTES + 1)
    if len(content) > limits.QUESTION_BYTES:
        raise errors.UserError(
            f"standard input holds more than {limits.QUESTION_BYTES:,} bytes, which is no question; give one"
        )
    try:
        text = content.decode()
    except UnicodeDecodeError as e:
        raise errors.UserError(f"standard input is no UTF-8 text: byte {e.start} is {content[e.start]}") from e
    text = text.removesuffix("\n").removesuffix("\r")
    if not text.strip():
        raise errors.UserError("standard input is empty: give a question there, or with --prompt")
    return text


def check_judge(judge: judge_lib.Judge) -> None:
    """Raise UserError for a judge that needs an expected answer, or sends what it reads elsewhere."""
    if isinstance(judge, judge_lib.RemoteJudge):
        raise errors.UserError(
            f"config.judges: {judge.name} is behind an endpoint; answers of a conversation are judged here alone: take"
            " rules, or a model in config.local_judges"
        )
    if judge.measures not in WITHOUT_REFERENCE:
        raise errors.UserError(
            f"config.judges: {judge.name} compares with an expected answer, and a question of your own has none"
        )
