// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {JobEscrow} from "../../../../market/contracts/JobEscrow.sol";

/// @title A client that tries to withdraw its credit twice, from within the withdrawal
contract ReentrantPayee {
    JobEscrow public escrow;
    uint256 public attempts;
    bytes public refusal;

    function deposit(JobEscrow target, JobEscrow.Order calldata order) external payable {
        escrow = target;
        escrow.open{value: msg.value}(order);
    }

    function attack(uint256 amountWei) external {
        escrow.withdraw(address(this), amountWei);
    }

    receive() external payable {
        attempts++;
        try escrow.withdraw(address(this), msg.value) {}
        catch (bytes memory reason) {
            refusal = reason;
        }
    }
}
