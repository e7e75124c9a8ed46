"""Text to tokens and back, and chats to prompts, as the model's own files say. Knows nothing of weights.

A token stream is decoded incrementally: bytes of an unfinished character wait for the next token.
"""

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Final

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from core.jobs.request import Message
from worker.inference.chat_template import ChatTemplate
from worker.inference.errors import CheckpointError, ModelCorrupt, RequestError

__all__ = ["ChatTokenizer", "TokenStream", "byte_pair_tokenizer"]

REPLACEMENT: Final = "\ufffd"
_NONCHARACTERS: Final = tuple(chr(point) for point in range(0xFDD0, 0xFDF0))

# How llama.cpp names the pre-tokenizers of byte-level BPE vocabularies. The expressions are those of the models' own
# tokenizer.json files.
_SPLIT_LLAMA3: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLIT_QWEN2: Final = _SPLIT_LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


class ChatTokenizer:
    """A model's tokenizer and chat template. Raises ModelCorrupt or ModelUnsupported when either cannot be used."""

    def __init__(self, tokenizer: bytes, chat_template: str) -> None:
        try:
            self._tokenizer = Tokenizer.from_str(tokenizer.decode())
        except Exception as error:  # the library raises nothing narrower
            raise ModelCorrupt(f"the tokenizer cannot be read: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        added = self._tokenizer.get_added_tokens_decoder().items()
        self._special = {token: one.content for token, one in added if one.special}
        # An exact model's template names its own special tokens (checkpoint.self_contained_template).
        self._template = ChatTemplate(chat_template, bos_token="", eos_token="") if chat_template else None

    @cached_property
    def _plain(self) -> Tokenizer:
        """The same tokenizer, which reads special tokens as the text that they are; few conversations need it."""
        plain = Tokenizer.from_str(self._tokenizer.to_str())
        plain.encode_special_tokens = True  # so the library calls it
        return plain

    @property
    def vocabulary(self) -> int:
        """Number of tokens that the tokenizer knows; a model's vocabulary may be padded beyond it."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str) -> list[int]:
        """Tokens of plain text, with what the tokenizer adds of itself (a begin token, for some models)."""
        return list(self._tokenizer.encode(_whole(text)).ids)

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Tokens of a conversation, up to the assistant's answer. Raises RequestError where the template refuses it.

        Every special token is one that the template wrote. Where a message spells one, its spelling is encoded as the
        text that it is: nobody can end a turn, or speak in another role, by writing so.
        """
        mark = _unused_noncharacter(messages)
        spelled: list[str] = []
        quoted = [Message(one.role, self._quoted(_whole(one.content), mark, spelled)) for one in messages]
        text = self.render(quoted)
        if not spelled:
            return list(self._tokenizer.encode(text, add_special_tokens=False).ids)
        return self._encode_quoted(text, mark, spelled)

    def _quoted(self, content: str, mark: str, spelled: list[str]) -> str:
        """The content with each special token that it spells replaced by its number in `spelled`, between marks."""
        encoding = self._tokenizer.encode(content, add_special_tokens=False)
        parts, end = [], 0
        for token, (start, stop) in zip(encoding.ids, encoding.offsets, strict=True):
            if token in self._special:
                parts.append(f"{content[end:start]}{mark}{len(spelled)}{mark}")
                spelled.append(content[start:stop])
                end = stop
        return "".join(parts) + content[end:]

    def _encode_quoted(self, text: str, mark: str, spelled: list[str]) -> list[int]:
        """Tokens of a rendered conversation: the special tokens that stand in it, and what lies between as text."""
        tokens: list[int] = []
        numbers = {content: token for token, content in self._special.items()}
        longest_first = sorted(numbers, key=len, reverse=True)
        for part in re.split(f"({'|'.join(map(re.escape, longest_first))})", text):
            if part in numbers:
                tokens.append(numbers[part])
            else:
                whole = re.sub(f"{mark}([0-9]+){mark}", lambda found: spelled[int(found[1])], part)
                tokens += self._plain.encode(whole, add_special_tokens=False).ids
        return tokens

    def render(self, messages: Sequence[Message]) -> str:
        """The conversation as the text that the model was trained on."""
        if self._template is None:
            raise RequestError("this model has no chat template; send a plain prompt")
        return _whole(self._template.render(messages))

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of tokens, special tokens left out; bytes that are no UTF-8 become U+FFFD."""
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True))


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
        # Bytes that are no character yet decode as U+FFFD; what follows may complete them.
        return "" if text.endswith(REPLACEMENT) else self._release(text)

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


def _unused_noncharacter(messages: Sequence[Message]) -> str:
    """A code point that Unicode never assigns and that no message has. Raises RequestError when they have them all."""
    for mark in _NONCHARACTERS:
        if not any(mark in one.content for one in messages):
            return mark
    raise RequestError("the messages hold every one of Unicode's noncharacters U+FDD0 to U+FDEF; leave one out")


def _whole(text: str) -> str:
    """The text, if it can be written as UTF-8 (JSON can carry lone surrogates). Raises RequestError."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(f"the text is not valid Unicode at character {error.start}") from error
    return text
