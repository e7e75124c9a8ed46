// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {TestToken} from "../contracts/TestToken.sol";

interface Vm {
    function startBroadcast() external;
    function stopBroadcast() external;
}

/// forge script without forge-std: deploy the token and move some of it.
contract Deploy {
    Vm private constant VM = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));
    bool public constant IS_SCRIPT = true;

    function run() external {
        VM.startBroadcast();
        TestToken token = new TestToken(1 ether);
        require(token.transfer(address(0xd11c), 17), "transfer");
        VM.stopBroadcast();
    }
}
