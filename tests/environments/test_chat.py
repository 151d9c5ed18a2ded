"""Chat templates render as Hugging Face renders them, and a hostile one gets nowhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lineal.environments import chat
from lineal.environments.chat import ChatTemplate, load_chat_template, render
from lineal.environments.text import text_task
from lineal.environments.worker import Limits
from lineal.errors import ModelError, UsageError

pytest.importorskip("jinja2", reason="chat templates need the [hf] extra")

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
    "message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
STRICT = """{{ bos_token }}
{%- for message in messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('roles must alternate') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
[INST] {{ message['content'] }} [/INST]
    {%- elif message['role'] == 'assistant' %}
        {% generation %}{{ message['content'] }}{{ eos_token }}{% endgeneration %}
    {%- else %}
        {%- continue %}
    {%- endif %}
{% endfor %}"""
TOOLS = """{% set ns = namespace(count=0) %}
{% for message in messages %}
  {% set ns.count = ns.count + 1 %}
  {% if ns.count > 3 %}{% break %}{% endif %}
{{ message | tojson(indent=2) }} {{ dict(a=ns.count) | tojson }}
{% endfor %}
{{ documents is defined }}"""
TALK = [
    {"role": "user", "content": "héllo <b>&\n"},
    {"role": "assistant", "content": "  hi  "},
    {"role": "user", "content": "again"},
]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
QUICK = Limits(seconds=0.5, memory_bytes=1 << 29)


def test_a_conversation_is_rendered() -> None:
    text = render(CHATML, TALK[:1])
    assert text == "<|im_start|>user\nhéllo <b>&\n<|im_end|>\n<|im_start|>assistant\n"
    assert render(CHATML, TALK[:1], add_generation_prompt=False).endswith("<|im_end|>\n")


@pytest.mark.parametrize("source", [CHATML, LLAMA, STRICT, TOOLS])
def test_it_renders_as_hugging_face_does(source: str) -> None:
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    theirs, _ = utils.render_jinja_template(
        [TALK], chat_template=source, add_generation_prompt=True, **TOKENS
    )
    with ChatTemplate(source, TOKENS) as template:
        assert template.render([TALK]) == theirs


def test_many_conversations_keep_their_order() -> None:
    talks = [[{"role": "user", "content": str(n)}] for n in range(chat.BATCH * 2 + 5)]
    with ChatTemplate("{{ messages[0].content }}") as template:
        assert template.render(talks) == [str(n) for n in range(len(talks))]
        assert template.render([]) == []


def test_the_date_is_fixed_when_told() -> None:
    with ChatTemplate("{{ strftime_now('%Y-%m-%d') }}", now="2024-05-06T07:08:09") as template:
        assert template.render([TALK]) == ["2024-05-06"]


def test_variables_reach_the_template() -> None:
    with ChatTemplate("{{ enable_thinking }}{{ missing }}") as template:
        assert template.render([TALK], enable_thinking=False) == ["False"]


ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__.__base__ }}",
    "{{ ''|attr('__class__')|attr('__mro__') }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ lipsum.__globals__['os'].system('id') }}",
    "{{ self.__init__.__globals__ }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__self__.__class__ }}",
    "{{ dict.__class__.__init__.__globals__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ namespace(__class__=1) }}",
    "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "{{ '{0.__class__.__mro__}'.format_map({'0': messages}) }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update({'role': 'system'}) }}",
    "{{ ''|attr('__class__') }}",
    "{% set _ = messages[0].pop('role') %}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os }}",
    "{% extends '/etc/passwd' %}",
]


@pytest.fixture(scope="module")
def sandbox() -> ChatTemplate:
    return ChatTemplate("", limits=Limits(seconds=20.0, memory_bytes=1 << 29))


@pytest.mark.parametrize("source", ESCAPES)
def test_a_template_cannot_reach_python_or_change_the_messages(sandbox: ChatTemplate, source: str) -> None:
    sandbox.source = source
    with pytest.raises(ModelError, match=r"refused conversation 0: \w+"):
        sandbox.render([TALK])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{% for i in range(10**9) %}{% endfor %}", "OverflowError"),
        ("{{ 'a' * 10**10 }}", "too much memory"),
        ("{{ 'a'.ljust(10**10) }}", "too much memory"),
        ("{{ 'a'|center(10**10) }}", "too much memory"),
        ("{{ '%10000000000d' % 1 }}", r"too much memory|OverflowError|ValueError"),
        (
            "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
            "memory",
        ),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "calls itself without end"),
        ("{% for i in range(99999) %}{{ 'x' * 100 }}{% endfor %}", r"writes more than \d+ characters"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{% if %}", "TemplateSyntaxError"),
        ("{{ messages[7].content }}", "UndefinedError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
    ],
)
def test_a_template_that_asks_for_too_much_is_refused(
    sandbox: ChatTemplate, source: str, message: str
) -> None:
    sandbox.source = source
    with pytest.raises(ModelError, match=message):
        sandbox.render([TALK])


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{{ 9 ** (9 ** 9) }}",
    ],
)
def test_a_template_without_end_is_stopped_at_its_deadline(source: str) -> None:
    with ChatTemplate(source, limits=QUICK) as template, pytest.raises(ModelError, match="it was stopped"):
        template.render([TALK])


def test_the_guilty_conversation_is_named() -> None:
    with ChatTemplate(STRICT, TOKENS) as template, pytest.raises(ModelError, match="conversation 101"):
        template.render([TALK] * 101 + [TALK[1:]])


def test_messages_that_are_no_plain_values_are_refused() -> None:
    with ChatTemplate(CHATML) as template, pytest.raises(ModelError, match="plain text"):
        template.render([[{"role": "user", "content": object()}]])


def test_a_huge_template_is_not_read() -> None:
    with pytest.raises(ModelError, match="are read at most"):
        ChatTemplate("x" * (chat.LONGEST_TEMPLATE + 1))


@pytest.mark.parametrize(
    ("version", "message"), [(None, r"pip install 'lineal\[hf\]'"), ("3.1.5", "3.1.6 or newer")]
)
def test_without_a_safe_jinja_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, version: str | None, message: str
) -> None:
    def installed(_: str) -> str:
        if version is None:
            raise chat.metadata.PackageNotFoundError
        return version

    monkeypatch.setattr(chat.metadata, "version", installed)
    with pytest.raises(UsageError, match=message):
        ChatTemplate(CHATML)


def write(folder: Path, config: object, jinja: str | None = None) -> Path:
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if jinja is not None:
        (folder / "chat_template.jinja").write_text(jinja)
    return folder


def test_a_folders_template_and_tokens_are_found(tmp_path: Path) -> None:
    config = {"chat_template": "old", "bos_token": {"content": "<s>", "lstrip": False}, "eos_token": "</s>"}
    assert load_chat_template(write(tmp_path, config)).source == "old"
    template = load_chat_template(write(tmp_path, config, "{{ bos_token }}{{ eos_token }}"))
    with template:
        assert template.render([TALK]) == ["<s></s>"]


def test_of_several_templates_the_default_is_taken(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "a"}, {"name": "default", "template": "b"}]
    assert load_chat_template(write(tmp_path, {"chat_template": named})).source == "b"


@pytest.mark.parametrize("config", [{}, {"chat_template": None}, {"chat_template": [{"name": "x"}]}])
def test_a_model_without_a_template_says_so(tmp_path: Path, config: object) -> None:
    with pytest.raises(UsageError, match=r"no chat template.*leave out --chat"):
        load_chat_template(write(tmp_path, config))
    with pytest.raises(UsageError, match="no chat template"):
        load_chat_template(tmp_path / "elsewhere")


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"tokenizer_config.json is not JSON"):
        load_chat_template(tmp_path)
    with pytest.raises(ModelError, match="no JSON object"):
        load_chat_template(write(tmp_path, []))
    write(tmp_path, {})
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(ModelError, match="UTF-8"):
        load_chat_template(tmp_path)


def test_a_chat_task_is_rendered_by_a_template() -> None:
    with ChatTemplate(CHATML) as template:
        task = text_task([{"messages": TALK[:2]}], template=template, held_out=0.0)
    assert task.train[0].prompt.endswith("<|im_start|>assistant\n") and task.train[0].completion == "  hi  "
