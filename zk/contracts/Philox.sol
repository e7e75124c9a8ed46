// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @title Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011), as docs/exact-inference.md section 5 keys it
library Philox {
    /// @notice The u64 that decides the token at `position`: the first two words.
    function uniform(uint256 seed, uint256 position, uint256 choice) internal pure returns (uint256) {
        (uint256 c0, uint256 c1, uint256 c2, uint256 c3) = (position, choice, uint256(0), uint256(0));
        (uint256 k0, uint256 k1) = (seed & 0xffffffff, seed >> 32);
        for (uint256 i = 0; i < 10; i++) {
            uint256 left = 0xD2511F53 * c0;
            uint256 right = 0xCD9E8D57 * c2;
            (c0, c1, c2, c3) =
                ((right >> 32) ^ c1 ^ k0, right & 0xffffffff, (left >> 32) ^ c3 ^ k1, left & 0xffffffff);
            k0 = (k0 + 0x9E3779B9) & 0xffffffff;
            k1 = (k1 + 0xBB67AE85) & 0xffffffff;
        }
        return c0 | (c1 << 32);
    }
}
