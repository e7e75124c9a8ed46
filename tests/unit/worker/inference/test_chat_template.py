"""Chat templates: the prompt is what the model was trained on, and nothing that the client did not say."""

import pytest

from core.jobs.request import Message, Role
from worker.inference.chat_template import ChatTemplate, ConversationRefused
from worker.inference.errors import ModelUnsupported

# SmolLM2's own, with the default system message that we keep out.
CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are SmolLM<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
NO_SYSTEM = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "[{{ message['role'] }}] {{ message['content'] }}{{ eos_token }}{% endfor %}"
)
USER = Message(Role.USER, "Hi")


def template(source: str) -> ChatTemplate:
    return ChatTemplate(source, bos_token="<s>", eos_token="</s>")


def test_no_words_but_the_clients() -> None:
    prompt = template(CHATML).render((USER,))
    assert prompt == ("<|im_start|>system\n<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


def test_the_clients_system_message_stands_first() -> None:
    prompt = template(CHATML).render((Message(Role.SYSTEM, "Be brief."), USER))
    assert prompt.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi")


def test_a_template_without_a_system_role_is_left_alone() -> None:
    plain = template(NO_SYSTEM)
    assert plain.render((USER,)) == "<s>[user] Hi</s>"
    with pytest.raises(ConversationRefused, match="System role not supported"):
        plain.render((Message(Role.SYSTEM, "Be brief."), USER))


@pytest.mark.parametrize(
    "source",
    [
        "{% for",
        "{{ raise_exception('never') }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
    ],
)
def test_a_template_that_is_broken_or_reaches_out_is_refused(source: str) -> None:
    with pytest.raises(ModelUnsupported):
        template(source)
