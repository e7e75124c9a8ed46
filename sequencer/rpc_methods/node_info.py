"""eth_chainId, eth_config and the like; net_, web3_, rpc_: what the node says of itself."""

import zlib
from collections.abc import Mapping

from core.fork import BLOB_PARAMETERS, ChainConfig, Fork
from core.hashing import keccak256
from core.system_contracts import BEACON_ROOTS, CONSOLIDATION_REQUESTS, HISTORY, WITHDRAWAL_REQUESTS
from sequencer.jsonrpc.hexadecimal import data, quantity
from sequencer.jsonrpc.method import Json, Method, light
from sequencer.jsonrpc.parameters import Parameters
from sequencer.rpc_methods.services import Services

__all__ = ["PRECOMPILES", "NodeInfoMethods", "active_precompiles"]

PRECOMPILES: Mapping[str, tuple[int, Fork]] = {
    "ECREC": (0x01, Fork.FRONTIER),
    "SHA256": (0x02, Fork.FRONTIER),
    "RIPEMD160": (0x03, Fork.FRONTIER),
    "ID": (0x04, Fork.FRONTIER),
    "MODEXP": (0x05, Fork.BYZANTIUM),
    "BN254_ADD": (0x06, Fork.BYZANTIUM),
    "BN254_MUL": (0x07, Fork.BYZANTIUM),
    "BN254_PAIRING": (0x08, Fork.BYZANTIUM),
    "BLAKE2F": (0x09, Fork.ISTANBUL),
    "KZG_POINT_EVALUATION": (0x0A, Fork.CANCUN),
    "BLS12_G1ADD": (0x0B, Fork.PRAGUE),
    "BLS12_G1MSM": (0x0C, Fork.PRAGUE),
    "BLS12_G2ADD": (0x0D, Fork.PRAGUE),
    "BLS12_G2MSM": (0x0E, Fork.PRAGUE),
    "BLS12_PAIRING_CHECK": (0x0F, Fork.PRAGUE),
    "BLS12_MAP_FP_TO_G1": (0x10, Fork.PRAGUE),
    "BLS12_MAP_FP2_TO_G2": (0x11, Fork.PRAGUE),
    "P256VERIFY": (0x100, Fork.OSAKA),
}
"""EIP-7910's names: address and the fork that brought it."""

_SYSTEM_CONTRACTS = {
    "BEACON_ROOTS_ADDRESS": (BEACON_ROOTS, Fork.CANCUN),
    "HISTORY_STORAGE_ADDRESS": (HISTORY, Fork.PRAGUE),
    "WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS": (WITHDRAWAL_REQUESTS, Fork.PRAGUE),
    "CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS": (CONSOLIDATION_REQUESTS, Fork.PRAGUE),
}
_NAMESPACES = ("debug", "eth", "net", "rpc", "txpool", "web3")


def active_precompiles(fork: Fork) -> frozenset[bytes]:
    """The addresses of the precompiled contracts of a fork."""
    return frozenset(number.to_bytes(20, "big") for number, since in PRECOMPILES.values() if fork >= since)


class NodeInfoMethods:
    """Facts about the chain and this node."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def methods(self) -> Mapping[str, Method]:
        """Name to method."""
        return {
            "eth_chainId": light(self.chain_id),
            "eth_syncing": light(self.syncing),
            "eth_accounts": light(self.accounts),
            "eth_config": light(self.config),
            "eth_capabilities": light(self.capabilities),
            "net_version": light(self.network_version),
            "net_listening": light(self.listening),
            "net_peerCount": light(self.peer_count),
            "web3_clientVersion": light(self.client_version),
            "web3_sha3": light(self.sha3),
            "rpc_modules": light(self.modules),
        }

    def chain_id(self, parameters: Parameters) -> Json:
        parameters.at_most(0)
        return quantity(self._services.chain.config.chain_id)

    def syncing(self, parameters: Parameters) -> Json:
        parameters.at_most(0)
        return False

    def accounts(self, parameters: Parameters) -> Json:
        parameters.at_most(0)
        return []  # keys never live here

    def network_version(self, parameters: Parameters) -> Json:
        parameters.at_most(0)
        return str(self._services.chain.config.chain_id)

    def listening(self, parameters: Parameters) -> Json:
        parameters.at_most(0)
        return True

    def peer_count(self, parameters: Parameters) -> Json:
        parameters.at_most(0)
        return quantity(0)

    def client_version(self, parameters: Parameters) -> Json:
        parameters.at_most(0)
        return self._services.client_version

    def sha3(self, parameters: Parameters) -> Json:
        parameters.at_most(1)
        return data(keccak256(parameters.data(0)))

    def modules(self, parameters: Parameters) -> Json:
        parameters.at_most(0)
        return dict.fromkeys(_NAMESPACES, "1.0")

    def config(self, parameters: Parameters) -> Json:
        """EIP-7910: the rules now, the next ones, and the last that are scheduled."""
        parameters.at_most(0)
        config = self._services.chain.config
        head = self._services.chain.head().block.header
        times = sorted({at for at, _ in config.time_forks})
        passed = [at for at in times if at <= head.timestamp]
        coming = [at for at in times if at > head.timestamp]
        return {
            "current": self._rules_from(config, passed[-1] if passed else 0),
            "next": self._rules_from(config, coming[0]) if coming else None,
            "last": self._rules_from(config, coming[-1]) if coming else None,
        }

    def _rules_from(self, config: ChainConfig, activation: int) -> Json:
        fork = config.fork_at(self._services.chain.head().number, activation)
        blobs = BLOB_PARAMETERS.get(fork)
        return {
            "activationTime": activation,
            "blobSchedule": blobs
            and {
                "baseFeeUpdateFraction": blobs.base_fee_update_fraction,
                "max": blobs.max_blobs,
                "target": blobs.target_blobs,
            },
            "chainId": quantity(config.chain_id),
            "forkId": data(self._fork_id(config, activation)),
            "precompiles": {
                name: data(number.to_bytes(20, "big")) for name, (number, since) in PRECOMPILES.items() if fork >= since
            },
            "systemContracts": {
                name: data(contract.address) for name, (contract, since) in _SYSTEM_CONTRACTS.items() if fork >= since
            },
        }

    def _fork_id(self, config: ChainConfig, activation: int) -> bytes:
        """EIP-2124 and EIP-6122: CRC-32 of the genesis hash and the activations up to this one."""
        genesis = self._services.chain.block(0)
        assert genesis is not None
        blocks = sorted({at for at, _ in config.block_forks if at > 0})
        times = sorted({at for at, _ in config.time_forks if genesis.block.header.timestamp < at <= activation})
        checksum = zlib.crc32(genesis.hash)
        for at in [*blocks, *times]:
            checksum = zlib.crc32(at.to_bytes(8, "big"), checksum)
        return checksum.to_bytes(4, "big")

    def capabilities(self, parameters: Parameters) -> Json:
        """What history this node can answer for."""
        parameters.at_most(0)
        head = self._services.chain.head()
        whole = {"disabled": False, "oldestBlock": quantity(0)}
        kept = self._services.states_kept
        state: Json = whole
        if kept:
            window = {"type": "window", "retentionBlocks": quantity(kept)}
            oldest = quantity(max(0, head.number + 1 - kept))
            state = {"disabled": False, "oldestBlock": oldest, "deleteStrategy": window}
        return {
            "head": {"number": quantity(head.number), "hash": data(head.hash)},
            "state": state,
            "tx": whole,
            "logs": whole,
            "receipts": whole,
            "blocks": whole,
            "stateproofs": state,
        }
