// Compiles every room's <room>/contracts/*.sol with solc-js and writes one artifact per contract to
// <room>/contracts/artifacts. Deterministic: the same sources give the same bytes on every machine.
// Exits 1 when an artifact changed, so that CI notices sources and artifacts that do not belong together.
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import solc from "solc";

const here = dirname(fileURLToPath(import.meta.url));
const root = resolve(here, "../..");
const resolvePackage = createRequire(import.meta.url).resolve;
const FOLDERS = ["market/contracts", "zk/contracts", "sequencer/contracts", "tests/unit/market/contracts",
  "tests/integration/clients/contracts"];
const SETTINGS = {
  evmVersion: "osaka",
  viaIR: true,
  optimizer: { enabled: true, runs: 10000 },
  metadata: { bytecodeHash: "none", appendCBOR: false },
  outputSelection: { "*": { "*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object",
    "evm.deployedBytecode.immutableReferences", "storageLayout"] } },
};

const sha256 = (text) => createHash("sha256").update(text).digest("hex");

function readSource(path) {
  const inRepository = join(root, path);
  return readFileSync(existsSync(inRepository) ? inRepository : resolvePackage(path), "utf8");
}

// solc with `sources` grown until every import is there: the whole standard JSON input, which is what gets hashed.
function compile(paths) {
  const sources = Object.fromEntries(paths.map((path) => [path, { content: readSource(path) }]));
  const onImport = (path) => {
    sources[path] = { content: readSource(path) };
    return { contents: sources[path].content };
  };
  const input = () => ({ language: "Solidity", sources: sorted(sources), settings: SETTINGS });
  solc.compile(JSON.stringify({ ...input(), settings: { stopAfter: "parsing" } }), { import: onImport });
  const output = JSON.parse(solc.compile(JSON.stringify(input()), { import: onImport }));
  // A warning is an error in our own sources; in a library's it is its authors' business.
  const problems = (output.errors ?? []).filter(({ severity, sourceLocation }) =>
    severity === "error" || existsSync(join(root, sourceLocation?.file ?? "")));
  if (problems.length > 0) {
    for (const problem of problems) console.error(problem.formattedMessage);
    process.exit(2);
  }
  return { output, sources: sorted(sources) };
}

const sorted = (record) => Object.fromEntries(Object.entries(record).sort(([a], [b]) => (a < b ? -1 : 1)));

// The sources that one file needs, itself included.
function closure(path, sources) {
  const seen = new Set();
  const visit = (name) => {
    if (seen.has(name)) return;
    seen.add(name);
    for (const [, target] of sources[name].content.matchAll(/^\s*import\s[^;]*?"([^"]+)";/gms)) {
      visit(target.startsWith(".") ? join(dirname(name), target) : target);
    }
  };
  visit(path);
  return [...seen].sort();
}

function storageSlots(layout) {
  return layout.storage.map(({ label, slot, offset, type }) =>
    ({ label, slot: Number(slot), offset, bytes: Number(layout.types[type].numberOfBytes) }));
}

function artifact(path, name, contract, sources) {
  if (Object.keys(contract.evm.deployedBytecode.immutableReferences).length > 0) {
    throw new Error(`${name} has immutables, which a contract predeployed at genesis cannot have`);
  }
  const needed = closure(path, sources);
  const input = { language: "Solidity", settings: SETTINGS,
    sources: Object.fromEntries(needed.map((source) => [source, sources[source]])) };
  return {
    contractName: name,
    sourceName: path,
    abi: contract.abi,
    bytecode: "0x" + contract.evm.bytecode.object,
    deployedBytecode: "0x" + contract.evm.deployedBytecode.object,
    storageLayout: storageSlots(contract.storageLayout),
    compiler: solc.version(),
    settings: SETTINGS,
    sourcesSha256: Object.fromEntries(needed.map((source) => [source, sha256(sources[source].content)])),
    inputSha256: sha256(JSON.stringify(input)),
  };
}

function compileFolder(folder) {
  const paths = readdirSync(join(root, folder)).filter((file) => file.endsWith(".sol")).sort()
    .map((file) => `${folder}/${file}`);
  const { output, sources } = compile(paths);
  const target = join(root, folder, "artifacts");
  mkdirSync(target, { recursive: true });
  const written = new Map();
  for (const path of paths) {
    const name = basename(path, ".sol");
    const contract = output.contracts[path]?.[name];
    const deployable = contract?.evm.bytecode.object && contract.abi.length > 0;
    const isLibrary = new RegExp(`^library ${name}\\b`, "m").test(sources[path].content);
    if (!deployable || isLibrary) continue;
    written.set(`${name}.json`, JSON.stringify(artifact(path, name, contract, sources), null, 1) + "\n");
  }
  return replaceChanged(target, written);
}

function replaceChanged(target, written) {
  const changed = [];
  for (const file of readdirSync(target)) {
    if (written.has(file)) continue;
    rmSync(join(target, file));
    changed.push(join(target, file));
  }
  for (const [file, text] of written) {
    const path = join(target, file);
    if (existsSync(path) && readFileSync(path, "utf8") === text) continue;
    writeFileSync(path, text);
    changed.push(path);
  }
  return changed;
}

// Folders may be named on the command line; without any, all are compiled.
const wanted = process.argv.slice(2);
const changed = FOLDERS.filter((folder) => wanted.length === 0 || wanted.includes(folder)).filter((folder) => existsSync(join(root, folder))).flatMap(compileFolder);
for (const path of changed) console.log(`changed: ${relative(root, path)}`);
if (changed.length > 0) {
  console.log("Artifacts now match the sources; commit them.");
  process.exit(1);
}
console.log("Artifacts match the sources.");
