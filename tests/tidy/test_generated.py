"""Generated protobuf is what its sources give. (Contract artifacts: test_contracts.py.)"""

from protos.generate import stale_files


def test_protobuf_is_up_to_date() -> None:
    assert stale_files() == [], "run `make protos`"
