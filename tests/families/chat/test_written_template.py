"""The program's templates as Jinja: transformers makes of them what the program makes itself."""

from __future__ import annotations

import pytest
from transformers.utils import chat_template_utils

from vlguard_jax.families.chat import built_in
from vlguard_jax.families.chat import templates
from vlguard_jax.families.chat import written_template


def rendered(name: str, *messages: tuple[str, str, int], ask: bool = True) -> str:
    text = written_template.text(name)
    assert text is not None
    said = [
        {"role": role, "content": [*([{"type": "image"}] * pictures), {"type": "text", "text": words}]}
        for role, words, pictures in messages
    ]
    made, _ = chat_template_utils.render_jinja_template([said], chat_template=text, add_generation_prompt=ask)
    return made[0]


@pytest.mark.parametrize("name", templates.TEMPLATES)
@pytest.mark.parametrize("question", ['What is "this"?\n  It\'s \\ {{ odd }}', "Was ist das? Ein B\u00e4r!"])
def test_prompts_and_conversations_are_the_same(name, question):
    template = templates.TEMPLATES[name]
    for pictures in (0, 1, 2):
        assert rendered(name, ("user", question, pictures)) == template.prompt(question, pictures)
    turns = [("user", question, 1), ("assistant", "A dog.", 0), ("user", "And this?", 0)]
    shown = [f"{templates.IMAGE_TAG}\n{question}", "A dog.", "And this?"]
    assert rendered(name, *turns) == template.render([*shown, None])
    assert rendered(name, *turns, ("assistant", "A cat.", 0), ask=False) == template.render([*shown, "A cat."])


def test_contents_may_be_plain_texts_and_a_system_text_given():
    text = written_template.text("vicuna_v1")
    said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    made, _ = chat_template_utils.render_jinja_template([said], chat_template=text, add_generation_prompt=True)
    assert made[0] == "Be brief. USER: Why? ASSISTANT:"


def test_templates_of_their_own_are_written_as_they_are():
    for name, template in built_in.TEMPLATES.items():
        assert written_template.text(name) == template.text
    assert written_template.text("nobody") is None
