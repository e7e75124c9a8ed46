"""Finds the strings that end an answer in text that arrives piece by piece. Knows nothing of tokens."""

from collections.abc import Sequence

__all__ = ["StopStrings"]


class StopStrings:
    """Lets text through up to the first stop string; text that may still become one is held back."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(stop)
        self._held = ""
        self.found = False

    def feed(self, text: str) -> str:
        """The text that is certainly part of the answer. Once `found`, there is no more."""
        assert not self.found
        self._held += text
        places = [place for one in self._stop if (place := self._held.find(one)) >= 0]
        if places:
            self.found = True
            return self._release(min(places))
        return self._release(len(self._held) - self._beginning_length())

    def finish(self) -> str:
        """What was held back, when the answer ends without a stop string."""
        return self._release(len(self._held))

    def _beginning_length(self) -> int:
        """Length of the longest end of the held text with which a stop string begins."""
        longest = 0
        for one in self._stop:
            for length in range(min(len(one) - 1, len(self._held)), longest, -1):
                if one.startswith(self._held[-length:]):
                    longest = length
                    break
        return longest

    def _release(self, length: int) -> str:
        released, self._held = self._held[:length], self._held[length:]
        return released
