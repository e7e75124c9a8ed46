"""How an order names an exact model and a request to it, so that the answer can be disputed on chain."""

from core.jobs.exact import ExactTerms, exact_model_hash, prompt_prefix
from core.jobs.request import JobRequest
from core.jobs.request import Sampling as RequestedSampling
from worker.inference.errors import ModelNotFound
from worker.inference.exact.model import ExactModel, ModelStore
from worker.inference.exact.sampling import Q16_ONE, TEMPERATURE_Q16_MIN, Sampling
from worker.inference.exact.specification import Header
from worker.inference.exact.tokenizer import ChatTokenizer
from zk.program import Programs
from zk.trace import tokens_hash

__all__ = ["exact_terms", "find_ordered", "model_hash", "sampling_of", "sampling_words", "terms_of"]


def model_hash(root: bytes, header: Header) -> bytes:
    """What orders and receipts name a model by."""
    return exact_model_hash(root, Programs(header).root)


def find_ordered(store: ModelStore, name: bytes) -> ExactModel:
    """The model that orders name so. Raises ModelNotFound."""
    for directory in store.models():
        model = ExactModel(directory)
        if model_hash(model.root, model.header) == name:
            return model
    raise ModelNotFound(f"no model here is called 0x{name.hex()} in orders")


def sampling_of(requested: RequestedSampling, vocabulary: int) -> Sampling:
    """The specification's integers (section 5) for thousandths: n / 1000 in Q16, rounded half up, into range."""
    temperature = (requested.temperature_milli * Q16_ONE + 500) // 1000
    return Sampling(
        temperature_q16=max(temperature, TEMPERATURE_Q16_MIN) if temperature else 0,
        top_k=min(requested.top_k, vocabulary),
        top_p_q16=max(1, (requested.top_p_milli * Q16_ONE + 500) // 1000),
        seed=requested.seed,
    )


def sampling_words(sampling: Sampling) -> tuple[int, int, int, int, int]:
    """The words that a statement, and an order, have for a sampling."""
    return (sampling.temperature_q16, sampling.top_k, sampling.top_p_q16, sampling.seed, sampling.choice)


def terms_of(prompt: list[int], sampling: Sampling, salt: bytes) -> ExactTerms:
    """What an order says of a prompt's tokens and their sampling."""
    return ExactTerms(tokens_hash(prompt, prompt_prefix(salt)), len(prompt), sampling_words(sampling))


def exact_terms(model: ExactModel, request: JobRequest, salt: bytes) -> ExactTerms:
    """The terms of a request to a model under its salt, for whoever orders. Raises what the tokenizer raises for a
    hopeless prompt."""
    prompt = ChatTokenizer(model.tokenizer, model.chat_template).encode_chat(request.messages)
    return terms_of(prompt, sampling_of(request.sampling, model.header.vocabulary), salt)
