"""Turns a conversation into the prompt that a model was trained on, by the template that ships with the model.

Templates are Jinja, as Hugging Face renders them, and come from whoever made the file: they run in a sandbox. Knows
nothing of tokens or engines.
"""

from collections.abc import Sequence
from typing import NoReturn

from jinja2 import TemplateError, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from core.jobs.request import Message, Role
from worker.inference.errors import ModelUnsupported, RequestError

__all__ = ["ChatTemplate", "ConversationRefused"]


class ConversationRefused(RequestError):
    """The model's template does not take this conversation (roles out of turn, say)."""

    code = "conversation_refused"


class ChatTemplate:
    """A model's template.

    The prompt holds no words that the client did not write: many templates slip in a system message of their own when
    there is none, which no receipt would show, so an empty one is given. (SmolLM2-135M's own default makes its 4-bit
    weights answer "What is the capital of France?" with nonsense.) Templates that know no system role are left alone.
    """

    def __init__(self, source: str, *, bos_token: str, eos_token: str) -> None:
        """Raises ModelUnsupported when the template is not valid Jinja or renders not even one user message."""
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = _raise_exception
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        try:
            self._template = environment.from_string(source)
        except TemplateSyntaxError as error:
            raise ModelUnsupported(f"the model's chat template is not valid: {error}") from error
        self._takes_system = True
        question = (Message(Role.USER, "?"),)
        try:
            self.render(question)
        except ConversationRefused:
            self._takes_system = False
            try:
                self.render(question)
            except ConversationRefused as error:
                raise ModelUnsupported(f"the model's chat template fails: {error}") from error

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt that ends where the assistant's next turn begins."""
        turns = [{"role": message.role.value, "content": message.content} for message in messages]
        if self._takes_system and messages[0].role != Role.SYSTEM:
            turns.insert(0, {"role": Role.SYSTEM.value, "content": ""})
        try:
            return self._template.render(messages=turns, add_generation_prompt=True, **self._tokens)
        except (TemplateError, TypeError) as error:
            raise ConversationRefused(f"the model does not take this conversation: {error}") from error


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)
