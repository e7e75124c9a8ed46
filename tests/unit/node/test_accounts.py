"""The development accounts are those of the published mnemonic."""

from eth_account import Account

from node.accounts import DEVELOPMENT_MNEMONIC, development_accounts


def test_keys_follow_from_the_mnemonic() -> None:
    Account.enable_unaudited_hdwallet_features()
    for index, account in enumerate(development_accounts()):
        derived = Account.from_mnemonic(DEVELOPMENT_MNEMONIC, account_path=f"m/44'/60'/0'/0/{index}")
        assert bytes(derived.key) == account.secret_key
        assert bytes.fromhex(derived.address[2:]) == account.address
