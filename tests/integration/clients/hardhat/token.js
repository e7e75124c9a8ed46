// Deploys and uses the token through hardhat's own provider (no plugins).
const assert = require("node:assert/strict");
const hre = require("hardhat");
const { Interface, AbiCoder } = require("ethers");

async function mined(hash) {
  for (;;) {
    const receipt = await hre.network.provider.send("eth_getTransactionReceipt", [hash]);
    if (receipt) return receipt;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function main() {
  await hre.run("compile", { quiet: true });
  const artifact = await hre.artifacts.readArtifact("TestToken");
  const [from] = await hre.network.provider.send("eth_accounts");
  const data = artifact.bytecode + AbiCoder.defaultAbiCoder().encode(["uint256"], [10n ** 24n]).slice(2);
  const deployed = await mined(await hre.network.provider.send("eth_sendTransaction", [{ from, data }]));
  assert.equal(deployed.status, "0x1");
  const token = new Interface(artifact.abi);
  const receiver = "0x000000000000000000000000000000000000c11c";
  const call = { from, to: deployed.contractAddress, data: token.encodeFunctionData("transfer", [receiver, 13n]) };
  const receipt = await mined(await hre.network.provider.send("eth_sendTransaction", [call]));
  assert.equal(receipt.status, "0x1");
  assert.equal(receipt.logs.length, 1);
  const balance = await hre.network.provider.send("eth_call",
    [{ to: deployed.contractAddress, data: token.encodeFunctionData("balanceOf", [receiver]) }, "latest"]);
  assert.equal(BigInt(balance), 13n);
  console.log("ok");
}

main().then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });
