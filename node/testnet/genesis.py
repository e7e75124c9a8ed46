"""The genesis of a local network: who is funded, which contracts stand, and the members' identities.

Makes the members' identity keys (they must be known to be funded); everything else about keys is `node.keys`.
"""

import time

from core.genesis import dev_genesis
from market.contracts import MarketParameters
from market.contracts import predeploys as market_predeploys
from node.accounts import DEVELOPMENT_BALANCE_WEI, development_accounts
from node.keys import IdentityKey
from node.paths import challenger_file, identity_file
from node.testnet.layout import CHAIN_ID, Founding, Testnet
from worker.inference.exact.specification import exp2_table, sigmoid_table
from zk.contracts import predeploys as dispute_predeploys

__all__ = ["MEMBER_BALANCE_WEI", "STAKE_MIN_WEI", "testnet_genesis"]

MEMBER_BALANCE_WEI = 100 * 10**18
STAKE_MIN_WEI = 10**18
CHALLENGE_SECONDS = 2  # a newcomer wants to see the payment; a real network gives auditors hours
EXACT_CHALLENGE_SECONDS = 60  # time to run an answer again and challenge it
MOVE_SECONDS = 60
SETTLEMENT_SECONDS = 600
UNBONDING_SECONDS = 120


def testnet_genesis(network: Testnet) -> Founding:
    """A genesis dated now, and the members' identities that it funds."""
    identities = {
        member.name: IdentityKey.load_or_create(identity_file(network.data_dir / member.name)).address
        for member in network.members()
    }
    balances = {one.address: DEVELOPMENT_BALANCE_WEI for one in development_accounts()}
    challenger = IdentityKey.load_or_create(challenger_file(network.data_dir / "sequencer")).address
    balances |= dict.fromkeys([*identities.values(), challenger], MEMBER_BALANCE_WEI)
    market = market_predeploys(
        MarketParameters(
            judge=identities["sequencer"],
            stake_min_wei=STAKE_MIN_WEI,
            challenge_seconds=CHALLENGE_SECONDS,
            exact_challenge_seconds=EXACT_CHALLENGE_SECONDS,
            settlement_seconds=SETTLEMENT_SECONDS,
            unbonding_seconds=UNBONDING_SECONDS,
        )
    )
    disputes = dispute_predeploys(exp2_table().tolist(), sigmoid_table().tolist(), MOVE_SECONDS)
    genesis = dev_genesis(CHAIN_ID, balances, market | disputes, timestamp=int(time.time()))
    return Founding(genesis, identities["watcher"])
