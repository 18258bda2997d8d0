/**
 * Our TFTP server and firmware: iPXE from a card's ROM (BIOS), and OVMF's own PXE stack, which loads an iPXE of its own. DHCP
 * comes from dnsmasq, every file from `buildos tftp serve`, over IPv4 and IPv6. iPXE runs a script that sums up numbers of
 * each of its lines: a block lost, doubled or out of place would give another sum. No Linux boots. Takes about 30 s.
 */
import assert from 'node:assert/strict';
import { chmod, copyFile, mkdir, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { openLocal } from '../../connections/local.ts';
import { type Process, start } from '../../connections/process.ts';
import { dnsmasqArgv } from '../../host/dnsmasq.ts';
import type { Firmware } from '../../host/qemu.ts';
import { Guest } from '../../lab/guest.ts';
import { type LabPort, labDhcp, labPort, namespaceName, planNetwork } from '../../lab/network.ts';
import { DRIVERS } from '../../tftp/drivers.ts';
import type { TransferEvent } from '../../tftp/transfer-event.ts';

const MAIN = join(import.meta.dirname, '../../cli/main.ts');
const SNPONLY = '/usr/lib/ipxe/snponly.efi';
const BOOT_MS = 90_000;
/** A namespace that labs know to remove when its owner is gone; they count from 1. */
const NAMESPACE = namespaceName(process.pid, 0);
const INSIDE = ['ip', 'netns', 'exec', NAMESPACE] as const;
const PORTS = [labPort(1), labPort(2)] as const;

/** Divided by what iPXE asks for (blksize 1432): the last DATA is empty. */
const EVEN_BYTES = 1432 * 50;

const IPV6_BYTES = 50_000;

/** What iPXE gets first: it fetches files of several kinds, and at last runs one that prints the sum. */
const BOOT_SCRIPT = `#!ipxe
imgfetch --name even even.bin && imgstat even && imgfree even ||
imgfetch --name six tftp://[fd00:77::1]/six.bin && imgstat six && imgfree six ||
imgfetch --name nothing no/such/file || echo A MISSING FILE IS TOLD
chain --autofree sum.ipxe || echo THE SCRIPT FAILED
`;

/** A script of 200 kB, and what it prints at its end. */
function sumScript(): { readonly script: string; readonly prints: string } {
  const lines = Array.from({ length: 1000 }, (_, index) => `inc sum ${(index * 7919) % 1000}\n# ${'.'.repeat(184)}\n`);
  const sum = lines.reduce((total, line) => total + Number(line.split(/[ \n]/)[2]), 0);
  return {
    script: `#!ipxe\nset sum:int32 0\n${lines.join('')}echo THE SUM IS \${sum:int32}\n`,
    prints: `THE SUM IS ${sum}`,
  };
}

let folder: string;
let served: string;
let held: AsyncDisposableStack;

before(async () => {
  await using undo = new AsyncDisposableStack();
  folder = await mkdtemp(join(tmpdir(), 'tftp-firmware-'));
  undo.defer(() => rm(folder, { recursive: true, force: true }));
  await chmod(folder, 0o755);
  served = join(folder, 'served');
  await mkdir(served);
  await copyFile(SNPONLY, join(served, 'snponly.efi'));
  await writeFile(join(served, 'boot.ipxe'), BOOT_SCRIPT);
  await writeFile(join(served, 'sum.ipxe'), sum.script);
  await writeFile(join(served, 'even.bin'), Buffer.alloc(EVEN_BYTES, 'even'));
  await writeFile(join(served, 'six.bin'), Buffer.alloc(IPV6_BYTES, 'six'));
  const local = undo.use(openLocal());
  await local.run(['ip', 'netns', 'add', NAMESPACE]);
  undo.defer(async () => void (await local.run(['ip', 'netns', 'delete', NAMESPACE], { okStatus: 'any' })));
  await local.run(['ip', '-netns', NAMESPACE, '-batch', '-'], { input: planNetwork(PORTS) });
  undo.use(await start([...INSIDE, ...dnsmasqArgv(labDhcp(PORTS, join(folder, 'leases')))], { stderr: 'stdout' }));
  held = undo.move();
});
after(() => held.disposeAsync());

const sum = sumScript();

/** What a guest with iPXE in its card fetches, and how that ends. */
const BY_IPXE = [
  `boot.ipxe: ${BOOT_SCRIPT.length} bytes`,
  `even.bin: ${EVEN_BYTES} bytes`,
  `six.bin: ${IPV6_BYTES} bytes`,
  'no/such/file: ERROR 1',
  `sum.ipxe: ${sum.script.length} bytes`,
] as const;

/** OVMF asks for the size, breaks that off with ERROR 8, and asks again from the same port; then its iPXE asks. */
const byOvmf = (nbpBytes: number): readonly string[] => [
  'snponly.efi: ERROR 8',
  `snponly.efi: ${nbpBytes} bytes`,
  ...BY_IPXE,
];

const describeEnd = ({ name, bytes, result, errorCode }: TransferEvent): string =>
  `${name}: ${result === 'done' ? `${bytes} bytes` : `ERROR ${errorCode}`}`;

/** The addresses of a guest: the one that DHCP gives, and the one it makes of the prefix and its MAC address (RFC 4291). */
const addressesOf = ({ address, index }: LabPort): readonly string[] => [address, `fd00:77::5054:ff:fe77:${index}`];

/** What was transferred. */
async function transfers(server: Process): Promise<readonly TransferEvent[]> {
  const events: TransferEvent[] = [];
  for await (const line of server.stdout) {
    const event: { readonly event: string } & TransferEvent = JSON.parse(line);
    if (event.event === 'transfer') events.push(event);
  }
  return events;
}

async function boot(firmware: Firmware, index: 0 | 1): Promise<readonly string[]> {
  await using guest = await Guest.start({
    name: firmware,
    firmware,
    accelerator: 'tcg',
    memoryMiB: 256,
    cpus: 1,
    network: { namespace: NAMESPACE, port: PORTS[index] },
    folder: join(folder, firmware),
  });
  await guest.waitForLine(/THE SUM IS|THE SCRIPT FAILED/, { timeoutMs: BOOT_MS });
  return [...guest.lines];
}

/** Boots one guest of each kind, side by side, and ends the server, so that all it says is known. */
async function bootBoth(server: Process): Promise<readonly (readonly string[])[]> {
  try {
    return await Promise.all([boot('bios', 0), boot('uefi', 1)]);
  } finally {
    await server.stop(5000);
  }
}

/** What the console of a guest says, and what the server did for it. */
function checkGuest(
  port: LabPort,
  lines: readonly string[],
  events: readonly TransferEvent[],
  ends: readonly string[],
): void {
  const text = lines.join('\n');
  assert.match(text, new RegExp(`even : ${EVEN_BYTES} bytes`));
  assert.match(text, new RegExp(`six : ${IPV6_BYTES} bytes`));
  assert.match(text, /^A MISSING FILE IS TOLD/m);
  assert.match(text, new RegExp(`^${sum.prints}`, 'm'));
  const addresses = addressesOf(port);
  const own = events.filter((event) => addresses.includes(event.peer));
  // A request that was repeated is one.
  assert.deepEqual([...new Set(own.map(describeEnd))], ends);
  for (const { name, peer, bytes, options, granted } of own.filter((event) => event.result === 'done')) {
    assert.equal(peer.includes(':'), name === 'six.bin', `${name} to ${peer}`);
    // Each option that firmware asks for is one that we know, and given as it was asked.
    for (const [option, value] of options) {
      const given = Object.entries(granted).find(([each]) => each === option)?.[1];
      assert.equal(given, option === 'tsize' ? bytes : Number(value), `${option} of ${name}`);
    }
    assert.ok(granted.blksize !== undefined && granted.blksize > 1400, JSON.stringify(granted));
  }
}

describe('firmware loads files from our TFTP server', { timeout: 240_000 }, () => {
  for (const driver of DRIVERS) {
    test(`iPXE (BIOS) and OVMF, driver ${driver}`, { timeout: 2 * BOOT_MS }, async () => {
      const command = [process.execPath, MAIN, 'tftp', 'serve', served, '--json', '--driver', driver];
      const server = await start([...INSIDE, ...command]);
      const seen = transfers(server);
      const [bios = [], uefi = []] = await bootBoth(server);
      const events = await seen;
      checkGuest(PORTS[0], bios, events, BY_IPXE);
      checkGuest(PORTS[1], uefi, events, byOvmf((await stat(SNPONLY)).size));
    });
  }
});
