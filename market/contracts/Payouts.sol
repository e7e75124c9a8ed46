// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @title What a contract owes, and the only way out
/// @notice Money that leaves is credited first and withdrawn by its owner, so nobody's refusal to be paid can hold up
/// a settlement, and the only call into foreign code is the last statement of `withdraw`.
abstract contract Payouts {
    /// @notice Wei that `owner` may withdraw.
    mapping(address owner => uint256 amountWei) public creditWei;

    event Credited(address indexed owner, uint256 amountWei);
    event Withdrawn(address indexed owner, address indexed to, uint256 amountWei);

    error CreditTooSmall(uint256 creditWei, uint256 neededWei);
    error PayoutRefused(address to);

    /// @notice Sends `amountWei` of the caller's credit to `to`.
    function withdraw(address to, uint256 amountWei) external {
        _debit(msg.sender, amountWei);
        emit Withdrawn(msg.sender, to, amountWei);
        (bool sent,) = to.call{value: amountWei}("");
        require(sent, PayoutRefused(to));
    }

    function _credit(address owner, uint256 amountWei) internal {
        if (amountWei == 0) return;
        creditWei[owner] += amountWei;
        emit Credited(owner, amountWei);
    }

    function _debit(address owner, uint256 amountWei) internal {
        uint256 available = creditWei[owner];
        require(available >= amountWei, CreditTooSmall(available, amountWei));
        creditWei[owner] = available - amountWei;
    }
}
