"""Hostile chat templates: programs that raise, loop, take memory, reach for Python or write another text."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import random

from tests.data import stand
from tests.faults import documents
from tests.faults import sandbox
from vlguard_jax import errors
from vlguard_jax import types
from vlguard_jax.families.chat import choice
from vlguard_jax.families.chat import conversations
from vlguard_jax.families.chat import jinja_template
from vlguard_jax.families.chat import spans
from vlguard_jax.families.chat import template_trial
from vlguard_jax.families.chat import tokenizer as tokenizer_lib

jinja_template.transformers_utils()  # which takes a second, before the trials are forked

SOUND = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}",
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{{ '[' + m['role'] + ']' + m['content'] | trim + eos_token }}{% endfor %}{{ strftime_now('%d %b %Y') }}",
)
TURN = "{% for m in messages %}HERE{{ eos_token }}{% endfor %}"
BAD = {
    "raises": (
        "{{ raise_exception('no\x1b[2J\n\u202eway') }}",
        "{{ 1 // 0 }}",
        "{{ messages[99].content }}",
        "{{ no.thing }}",
    ),
    "is no Jinja": ("{% if %}", "{{ a", "{% for %}", "{% endfor %}", "{{ '" + "(" * 9000, "{% include 'a' %}"),
    "loops": (
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{{ messages | map(attribute='role') | join }}"
        "{% endfor %}{% endfor %}",
    ),
    "calls itself": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{{ " + "[" * 3000 + "]" * 3000 + " }}"),
    "takes memory": (
        "{{ 'a' * 10 ** 11 }}",
        "{{ 'a'.ljust(10 ** 11) }}",
        "{{ '%99999999999d' % 3 }}",
        "{{ messages[0]['content'] | center(10 ** 11) }}",
        "{% set ns = namespace(x='aaaa') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{{ ['a' * 999] * 10 ** 9 }}",
    ),
    "reaches for Python": (
        "{{ ''.__class__.__mro__ }}",
        "{{ cycler.__init__.__globals__.os.system('touch ../outside/x') }}",
        "{{ lipsum.__globals__['os'].popen('id').read() }}",
        "{{ raise_exception.__globals__ }}",
        "{{ self.__init__.__globals__ }}",
        "{{ dict.__base__.__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'role': 'x'}) }}",
        "{{ '{0.__class__}'.format(messages) }}",
        "{{ strftime_now.__self__.__class__ }}",
    ),
}
REWRITES = (
    "{{ m.content | upper }}",
    "{{ m.content | tojson }}",
    "{{ m.content }}{{ m.content }}",
    "{{ m.content[:2] }}",
)
TURNS = (types.Turn("human", "What is this?"), types.Turn("gpt", "A quick brown fox."))


def _in_this_process(template: jinja_template.JinjaTemplate) -> None:
    order = {"template": dataclasses.asdict(template), "seconds": 2}
    if fault := template_trial.run(json.dumps(order).encode()):
        raise errors.UserError(fault)


def _tokens(folder: pathlib.Path, *, pictures: bool = False) -> bool:
    """Read the folder's template, ask and train with it; in the trial's own process."""
    template_trial.check = _in_this_process  # type: ignore[assignment]
    template_trial.limits.TEMPLATE_SECONDS = 1  # type: ignore[assignment]
    words = tokenizer_lib.load_tokenizer(folder)
    template = choice.template("folder", jinja_template.DATE, stand.sees() if pictures else stand.blind(), words)
    assert isinstance(template, jinja_template.JinjaTemplate)
    assert len(conversations.tokenize_prompt("What is this?", int(pictures), words, template))
    assert "<class" not in template.prompt("What is this?", int(pictures)), "an object of Python's"
    if pictures:
        return True
    spans.check(words, template)
    found = conversations.tokenize(types.Record("a", TURNS), words, template, 999)
    learnt = [int(id_) for id_ in found.labels if id_ != types.IGNORE_LABEL]
    assert "quick brown fox." in words.decode(learnt), "another text is learnt"
    return True


def make(rng: random.Random, folder: pathlib.Path) -> sandbox.Trial:
    """A folder with a template in one of the files that hold them."""
    stand.write_tokenizer(folder)
    kind = rng.choice(["sound", "changed", "changed", "rewrites", "no pictures", "document", *BAD])
    text = rng.choice(SOUND)
    right: object = sandbox.Nothing
    if kind == "changed":
        letters, right = list(text), sandbox.Anything
        for _ in range(rng.choice((1, 2, 9))):
            letters[rng.randrange(len(letters))] = rng.choice(("", "{", "%", "}", "'", "|", "\0", "\u202e", "9"))
        text = "".join(letters)
    elif kind == "rewrites":
        text = TURN.replace("HERE", rng.choice(REWRITES))
    elif kind in BAD:
        if kind == "reaches for Python":  # what is out of reach may also be empty
            right = sandbox.Anything
        text = TURN.replace("HERE", rng.choice(BAD[kind]) + "{{ m.content }}")
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text()) if path.is_file() else {}
    named = [{"name": "rag", "template": "x"}, {"name": "default", "template": text}]
    whole = config | {"chat_template": rng.choice((text, named))}
    if kind == "document":
        what, data = documents.change(rng, whole)
        kind, right = (
            f"tokenizer_config: {what}",
            sandbox.Nothing if what.startswith(documents.BROKEN) else sandbox.Anything,
        )
        path.write_bytes(data)
    elif rng.random() < 0.5:
        (folder / "chat_template.jinja").write_text(text, encoding="utf-8", errors="surrogatepass")
    else:
        path.write_text(json.dumps(whole))
    if kind == "sound":
        return sandbox.Trial(kind, lambda: _tokens(folder), True, must_read=True)
    return sandbox.Trial(kind, lambda: _tokens(folder, pictures=kind == "no pictures"), right)
