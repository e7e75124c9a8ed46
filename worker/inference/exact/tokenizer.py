"""Text to tokens and back, and chats to prompts, as the model's own files say. Knows nothing of weights.

Templates come with models from anywhere, so they run in Jinja's sandbox. A token stream is decoded incrementally:
bytes of an unfinished character wait for the next token.
"""

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from worker.inference.errors import CheckpointError, ModelCorrupt, RequestError

__all__ = ["ChatTokenizer", "TokenStream", "byte_pair_tokenizer"]

Messages = Sequence[Mapping[str, Any]]

REPLACEMENT: Final = "\ufffd"
# An unfinished character is at most three bytes, and a byte is at least a token.
HELD_TOKENS_MAX: Final = 4

# How llama.cpp names the pre-tokenizers of byte-level BPE vocabularies. The expressions are those of the models' own
# tokenizer.json files.
_SPLIT_LLAMA3: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLIT_QWEN2: Final = _SPLIT_LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


class ChatTokenizer:
    """A model's tokenizer and chat template. Raises ModelCorrupt when either cannot be used."""

    def __init__(self, tokenizer: bytes, chat_template: str) -> None:
        try:
            self._tokenizer = Tokenizer.from_str(tokenizer.decode())
        except Exception as error:  # the library raises nothing narrower
            raise ModelCorrupt(f"the tokenizer cannot be read: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _raise_template_error
        environment.filters["tojson"] = _to_json
        try:
            self._template = environment.from_string(chat_template) if chat_template else None
        except TemplateError as error:
            raise ModelCorrupt(f"the chat template cannot be read: {error}") from error

    @property
    def vocabulary(self) -> int:
        """Number of tokens that the tokenizer knows; a model's vocabulary may be padded beyond it."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str) -> list[int]:
        """Tokens of plain text, with what the tokenizer adds of itself (a begin token, for some models)."""
        return list(self._tokenizer.encode(_whole(text)).ids)

    def encode_chat(self, messages: Messages, *, today: datetime.date, **variables: Any) -> list[int]:
        """Tokens of a conversation, up to the assistant's answer. Raises RequestError where the template refuses."""
        text = self.render(messages, today=today, **variables)
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def render(self, messages: Messages, *, today: datetime.date, **variables: Any) -> str:
        """The conversation as the text that the model was trained on. `today` is what the template may print."""
        if self._template is None:
            raise RequestError("this model has no chat template; send a plain prompt")
        try:
            return _whole(
                self._template.render(
                    messages=messages,
                    add_generation_prompt=True,
                    strftime_now=today.strftime,
                    bos_token=self._special("bos"),
                    eos_token=self._special("eos"),
                    **variables,
                )
            )
        except (TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
            raise RequestError(f"the chat template refuses these messages: {error}") from error

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of tokens, special tokens left out; bytes that are no UTF-8 become U+FFFD."""
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True))

    def _special(self, name: str) -> str:
        """The text of the begin or end token, as far as the tokenizer's own special tokens tell."""
        spellings = {"bos": ("<s>", "<|begin_of_text|>", "<|im_start|>"), "eos": ("</s>", "<|eot_id|>", "<|im_end|>")}
        known = (token for token in spellings[name] if self._tokenizer.token_to_id(token) is not None)
        return next(known, "")


class TokenStream:
    """Text of tokens as they arrive: `feed` returns what has become certain, `finish` the rest.

    Everything returned, joined, is `decode` of all the tokens.
    """

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self._tokenizer = tokenizer
        self._context: list[int] = []  # the last finished tokens: what follows may be spelled differently after them
        self._held: list[int] = []

    def feed(self, token: int) -> str:
        self._held.append(token)
        text = self._new_text()
        if text.endswith(REPLACEMENT) and len(self._held) < HELD_TOKENS_MAX:
            return ""
        return self._release(text)

    def finish(self) -> str:
        return self._release(self._new_text())

    def _new_text(self) -> str:
        before = self._tokenizer.decode(self._context)
        return self._tokenizer.decode([*self._context, *self._held])[len(before) :]

    def _release(self, text: str) -> str:
        self._context, self._held = self._held or self._context, []
        return text


def byte_pair_tokenizer(
    tokens: Sequence[str], merges: Sequence[str], pre: str, special: Sequence[str], added: Sequence[str]
) -> bytes:
    """tokenizer.json of a byte-level BPE vocabulary, as GGUF files describe it (`pre` is llama.cpp's name of the
    pre-tokenizer). Raises CheckpointError for vocabularies that do not fit together.
    """
    vocabulary = {token: index for index, token in enumerate(tokens)}
    pairs = [(first, second) for first, _, second in (merge.partition(" ") for merge in merges)]
    if len(vocabulary) != len(tokens) or not all(second for _, second in pairs):
        raise CheckpointError("the tokenizer's vocabulary has a token twice, or a merge that is no pair")
    try:
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    except Exception as error:  # the library raises nothing narrower
        raise CheckpointError(f"the tokenizer's merges do not fit its vocabulary: {error}") from error
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    if pre == "smollm":
        first = pre_tokenizers.Digits(individual_digits=True)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([first, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    elif pre == "llama-bpe":
        split = pre_tokenizers.Split(Regex(_SPLIT_LLAMA3), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    elif pre == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
        split = pre_tokenizers.Split(Regex(_SPLIT_QWEN2), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    elif pre in ("default", "gpt-2"):
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        raise CheckpointError(f"the pre-tokenizer {pre!r} is not known; put the model's tokenizer.json beside the file")
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in added])
    return tokenizer.to_str().encode()


def _whole(text: str) -> str:
    """The text, if it can be written as UTF-8 (JSON can carry lone surrogates). Raises RequestError."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(f"the text is not valid Unicode at character {error.start}") from error
    return text


def _raise_template_error(message: str) -> None:
    raise TemplateError(message)


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)
