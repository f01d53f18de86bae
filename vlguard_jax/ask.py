r"""Talks with a checkpoint in the terminal, or with two side by side, and shows what judges say of each answer.

  vlguard ask MODEL                                       # a conversation; /help tells what can be typed
  vlguard ask MODEL MODEL2                                # the same questions to both
  vlguard ask MODEL --prompt "What is this?" --picture FILE
  vlguard ask MODEL < question.txt                        # the same; --json for programs

A model's first answer is what `evaluate` gets for the same question, picture and settings, token for token. Those are
an evaluation's: --config configs/eval/vlguard.py:released asks as VLGuard's script does, --config.decode.max_new_tokens
and so on as there. Judges: rules, or a model in config.local_judges. docs/asking.md tells more.
"""

from __future__ import annotations

from pathlib import Path
import sys

from absl import flags

from vlguard_jax import cli
from vlguard_jax import config as settings_lib
from vlguard_jax import config_flag
from vlguard_jax import errors
from vlguard_jax import escape

_CONFIG = config_flag.define(
    "ask",
    "NAME[:preset] or FILE[:preset] of an evaluation, see configs/eval; without it each is asked as it was trained",
    str(Path(__file__).parent / "asking" / "settings.py"),
)
_PROMPT = flags.DEFINE_string("prompt", None, "one question; its answers are printed, and that is all")
_PICTURES = flags.DEFINE_multi_string("picture", [], "a picture's file, of --prompt; again for one more")
_JSON = flags.DEFINE_bool("json", False, "of --prompt: each answer as a JSON object with its tokens and verdicts")


def main(models: list[str]) -> int:
    """Answer one question, or talk."""
    from vlguard_jax.asking import given  # late: --help needs little
    from vlguard_jax.asking import settings
    from vlguard_jax.safety.judges import registry

    configs = settings.of_each(settings_lib.resolve(_CONFIG.value, settings_lib.EvalConfig), models)
    talks = _PROMPT.value is None and sys.stdin is not None and sys.stdin.isatty()
    if talks and (_PICTURES.value or _JSON.value):
        raise errors.UserError(
            "--picture and --json are of one question: give --prompt; in a conversation, type /picture"
        )
    text = _PROMPT.value
    if not talks and text is None:
        text = given.read_question(sys.stdin.buffer.read)
    given.check_pictures(_PICTURES.value)
    for judge in registry.of(configs[0]):
        given.check_judge(judge)
    from vlguard_jax.asking import chat
    from vlguard_jax.asking import panel as panel_lib

    panel = panel_lib.opened(configs, lambda line: print(escape.line(line), file=sys.stderr))
    if talks:
        chat.talk(panel)
    else:
        chat.once(panel, text or "", _PICTURES.value, json=_JSON.value)
    return errors.EXIT_OK


if __name__ == "__main__":
    cli.run(main, doc=__doc__)
