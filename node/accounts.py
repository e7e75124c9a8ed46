"""The development accounts of a local network: the ten that anvil and hardhat have, from their published mnemonic.

Their keys are public. They hold test money only, and only a testnet's genesis funds them.
"""

from dataclasses import dataclass
from functools import cache

from eth_account import Account

__all__ = ["DEVELOPMENT_BALANCE_WEI", "DEVELOPMENT_MNEMONIC", "DevelopmentAccount", "development_accounts"]

DEVELOPMENT_MNEMONIC = "test test test test test test test test test test test junk"
DEVELOPMENT_BALANCE_WEI = 10_000 * 10**18
DEVELOPMENT_ACCOUNT_COUNT = 10


@dataclass(frozen=True, slots=True)
class DevelopmentAccount:
    """A prefunded account: 20-byte address, 32-byte secret key."""

    address: bytes
    secret_key: bytes


@cache
def development_accounts() -> tuple[DevelopmentAccount, ...]:
    """The accounts at BIP-44 path m/44'/60'/0'/0/i."""
    Account.enable_unaudited_hdwallet_features()
    keys = [
        Account.from_mnemonic(DEVELOPMENT_MNEMONIC, account_path=f"m/44'/60'/0'/0/{index}")
        for index in range(DEVELOPMENT_ACCOUNT_COUNT)
    ]
    return tuple(DevelopmentAccount(bytes.fromhex(key.address[2:]), bytes(key.key)) for key in keys)
