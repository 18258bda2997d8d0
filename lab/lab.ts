/**
 * The lab: a private network with everything a diskless host needs to boot and work. DHCP, TFTP for the NBP and the iPXE script,
 * HTTP for kernel, initrd, build id, toolchain and sources, and a controller.
 *
 *     this process ── lab.ts ──┬─ ip netns exec ── dnsmasq           DHCP
 *                              ├─ ip netns exec ── node lab/main.ts  TFTP :69, HTTP :80, controller :8080
 *                              └─ guest.ts ── QEMU on a tap
 *
 * Needs root. All of it ends with this process, however it ends; what a killed one leaves (a namespace, a folder in /run) the next
 * one removes.
 */
import { copyFile, mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Connection, type RunOptions, type RunResult, text } from '../connections/connection.ts';
import { openLocal } from '../connections/local.ts';
import { openChain } from '../connections/open.ts';
import { type Process, start } from '../connections/process.ts';
import { BOOT_FILES, type BootFiles, dnsmasqArgv, parseDhcpLine } from '../host/dnsmasq.ts';
import type { LabEvent } from './event.ts';
import { EventLog } from './event-log.ts';
import { type LabConfig, type LabReady, parseLabMessage } from './message.ts';
import { LAB_ADDRESS, type LabPort, labDhcp, labPort, namespaceName, planNetwork, staleNamespaces } from './network.ts';

/** Where Debian's package `ipxe` puts the network boot programs. */
const IPXE_FOLDER = '/usr/lib/ipxe';
/** A folder a lab, named like its namespace; only root may write here. */
const RUNTIME_FOLDER = '/run/buildos-lab';
const START_TIMEOUT_MS = 20_000;

export interface LabOptions {
  /** Served over HTTP as `http://10.77.0.1/`. */
  readonly httpFolder: string;
  /** Served over TFTP. Default: a folder of the lab's own, with iPXE's boot programs in it. */
  readonly tftpFolder?: string;
  /** What DHCP tells firmware to fetch, where it is not iPXE. */
  readonly bootFiles?: Partial<BootFiles>;
  /** A configuration file for dnsmasq that tells it, as `image publish` writes one; instead of `bootFiles`. */
  readonly bootConfig?: string;
  /** Without router advertisements: iPXE then waits for one. For measuring what that costs. */
  readonly withoutAdvertisements?: boolean;
  /** The iPXE script a host gets over TFTP. Default: chain to `boot.ipxe` of the HTTP folder, unless the TFTP folder has its own. */
  readonly bootScript?: string;
  /** How many guests there is room for; default 1. */
  readonly ports?: number;
  /** Where the controller keeps what it has; without it there is no controller. */
  readonly controllerFolder?: string;
}

let serial = 0;

/** Opens a lab. @throws when a part does not start; then nothing is left */
export async function openLab(options: LabOptions): Promise<Lab> {
  const local = openLocal();
  await removeStale(local);
  serial += 1;
  const namespace = namespaceName(process.pid, serial);
  const folder = join(RUNTIME_FOLDER, namespace);
  const ports = Array.from({ length: options.ports ?? 1 }, (_, index) => labPort(index + 1));
  await using undo = new AsyncDisposableStack();
  undo.defer(() => rm(folder, { recursive: true, force: true }));
  const tftpFolder = options.tftpFolder ?? join(folder, 'tftp');
  for (const each of [folder, tftpFolder]) await mkdir(each, { recursive: true });
  if (options.tftpFolder === undefined) {
    for (const nbp of [BOOT_FILES.bios, BOOT_FILES.uefi]) await copyFile(join(IPXE_FOLDER, nbp), join(tftpFolder, nbp));
  }

  await local.run(['ip', 'netns', 'add', namespace]);
  undo.defer(async () => void (await local.run(['ip', 'netns', 'delete', namespace], { okStatus: 'any' })));
  await local.run(['ip', '-netns', namespace, '-batch', '-'], { input: planNetwork(ports) });

  const log = new EventLog<LabEvent>();
  const inNamespace = ['ip', 'netns', 'exec', namespace];
  const { bootFiles, bootConfig } = options;
  const boot = { ...(bootFiles !== undefined && { bootFiles }), ...(bootConfig !== undefined && { bootConfig }) };
  const { advertise, ...network } = labDhcp(ports, join(folder, 'leases'), boot);
  const wanted = {
    ...network,
    ...(options.withoutAdvertisements !== true && advertise !== undefined && { advertise }),
  };
  const dhcp = await start([...inNamespace, ...dnsmasqArgv(wanted)], {
    stderr: 'stdout',
  });
  undo.use(dhcp);
  void followDhcp(dhcp, log);

  const config: LabConfig = {
    address: LAB_ADDRESS,
    tftpFolder,
    httpFolder: options.httpFolder,
    ...(options.controllerFolder === undefined ? {} : { controller: { folder: options.controllerFolder, port: 8080 } }),
  };
  const configFile = join(folder, 'config.json');
  await writeFile(configFile, JSON.stringify(config));
  const main = join(import.meta.dirname, 'main.ts');
  const inner = await start([...inNamespace, process.execPath, main, configFile]);
  undo.use(inner);
  const ready = await followInner(inner, log);
  // dnsmasq ends at once when it cannot serve; that the others are up says it had the time to.
  if (!isAlive(dhcp.pid)) throw endedError('dnsmasq', dhcp);

  const lab = new Lab({
    namespace,
    ports,
    log,
    tftpFolder,
    url: ready.httpUrl,
    controllerUrl: ready.controllerUrl,
    inside: await openChain([['local'], ['netns', { name: namespace }]]),
    held: undo.move(),
  });
  if (options.bootScript !== undefined || options.tftpFolder === undefined) {
    await lab.setBootScript(options.bootScript ?? `#!ipxe\nchain --autofree ${lab.url}/boot.ipxe\n`);
  }
  return lab;
}

/** What a lab is made of. */
interface LabParts {
  readonly namespace: string;
  readonly ports: readonly LabPort[];
  readonly log: EventLog<LabEvent>;
  readonly tftpFolder: string;
  readonly url: string;
  readonly controllerUrl: string | undefined;
  readonly inside: Connection;
  readonly held: AsyncDisposableStack;
}

/** An open lab. */
export class Lab implements AsyncDisposable {
  readonly namespace: string;
  readonly ports: readonly LabPort[];
  /** What its services saw, on this machine's clock. */
  readonly log: EventLog<LabEvent>;
  /** Of the HTTP folder, without a final slash. */
  readonly url: string;
  readonly controllerUrl: string | undefined;
  /** Inside the namespace: for curl and TFTP clients. */
  readonly inside: Connection;
  readonly #parts: LabParts;

  constructor(parts: LabParts) {
    this.namespace = parts.namespace;
    this.ports = parts.ports;
    this.log = parts.log;
    this.url = parts.url;
    this.controllerUrl = parts.controllerUrl;
    this.inside = parts.inside;
    this.#parts = parts;
  }

  /** @param index - from 1 @throws {RangeError} when the lab has no such port */
  port(index = 1): LabPort {
    const port = this.ports[index - 1];
    if (port === undefined) throw new RangeError(`Cannot give port ${index}: the lab has ${this.ports.length}`);
    return port;
  }

  /** Where a guest is to be attached, for `Guest.start`. */
  network(index = 1): { readonly namespace: string; readonly port: LabPort } {
    return { namespace: this.namespace, port: this.port(index) };
  }

  /** Replaces the iPXE script that hosts get. */
  async setBootScript(script: string): Promise<void> {
    await openLocal().writeFile(join(this.#parts.tftpFolder, BOOT_FILES.ipxe), script, { mode: 0o644 });
  }

  /** Runs a program in the lab's network. */
  run(argv: readonly string[], options?: RunOptions): Promise<RunResult> {
    return this.inside.run(argv, options);
  }

  /** Ends the services and removes the network. Guests must have been closed. Idempotent. */
  async close(): Promise<void> {
    await this.inside[Symbol.asyncDispose]();
    await this.#parts.held.disposeAsync();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** Removes the namespaces and folders of labs whose process is gone. */
async function removeStale(local: Connection): Promise<void> {
  for (const name of staleNamespaces(text(await local.run(['ip', 'netns', 'list'])), isAlive)) {
    // There should be none. A namespace that somebody lives in goes on without its name, and its ports stay taken.
    const pids = text(await local.run(['ip', 'netns', 'pids', name], { okStatus: 'any' })).split('\n');
    for (const pid of pids.map(Number).filter((each) => each > 1)) kill(pid);
    await local.run(['ip', 'netns', 'delete', name], { okStatus: 'any' });
  }
  await mkdir(RUNTIME_FOLDER, { recursive: true, mode: 0o755 });
  for (const name of staleNamespaces((await readdir(RUNTIME_FOLDER)).join('\n'), isAlive)) {
    await rm(join(RUNTIME_FOLDER, name), { recursive: true, force: true });
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended by itself.
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // EPERM: it is there, and somebody else's.
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}

async function followDhcp(dhcp: Process, log: EventLog<LabEvent>): Promise<void> {
  for await (const line of dhcp.stdout) {
    const event = parseDhcpLine(line);
    if (event !== undefined) log.add({ source: 'dhcp', atMs: Date.now(), ...event });
  }
}

/** Reads the inner process's lines for ever; resolves when it says that everything listens. */
async function followInner(inner: Process, log: EventLog<LabEvent>): Promise<LabReady> {
  const { promise, resolve, reject } = Promise.withResolvers<LabReady>();
  const timer = setTimeout(() => reject(endedError('the lab’s servers', inner)), START_TIMEOUT_MS);
  const follow = async (): Promise<void> => {
    for await (const line of inner.stdout) {
      const message = parseLabMessage(line);
      if (message.source === 'ready') resolve(message);
      else log.add(message);
    }
    reject(endedError('the lab’s servers', inner));
    log.end(endedError('the lab’s servers', inner));
  };
  follow().catch(reject);
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
  }
}

function endedError(what: string, child: Process): Error {
  const said = [...child.stdout.tail(10), ...child.stderr.tail(20)].join('\n');
  return new Error(`Cannot keep ${what} running`, said === '' ? {} : { cause: new Error(said) });
}
