// viem: deploy, write, read, logs, WebSocket heads. node viem.mjs HTTP_URL WS_URL PRIVATE_KEY
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createPublicClient, createWalletClient, defineChain, http, parseAbiItem, webSocket } from "viem";
import { privateKeyToAccount } from "viem/accounts";

const [url, webSocketUrl, key] = process.argv.slice(2);
const artifact = JSON.parse(readFileSync(new URL("contracts/artifacts/TestToken.json", import.meta.url)));
const receiver = "0x000000000000000000000000000000000000a11c";
const chain = defineChain({ id: 7357, name: "warpgrid", nativeCurrency: { name: "Ether", symbol: "ETH", decimals: 18 },
  rpcUrls: { default: { http: [url] } } });
const account = privateKeyToAccount(key);
const client = createPublicClient({ chain, transport: http(), pollingInterval: 50 });
const wallet = createWalletClient({ account, chain, transport: http() });
const socket = createPublicClient({ chain, transport: webSocket(webSocketUrl) });

const head = new Promise((resolve, reject) => {
  const stop = socket.watchBlocks({ onBlock: (block) => { stop(); resolve(block); }, onError: reject });
});
const deployed = await client.waitForTransactionReceipt({
  hash: await wallet.deployContract({ abi: artifact.abi, bytecode: artifact.bytecode, args: [10n ** 24n] }) });
assert.equal(deployed.status, "success");
const token = { address: deployed.contractAddress, abi: artifact.abi };
const { request } = await client.simulateContract({ ...token, functionName: "transfer", args: [receiver, 9n], account });
const receipt = await client.waitForTransactionReceipt({ hash: await wallet.writeContract(request) });
assert.equal(receipt.status, "success");
assert.equal(await client.readContract({ ...token, functionName: "balanceOf", args: [receiver] }), 9n);
const logs = await client.getLogs({ address: token.address, fromBlock: receipt.blockNumber,
  event: parseAbiItem("event Transfer(address indexed from, address indexed to, uint256 value)") });
assert.deepEqual(logs.map((log) => log.args.value), [9n]);
const { accessList } = await client.createAccessList({ account, to: token.address, data: "0x18160ddd" });
assert.ok(Array.isArray(accessList));
assert.equal((await client.getProof({ address: token.address, storageKeys: [] })).address.toLowerCase(), token.address);
assert.ok((await head).number > 0n);
console.log("ok");
process.exit(0);
