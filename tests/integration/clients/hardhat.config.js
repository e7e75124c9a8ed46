// hardhat 2 on a network that it did not start, compiling with the solc-js that is installed beside it.
const { subtask } = require("hardhat/config");
const { TASK_COMPILE_SOLIDITY_GET_SOLC_BUILD } = require("hardhat/builtin-tasks/task-names");
const solc = require("solc/package.json");

subtask(TASK_COMPILE_SOLIDITY_GET_SOLC_BUILD).setAction(async () => ({
  compilerPath: require.resolve("solc/soljson.js"),
  isSolcJs: true,
  version: solc.version,
  longVersion: solc.version,
}));

module.exports = {
  solidity: { version: solc.version, settings: { optimizer: { enabled: true, runs: 200 } } },
  paths: { sources: "contracts", artifacts: process.env.HARDHAT_OUTPUT + "/artifacts", cache: process.env.HARDHAT_OUTPUT + "/cache" },
  defaultNetwork: "warpgrid",
  networks: { warpgrid: { url: process.env.RPC_URL, accounts: [process.env.PRIVATE_KEY] } },
};
