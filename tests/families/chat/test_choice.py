"""Which chat template a model gets: its family's, its folder's as transformers finds it, or none."""

from __future__ import annotations

import json
import pathlib

import pytest
import transformers

from tests.data import stand
from tests.families.chat import chats
from tests.families.chat import fast
from vlguard_jax import errors
from vlguard_jax import limits
from vlguard_jax import types
from vlguard_jax.families.chat import choice
from vlguard_jax.families.chat import conversations
from vlguard_jax.families.chat import jinja_template
from vlguard_jax.families.chat import templates
from vlguard_jax.families.chat import tokenizer as tokenizer_lib

LLAVA, LLAMA = stand.sees(), stand.blind()
ECHO = "{% for m in messages %}{{ m['role'] + ' ' + m['content'] + '</s>' }}{% endfor %}"


@pytest.fixture(autouse=True)
def untried(monkeypatch):
    """Without the process in which each template is tried: test_jinja_template.py has it."""
    monkeypatch.setattr(choice.template_trial, "check", lambda template: None)


@pytest.fixture
def llama2(tmp_path):
    return stand.make_tokenizer(tmp_path / "llama2")


@pytest.fixture
def llama3(tmp_path):
    fast.save(tmp_path / "llama3", chats.FORMATS["llama3"], "byte_level")
    return tokenizer_lib.load_tokenizer(tmp_path / "llama3")


def chosen(setting, sizes, tokenizer, date=jinja_template.DATE):
    return choice.template(setting, date, sizes, tokenizer)


def put(folder: pathlib.Path, name: str, value: object) -> None:
    old = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
    (folder / name).write_text(json.dumps(old | {"chat_template": value}))


def test_auto_is_the_familys_own_where_there_are_pictures(llama2):
    put(llama2.folder, "tokenizer_config.json", ECHO)
    assert chosen("auto", LLAVA, llama2) is templates.TEMPLATES["vicuna_v1"]
    assert choice.names(LLAVA, llama2) == ("vicuna_v1", "llava_v1")


def test_auto_of_a_language_model_is_its_folders_or_else_vicunas(llama2, llama3):
    assert chosen("auto", LLAMA, llama2) is templates.TEMPLATES["vicuna_v1"]
    put(llama2.folder, "tokenizer_config.json", ECHO)
    found = chosen("auto", LLAMA, llama2)
    assert (found.name, found.text, found.special) == ("folder", ECHO, tuple(sorted(llama2.special.items())))
    assert choice.told(found) == (
        f"chat template folder of {llama2.folder}/tokenizer_config.json (sha256 {found.sha256[:12]}, dated 2024-07-26)"
    )
    assert chosen("vicuna_v1", LLAMA, llama2) is templates.TEMPLATES["vicuna_v1"]
    assert choice.names(LLAMA, llama3) == ("folder",)
    (llama3.folder / "chat_template.jinja").unlink()
    message = (
        r"^config\.model\.template=auto: .*llama3 has no chat template, and 'vicuna_v1' is made for tokenizers of the"
    )
    with pytest.raises(errors.UserError, match=message):
        chosen("auto", LLAMA, llama3)
    with pytest.raises(
        errors.UserError, match=r"^config\.model\.template=folder: .*llama3 has no chat template, neither "
    ):
        chosen("folder", LLAMA, llama3)
    with pytest.raises(
        errors.UserError, match=r"^config\.model\.template=llava_v1 is made for tokenizers of the Llama-2 "
    ):
        chosen("llava_v1", LLAMA, llama3)
    with pytest.raises(errors.UserError, match=r"^template 'fodler' is unknown; did you mean 'folder'\?$"):
        chosen("fodler", LLAMA, llama3)


def test_the_date_is_the_settings(llama3):
    found = chosen("folder", LLAMA, llama3, "2031-02-03")
    assert "Today Date: 03 Feb 2031" in found.prompt("?", 0)
    assert found.sha256 != chosen("folder", LLAMA, llama3).sha256


@pytest.mark.parametrize(
    "files",
    [
        {"chat_template.jinja": "a\r\nb"},
        {"tokenizer_config.json": "c"},
        {"chat_template.jinja": "a", "tokenizer_config.json": "c"},
        {"tokenizer_config.json": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]},
        {"tokenizer_config.json": {"default": "d", "rag": "r"}},
        {"chat_template.json": "e", "tokenizer_config.json": "c"},
    ],
)
def test_a_language_models_template_is_that_of_transformers_tokenizer(llama3, files):
    (llama3.folder / "chat_template.jinja").unlink()
    for name, value in files.items():
        (llama3.folder / name).write_bytes(value.encode()) if name.endswith("jinja") else put(
            llama3.folder, name, value
        )
    theirs = transformers.AutoTokenizer.from_pretrained(llama3.folder)
    assert chosen("auto", LLAMA, llama3).text == theirs.get_chat_template()


PICTURED = (
    "{% for m in messages %}{{ m['role'].upper() + ': ' }}{% for part in m['content'] %}"
    "{{ '<image>\n' if part['type'] == 'image' else part['text'] }}{% endfor %}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


@pytest.mark.parametrize("file", ["chat_template.json", "chat_template.jinja", "processor_config.json"])
def test_prompts_about_pictures_are_those_of_transformers_processor(tmp_path, file):
    form = chats.FORMATS["chatml"]
    form = form._replace(template=PICTURED, others=(*form.others, "<image>"), named=form.named | {"bos_token": "<s>"})
    words = fast.save(tmp_path, form, "byte_level")
    images = transformers.CLIPImageProcessor()
    made = transformers.LlavaProcessor(images, words, patch_size=14, vision_feature_select_strategy="default")
    made.save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").unlink(missing_ok=True)
    (tmp_path / "chat_template.jinja").write_text(PICTURED) if file.endswith("jinja") else put(tmp_path, file, PICTURED)
    theirs = transformers.AutoProcessor.from_pretrained(tmp_path)
    ours = tokenizer_lib.load_tokenizer(tmp_path)
    template = chosen("folder", LLAVA, ours)
    for question, shown in (("the cat <|im_end|>", 1), ("  caf\u00e9?\n", 2), ("No.", 0)):
        parts = [{"type": "image"}] * shown + [{"type": "text", "text": question}]
        asked = [{"role": "user", "content": parts}]
        prompt = theirs.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        assert template.prompt(question, shown) == prompt
        ids = theirs.tokenizer(prompt, add_special_tokens=True)["input_ids"]
        image = theirs.tokenizer.convert_tokens_to_ids("<image>")
        found = conversations.tokenize_prompt(question, shown, ours, template)
        assert found.tolist() == [types.IMAGE_TOKEN if id_ == image else id_ for id_ in ids]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "chat_template must be a text, or texts by name with one named 'default', not 3$"),
        ([{"name": "rag", "template": "r"}], "must be a text, or texts by name with one named 'default', not "),
        ([["default"]], "must be a text, or texts by name with one named 'default', not "),
        (
            "x" * (limits.TEMPLATE_BYTES + 1),
            r"the chat template has 262,145 characters; at most 262,144 bytes are read$",
        ),
    ],
)
def test_what_is_no_template_is_refused(llama2, value, message):
    put(llama2.folder, "tokenizer_config.json", value)
    with pytest.raises(errors.UserError, match=rf"^.*tokenizer_config\.json: .*{message}"):
        chosen("auto", LLAMA, llama2)


@pytest.mark.parametrize("name", ["chatml", "llama3", "gemma"])
def test_an_answer_ends_where_the_template_ends_it(tmp_path, name):
    """Also where the tokenizer names another end token alone, as Gemma's does."""
    form = chats.FORMATS[name]
    fast.save(tmp_path, form, "byte_level")
    words = tokenizer_lib.load_tokenizer(tmp_path)
    wanted = [words.eos_id, words.added[form.end].id]
    assert choice.ends(["folder"], jinja_template.DATE, LLAMA, words) == tuple(dict.fromkeys(wanted))
    assert (name == "gemma") == (wanted[0] != wanted[1])


def test_ends_of_several_templates(llama2, llama3):
    written = llama3.folder / "chat_template.jinja"
    written.write_text("{% for m in messages %}{{ m['content'] + '<|end_header_id|>' }}{% endfor %}")
    words = tokenizer_lib.load_tokenizer(llama3.folder)
    asked = ["folder", "llava_llama_3"]
    ids = [words.added[text].id for text in ("<|eot_id|>", "<|end_header_id|>")]
    assert choice.ends(asked, jinja_template.DATE, LLAMA, words) == tuple(ids)
    assert choice.ends(["vicuna_v1"], jinja_template.DATE, LLAVA, llama2) == (llama2.eos_id,)
    written.write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")  # no end
    assert choice.ends(["folder"], jinja_template.DATE, LLAMA, words) == (words.eos_id,)
