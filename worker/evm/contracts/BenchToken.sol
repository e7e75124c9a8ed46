// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

/// OpenZeppelin's token as it is: what the ERC-20 benchmarks run.
contract BenchToken is ERC20 {
    constructor() ERC20("Bench", "BEN") {
        _mint(msg.sender, 1 << 128);
    }
}
