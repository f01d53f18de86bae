"""Chat templates in Jinja: what transformers renders, where the answers are, and what a hostile one may do."""

from __future__ import annotations

import pickle
import random
import threading
import time

import pytest
import tokenizers
from tokenizers import models
import transformers

from tests.families.chat import chats
from vlguard_jax import errors
from vlguard_jax import limits
from vlguard_jax import types
from vlguard_jax.families.chat import deadline
from vlguard_jax.families.chat import jinja_template
from vlguard_jax.families.chat import template_trial

TODAY = "26 Jul 2024"  # of jinja_template.DATE


def made(form: chats.Format, **fields) -> jinja_template.JinjaTemplate:
    return jinja_template.JinjaTemplate("folder", form.template, tuple(sorted(form.named.items())), **fields)


def oracle(form: chats.Format) -> transformers.PreTrainedTokenizerFast:
    empty = tokenizers.Tokenizer(models.BPE())
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=empty, chat_template=form.template, extra_special_tokens=list(form.others), **form.named
    )


def of(text: str, **fields) -> jinja_template.JinjaTemplate:
    return jinja_template.JinjaTemplate("folder", text, (("eos_token", "</s>"),), origin="t.jinja", **fields)


@pytest.mark.parametrize("name", chats.FORMATS)
def test_conversations_and_prompts_are_those_of_transformers(name):
    form = chats.FORMATS[name]
    template, theirs, rng = made(form), oracle(form), random.Random(1)
    for _ in range(200):
        turns = chats.conversation(rng, form)
        rendered = template.render(turns, 0)
        assert rendered.text == theirs.apply_chat_template(chats.messages(turns), tokenize=False, date_string=TODAY)
        answers = [turn.text for turn in turns if turn.role == "gpt"]
        found = [rendered.text[start:end] for start, end in rendered.answers]
        assert found == ([one.strip() for one in answers] if form.strips else answers)
        question = turns[-2].text
        asked = theirs.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True, date_string=TODAY
        )
        assert template.prompt(question, 0) == asked


@pytest.mark.parametrize("name", chats.FORMATS)
def test_a_question_in_a_conversation_is_asked_as_transformers_does(name):
    form = chats.FORMATS[name]
    template, theirs = made(form), oracle(form)
    turns = [types.Turn(role, text) for role, text in zip(("human", "gpt") * 2, ("a?", "b.", "c?", "d."), strict=True)]
    asked = theirs.apply_chat_template(
        chats.messages(turns[:3]), tokenize=False, add_generation_prompt=True, date_string=TODAY
    )
    assert template.prompt("c?", 0, [types.Round("a?", 0, "b.")]) == asked
    assert asked.startswith(template.prompt("a?", 0)) and template.render(turns, 0).text.startswith(asked)


def test_the_places_of_answers_are_those_of_generation_blocks():
    """Of a template that marks them itself, transformers tells the places."""
    marked = (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}{% if message.role == 'assistant' %}"
        "{% generation %}{{ message['content'] }}{% endgeneration %}{% else %}{{ message['content'] }}{% endif %}"
        "{{ '<|im_end|>\n' }}{% endfor %}"
    )
    form, rng = chats.FORMATS["chatml"]._replace(template=marked), random.Random(2)
    for _ in range(50):
        turns = chats.conversation(rng, form)
        texts, places = transformers.utils.chat_template_utils.render_jinja_template(
            [chats.messages(turns)], chat_template=marked, return_assistant_tokens_mask=True
        )
        assert made(form).render(turns, 0) == (texts[0], tuple(places[0]))


def test_the_date_is_pinned():
    template = of("{{ strftime_now('%Y-%m-%d %H:%M') }}?", date="2031-02-03")
    assert template.prompt("?", 0) == "2031-02-03 00:00?"
    theirs = transformers.utils.chat_template_utils.render_jinja_template([[]], chat_template=template.text)
    assert not theirs[0][0].startswith("2031")  # of the same text in the same process


def test_the_hash_is_of_all_that_decides():
    template = of("a")
    others = [of("b"), of("a", date="2031-02-03"), of("a", pictures=True), of("a", image="[img]")]
    others.append(jinja_template.JinjaTemplate("folder", "a", (("eos_token", "<e>"),)))
    assert len({one.sha256 for one in (template, *others)}) == 6
    elsewhere = jinja_template.JinjaTemplate("other", "a", template.special, origin="there")
    assert elsewhere.sha256 == template.sha256
    assert pickle.loads(pickle.dumps(template)) == template


PICTURES = (
    "{% for m in messages %}{{ m['role'] + ': ' }}{% for part in m['content'] %}{% if part['type'] == 'image' %}"
    "{{ '<image>' }}{% else %}{{ part['text'] }}{% endif %}{% endfor %}{{ '</s>' }}{% endfor %}"
)


def test_pictures_are_parts_of_a_message():
    template = of(PICTURES, pictures=True)
    assert template.prompt("Which?", 2) == "user: <image><image>Which?</s>"
    turns = [types.Turn("human", "Is <image>\nlike <image>?"), types.Turn("gpt", "Yes")]
    assert template.render(turns, 2).text == "user: Is <image>like <image>?</s>assistant: Yes</s>"
    with pytest.raises(errors.UserError, match=r"^the text '<image>', which stands for a picture"):
        template.prompt("What is <image>?", 1)
    with pytest.raises(errors.UserError, match=r"^t\.jinja has no place for pictures: it shows 0 of 1 as '<image>'"):
        of("{{ messages[0]['content'][-1]['text'] }}", pictures=True).prompt("?", 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ raise_exception('no\x1b[31m\nway') }}", r"refuses the conversation: no\\x1b\[31m\\nway$"),
        ("{% if %}", "is not valid Jinja: line 1: "),
        ("{{ foo.bar }}", "needs what it is not given: 'foo' is undefined$"),
        ("{{ ''.__class__.__mro__ }}", "reaches for Python's objects, which is refused: "),
        ("{{ cycler.__init__.__globals__.os.system('id') }}", "reaches for Python's objects, which is refused: "),
        ("{{ messages.append(1) }}", "reaches for Python's objects, which is refused: "),
        ("{{ 1 // 0 }}", "fails: ZeroDivisionError: "),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "fails: RecursionError: "),
        ("{% import 'os' as os %}", "fails: TypeError: no loader "),
    ],
)
def test_what_a_template_raises_is_one_line(text, message):
    with pytest.raises(errors.UserError, match=f"^t.jinja {message}") as found:
        of(text).prompt("?", 0)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    "rewriting",
    [
        "{{ message['content'] | upper }}",
        "{{ message['content'] | tojson }}",
        "{{ message['content'][:3] }}",
        "{{ message['content'] }}{{ message['content'] }}",
        "{% if 'b' in message['content'] %}!{% endif %}{{ message['content'] }}",
        "",
    ],
)
def test_rewritten_answers_are_refused(rewriting):
    template = of(f"{{% for message in messages %}}{rewriting}</s>{{% endfor %}}")
    with pytest.raises(errors.UserError, match=r"^t.jinja rewrites answers, .* config\.model\.template$"):
        template.render([types.Turn("human", "a"), types.Turn("gpt", 'a "b" c')], 0)


LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("left_out", "named"),
    [("loop.index0 == 0", "system text 'Be brief\\.'"), ("loop.index0 == 3", "question 'Why is it so\\?'")],
)
def test_a_conversation_without_one_of_its_turns_is_refused(left_out, named):
    """Its answer would be learnt as one to nothing, or to something else."""
    turns = [types.Turn("system", "Be brief."), types.Turn("human", "What?"), types.Turn("gpt", "That.")]
    turns += [types.Turn("human", "Why is it so?"), types.Turn("gpt", "Because.")]
    shown = "{% for message in messages %}{% if not LEFT %}{{ message['content'] }}</s>{% endif %}{% endfor %}"
    of(shown.replace("LEFT", "false")).render(turns, 0)
    with pytest.raises(errors.UserError, match=f"leaves out or rewrites the {named}"):
        of(shown.replace("LEFT", left_out)).render(turns, 0)


@pytest.mark.parametrize("text", ["", "{{ messages[0]['content']|upper }}", "{{ messages[1:] }}"])
def test_a_prompt_without_its_question_is_refused(text):
    with pytest.raises(errors.UserError, match="leaves out or rewrites the question 'Why is it so\\?'"):
        of(text).prompt("Why is it so?", 0)
    shown = of("{{ messages[0]['content']|trim }}:").prompt("  Why is it so?\n", 0)
    assert shown == "Why is it so?:"


def test_a_loop_is_stopped_in_any_thread(monkeypatch):
    monkeypatch.setattr(limits, "TEMPLATE_SECONDS", 0.5)
    found = []

    def ask():
        with pytest.raises(errors.UserError, match=r"^t.jinja takes more than 0\.5 seconds for one conversation: "):
            of(LOOP).prompt("?", 0)
        found.append(time.sleep(0.6))  # nothing is raised afterwards

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    ask()
    for thread in threads:
        thread.join()
    assert found == [None] * 3


def test_a_deadline_passes_results_and_errors_on():
    assert deadline.run(lambda: 3, 1.0) == 3
    with pytest.raises(KeyError):
        deadline.run(lambda: {}[0], 1.0)


def test_a_template_is_tried_in_a_process_of_its_own(monkeypatch):
    template_trial.check(made(chats.FORMATS["gemma"]))  # which takes no system turns
    with pytest.raises(errors.UserError, match=r"^t\.jinja takes too much memory"):
        template_trial.check(
            of("{{ messages[0].content }}{% if messages | length > 2 %}{{ 'a' * 10 ** 11 }}{% endif %}")
        )
    monkeypatch.setattr(limits, "TEMPLATE_SECONDS", 1)
    with pytest.raises(errors.UserError, match=r"^t\.jinja takes more than 1 seconds"):
        template_trial.check(of("{% set x = 9 ** (10 ** 8) %}"))
