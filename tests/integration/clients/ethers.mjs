// ethers 6: deploy, write, read, logs, WebSocket heads. node ethers.mjs HTTP_URL WS_URL PRIVATE_KEY
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { ContractFactory, JsonRpcProvider, NonceManager, Wallet, WebSocketProvider } from "ethers";

const [url, webSocketUrl, key] = process.argv.slice(2);
const artifact = JSON.parse(readFileSync(new URL("contracts/artifacts/TestToken.json", import.meta.url)));
const receiver = "0x000000000000000000000000000000000000b11C".toLowerCase();
const provider = new JsonRpcProvider(url, undefined, { pollingInterval: 50 });
const signer = new NonceManager(new Wallet(key, provider));
const socket = new WebSocketProvider(webSocketUrl);

const head = new Promise((resolve) => socket.once("block", resolve));
const token = await new ContractFactory(artifact.abi, artifact.bytecode, signer).deploy(10n ** 24n);
await token.waitForDeployment();
const receipt = await (await token.transfer(receiver, 11n)).wait();
assert.equal(receipt.status, 1);
assert.equal(await token.balanceOf(receiver), 11n);
const events = await token.queryFilter(token.filters.Transfer(null, receiver), receipt.blockNumber);
assert.deepEqual(events.map((event) => event.args.value), [11n]);
await assert.rejects(token.transfer.staticCall(receiver, 10n ** 30n), /ERC20InsufficientBalance|reverted/);
assert.equal((await provider.getFeeData()).gasPrice > 0n, true);
assert.ok((await head) > 0);
console.log("ok");
process.exit(0);
