"""The other half of inference_cpu.py: llama.cpp at Q8_0, run by an interpreter with llama-cpp-python.

    python _rival_llama.py CHECKPOINT.gguf Q8_0.gguf

Quantises the checkpoint to Q8_0 if that has not been done, then answers one JSON request a line: the tokens of the
prompt, how many tokens to generate, the number of threads. It answers the times of both phases and the tokens.
"""

import ctypes
import json
import sys
import time
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

CONTEXT = 1024


def quantised(checkpoint: Path, target: Path) -> Path:
    if not target.exists():
        parameters = llama_cpp.llama_model_quantize_default_params()
        parameters.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0
        parameters.allow_requantize = True  # the packaged checkpoint is Q4_1 itself
        failed = llama_cpp.llama_model_quantize(
            str(checkpoint).encode(), str(target).encode(), ctypes.byref(parameters)
        )
        assert not failed, f"llama.cpp cannot quantise {checkpoint}"
    return target


class Rival:
    def __init__(self, path: Path) -> None:
        parameters = llama_cpp.llama_model_default_params()
        parameters.n_gpu_layers = 0
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
        vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(vocabulary)
        self._contexts: dict[int, Any] = {}

    def _context(self, threads: int) -> Any:
        if threads not in self._contexts:
            parameters = llama_cpp.llama_context_default_params()
            parameters.n_ctx, parameters.n_batch, parameters.n_ubatch = CONTEXT, 512, 512
            parameters.n_threads = parameters.n_threads_batch = threads
            self._contexts[threads] = llama_cpp.llama_init_from_model(self._model, parameters)
        return self._contexts[threads]

    def _next(self, context: Any, tokens: list[int]) -> int:
        array = (llama_cpp.llama_token * len(tokens))(*tokens)
        assert llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(array, len(tokens))) == 0
        logits = llama_cpp.llama_get_logits_ith(context, -1)
        return int(np.ctypeslib.as_array(logits, (self._vocabulary,)).argmax())

    def answer(self, prompt: list[int], generate: int, threads: int) -> dict[str, Any]:
        context = self._context(threads)
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        started = time.perf_counter(), time.process_time()
        tokens = [self._next(context, prompt)]
        middle = time.perf_counter(), time.process_time()
        steps = [middle[0]]
        for _ in range(generate):
            tokens.append(self._next(context, tokens[-1:]))
            steps.append(time.perf_counter())
        ended = time.perf_counter(), time.process_time()
        return {
            "prompt_s": [b - a for a, b in zip(started, middle, strict=True)],
            "generate_s": [b - a for a, b in zip(middle, ended, strict=True)],
            "steps_s": np.diff(steps).tolist(),
            "tokens": tokens,
        }


def main() -> None:
    rival = Rival(quantised(Path(sys.argv[1]), Path(sys.argv[2])))
    for line in sys.stdin:
        sys.stdout.write(json.dumps(rival.answer(**json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
