from hypothesis import given
from hypothesis import strategies as st

from worker.inference.stop_strings import StopStrings

SHORT = st.text(alphabet="ab", min_size=1, max_size=4)


@given(pieces=st.lists(st.text(alphabet="abc", max_size=4), max_size=12), stop=st.lists(SHORT, max_size=4))
def test_cuts_where_a_search_of_the_whole_text_would(pieces: list[str], stop: list[str]) -> None:
    stopper = StopStrings(stop)
    passed, seen = "", ""
    for piece in pieces:
        seen += piece
        passed += stopper.feed(piece)
        if stopper.found:
            break
    places = [seen.find(one) for one in stop if one in seen]
    assert stopper.found == bool(places)
    if places:
        assert passed == seen[: min(places)]
    else:
        assert passed + stopper.finish() == seen


def test_text_that_cannot_become_a_stop_string_is_not_held() -> None:
    stopper = StopStrings(["END"])
    assert stopper.feed("the E") == "the "
    assert stopper.feed("ast") == "East"
