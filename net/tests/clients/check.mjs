// Deploys a contract, calls it and transacts with it through ethers, viem and cast, and checks every result.
// Usage: node check.mjs RPC_URL WS_URL. Ends with status 0 and a line for each client if all is as it must be.

import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { ethers } from 'ethers';
import { createPublicClient, createWalletClient, defineChain, http, webSocket } from 'viem';
import { mnemonicToAccount } from 'viem/accounts';

const [url, wsUrl] = process.argv.slice(2);
const MNEMONIC = 'test test test test test test test test test test test junk';

// set(uint256) stores its argument and emits Set(uint256); get() returns it; anything else reverts with Error("no").
const RUNTIME =
  '5f3560e01c80636d4ce63c1460395763' + '60fe47b114604257' +
  '6308c379a060e01b5f526020600452600260245261' + '6e6f60f01b6044526064' + '5ffd' +
  '5b5f545f5260205ff3' +
  '5b600435805f555f52' +
  '7fdf7a95aebff315db1b7716215d602ab537373cdb769232aae6055c06e798425b' + '60205fa100';
const BYTECODE = '0x6071806009' + '5f395ff3' + RUNTIME;
const ABI = [
  'function get() view returns (uint256)',
  'function set(uint256 value)',
  'function other()',
  'event Set(uint256 value)',
];
const JSON_ABI = JSON.parse(new ethers.Interface(ABI).formatJson());

async function withEthers() {
  // ethers keeps answers for 250 ms, nonces too: longer than this node takes for a block.
  const provider = new ethers.JsonRpcProvider(url, undefined, { pollingInterval: 50, cacheTimeout: -1 });
  const wallet = ethers.HDNodeWallet.fromPhrase(MNEMONIC, undefined, "m/44'/60'/0'/0/1").connect(provider);
  assert.equal((await provider.getNetwork()).chainId, 31337n);
  const contract = await new ethers.ContractFactory(ABI, BYTECODE, wallet).deploy();
  await contract.waitForDeployment();
  assert.equal(await provider.getCode(await contract.getAddress()), '0x' + RUNTIME);
  assert.equal(await contract.get(), 0n);
  const receipt = await (await contract.set(42n)).wait();
  assert.equal(receipt.status, 1);
  assert.equal(receipt.logs[0].args.value, 42n);
  assert.equal(await contract.get(), 42n);
  await assert.rejects(contract.other.staticCall(), (error) => error.reason === 'no');
  const found = await contract.queryFilter('Set', 0, 'latest');
  assert.deepEqual(found.map((event) => event.args.value), [42n]);
  // By an account of the node, which signs.
  const signer = await provider.getSigner(0);
  const sent = await signer.sendTransaction({ to: wallet.address, value: 1n });
  assert.equal((await sent.wait()).status, 1);
  // A legacy transaction and a message.
  const legacy = await wallet.sendTransaction({ to: wallet.address, value: 0n, type: 0 });
  assert.equal((await legacy.wait()).type, 0);
  const message = await signer.signMessage('hello');
  assert.equal(ethers.verifyMessage('hello', message), await signer.getAddress());
  provider.destroy();
}

async function withViem() {
  const chain = defineChain({
    id: 31337,
    name: 'development',
    nativeCurrency: { name: 'Ether', symbol: 'ETH', decimals: 18 },
    rpcUrls: { default: { http: [url], webSocket: [wsUrl] } },
  });
  const account = mnemonicToAccount(MNEMONIC, { addressIndex: 2 });
  const client = createPublicClient({ chain, transport: http(), pollingInterval: 50 });
  const wallet = createWalletClient({ chain, account, transport: http() });
  const sockets = createPublicClient({ chain, transport: webSocket(wsUrl) });

  const heads = [];
  const logs = [];
  const unwatchHeads = await sockets.transport.subscribe({
    params: ['newHeads'],
    onData: (data) => heads.push(data.result),
  });
  const deployed = await client.waitForTransactionReceipt({
    hash: await wallet.deployContract({ abi: JSON_ABI, bytecode: BYTECODE }),
  });
  assert.equal(deployed.status, 'success');
  const address = deployed.contractAddress;
  const unwatchLogs = await sockets.transport.subscribe({
    params: ['logs', { address }],
    onData: (data) => logs.push(data.result),
  });
  assert.equal(await client.readContract({ address, abi: JSON_ABI, functionName: 'get' }), 0n);
  const hash = await wallet.writeContract({ address, abi: JSON_ABI, functionName: 'set', args: [7n] });
  const receipt = await client.waitForTransactionReceipt({ hash });
  assert.equal(receipt.logs.length, 1);
  assert.equal(await client.readContract({ address, abi: JSON_ABI, functionName: 'get' }), 7n);
  assert.equal(BigInt(await client.getStorageAt({ address, slot: '0x0' })), 7n);
  await assert.rejects(client.readContract({ address, abi: JSON_ABI, functionName: 'other' }), /reverted[^]*no/);
  const events = await client.getContractEvents({ address, abi: JSON_ABI, eventName: 'Set', fromBlock: 0n });
  assert.deepEqual(events.map((event) => event.args.value), [7n]);
  const overridden = await client.readContract({
    address,
    abi: JSON_ABI,
    functionName: 'get',
    stateOverride: [{ address, stateDiff: [{ slot: '0x' + '00'.repeat(32), value: '0x' + '00'.repeat(31) + '09' }] }],
  });
  assert.equal(overridden, 9n);
  // EIP-7702: the account runs the contract's code from then on.
  const authorization = await wallet.signAuthorization({ contractAddress: address, executor: 'self' });
  const delegated = await wallet.sendTransaction({
    to: account.address,
    data: '0x6d4ce63c',
    authorizationList: [authorization],
  });
  await client.waitForTransactionReceipt({ hash: delegated });
  const code = await client.getCode({ address: account.address });
  assert.equal(code.toLowerCase(), '0xef0100' + address.slice(2).toLowerCase());

  for (let tries = 0; (logs.length === 0 || heads.length < 2) && tries < 200; tries += 1) {
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.equal(logs[0].transactionHash, hash);
  const numbers = heads.map((head) => Number(head.number));
  assert.deepEqual(numbers, numbers.map((_, index) => numbers[0] + index), 'heads come in order without gaps');
  await unwatchHeads.unsubscribe();
  await unwatchLogs.unsubscribe();
  (await sockets.transport.getRpcClient()).close();
}

function withCast() {
  const binary = fileURLToPath(new URL('node_modules/.bin/cast', import.meta.url));
  const env = { ...process.env, ETH_RPC_URL: url };
  const run = (...args) => execFileSync(binary, args, { encoding: 'utf8', env }).trim();
  const key = ethers.HDNodeWallet.fromPhrase(MNEMONIC, undefined, "m/44'/60'/0'/0/3").privateKey;
  assert.equal(run('chain-id'), '31337');
  const deployed = JSON.parse(run('send', '--json', '--private-key', key, '--create', BYTECODE));
  assert.equal(BigInt(deployed.status), 1n);
  const address = deployed.contractAddress;
  const sent = JSON.parse(run('send', '--json', '--private-key', key, address, 'set(uint256)', '11'));
  assert.equal(BigInt(sent.status), 1n);
  assert.equal(sent.logs.length, 1);
  assert.equal(run('call', address, 'get()(uint256)'), '11');
  assert.equal(BigInt(run('storage', address, '0')), 11n);
  assert.equal(BigInt(run('estimate', address, 'set(uint256)', '12')) > 21000n, true);
  const reverted = spawnSync(binary, ['call', address, 'other()'], { encoding: 'utf8', env });
  assert.match(reverted.stderr, /execution reverted: no/);
  const logs = JSON.parse(run('logs', '--json', '--from-block', '0', '--address', address));
  assert.equal(logs.length, 1);
  assert.equal(JSON.parse(run('receipt', '--json', sent.transactionHash)).transactionHash, sent.transactionHash);
}

await withEthers();
console.log('ethers ok');
await withViem();
console.log('viem ok');
withCast();
console.log('cast ok');
