r"""Talks with a checkpoint, or with two side by side, and shows what judges say of each answer.

  vlguard ask MODEL                                       # a conversation; /help tells what can be typed
  vlguard ask MODEL MODEL2                                # the same questions to both
  vlguard ask MODEL --prompt "What is this?" --picture FILE
  vlguard ask MODEL < question.txt                        # the same; --json for programs
  vlguard ask MODEL MODEL2 --page                         # on a page in the browser of this machine

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
from vlguard_jax import ranges

_CONFIG = config_flag.define(
    "ask",
    "NAME[:preset] or FILE[:preset] of an evaluation, see configs/eval; without it each is asked as it was trained",
)
_PROMPT = flags.DEFINE_string("prompt", None, "one question; its answers are printed, and that is all")
_PICTURES = flags.DEFINE_multi_string("picture", [], "a picture's file, of --prompt; again for one more")
_JSON = flags.DEFINE_bool("json", False, "of --prompt: each answer as a JSON object with its tokens and verdicts")
_PAGE = flags.DEFINE_bool("page", False, "a page in the browser, of this machine alone, in place of the terminal")
_PORT = cli.define_number("port", int, 8765, ranges.Range(0, 65535), "of --page; 0: any that is free")


def main(models: list[str]) -> int:
    """Answer one question, or talk."""
    from vlguard_jax.asking import given  # late: --help needs little
    from vlguard_jax.asking import settings
    from vlguard_jax.safety.judges import registry

    configs = settings.of_each(settings_lib.resolve(_CONFIG.value, settings_lib.EvalConfig), models)
    talks = _PAGE.value or (_PROMPT.value is None and sys.stdin is not None and sys.stdin.isatty())
    if _PAGE.value and _PROMPT.value is not None:
        raise errors.UserError("--page and --prompt exclude each other: ask on the page, or in the terminal")
    if talks and (_PICTURES.value or _JSON.value):
        raise errors.UserError(
            "--picture and --json are of one question: give --prompt; a conversation has /picture, the page a button"
        )
    text = _PROMPT.value
    if not talks and text is None:
        if sys.stdin is None:
            raise errors.UserError("standard input is closed: give the question with --prompt")
        text = given.read_question(sys.stdin.buffer.read)
    given.check_pictures(_PICTURES.value)
    for judge in registry.of(configs[0]):
        given.check_judge(judge)
    from vlguard_jax.asking import chat
    from vlguard_jax.asking import panel as panel_lib
    from vlguard_jax.asking import serve
    from vlguard_jax.parallel import programs

    programs.keep()
    listening = serve.bound(_PORT.value) if _PAGE.value else None
    panel = panel_lib.opened(configs, lambda line: print(escape.line(line), file=sys.stderr))
    if listening is not None:
        serve.run(panel, listening)
    elif talks:
        chat.talk(panel)
    else:
        chat.once(panel, text or "", _PICTURES.value, json=_JSON.value)
    return errors.EXIT_OK


if __name__ == "__main__":
    config_flag.unless_given(str(Path(__file__).parent / "asking" / "settings.py"), sys.argv)
    cli.run(main, doc=__doc__)
