/** A host on this machine for tests of the monitor: its folders, and the monitor as a process. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { create } from 'tar';
import { formatHostJson } from '../../host/host-json.ts';
import { NotifySocket } from './_monitor-notify.ts';

const TOP = join(import.meta.dirname, '..', '..');

/** Of one toolchain. */
export interface ToolchainStatus {
  readonly state: string;
  readonly agent: string;
  readonly version?: unknown;
  readonly error?: string;
  readonly hint?: string;
}

/** What the tests look at of `status.json`. */
export interface Status {
  readonly state: string;
  readonly status: string;
  readonly problems: readonly string[];
  readonly toolchains: Readonly<Record<string, ToolchainStatus>>;
  readonly events: readonly { readonly name: string; readonly uptimeMs: number }[];
}

const STATUS: z.ZodType<Status> = z.looseObject({
  state: z.string(),
  status: z.string(),
  problems: z.array(z.string()),
  toolchains: z.record(
    z.string(),
    z.looseObject({
      state: z.string(),
      agent: z.string(),
      version: z.unknown().optional(),
      error: z.string().exactOptional(),
      hint: z.string().exactOptional(),
    }),
  ),
  events: z.array(z.object({ name: z.string(), uptimeMs: z.number() })),
});

/** A folder that plays a host's root, and the monitors that run on it one after the other. */
export class Host implements AsyncDisposable {
  readonly root: string = mkdtempSync(join(tmpdir(), 'monitor-'));
  readonly #running: ChildProcess[] = [];
  output = '';

  constructor(options: {
    readonly buildId?: string;
    readonly buildidUrl?: string;
    readonly buildidTrust?: string;
    readonly toolchains?: Readonly<Record<string, string>>;
    /** minisign public keys, by toolchain */
    readonly trust?: Readonly<Record<string, string>>;
  }) {
    for (const folder of ['run/buildos/agents', 'run/buildos/monitor', 'state/monitor', 'build/agents']) {
      mkdirSync(join(this.root, folder), { recursive: true });
    }
    const toolchains = Object.entries(options.toolchains ?? {}).map(([name, url]) => [
      name,
      {
        url,
        ...(options.trust?.[name] === undefined ? {} : { trust: options.trust[name] }),
        controllers: [{ priority: '0', url: 'http://127.0.0.1:9/' }],
        controllerTrust: [],
        interactive: 'false' as const,
      },
    ]);
    const host = {
      buildId: options.buildId ?? 'id-a',
      options: {
        ...(options.buildidUrl === undefined ? {} : { buildidUrl: options.buildidUrl }),
        ...(options.buildidTrust === undefined ? {} : { buildidTrust: options.buildidTrust }),
        toolchains: Object.fromEntries(toolchains),
        monitorIntervalSeconds: 1,
        sshKeys: [],
        hostname: 'test',
        initDebug: false,
        initShell: false,
      },
      problems: [{ name: 'buildos.buildid_ulr', value: 'x', message: 'unknown', hint: 'did you mean buildid_url?' }],
      boot: { steps: [] },
    };
    writeFileSync(join(this.root, 'run/buildos/host.json'), formatHostJson(host));
  }

  path(name: string): string {
    return join(this.root, name);
  }

  read(name: string): string {
    return readFileSync(this.path(name), 'utf8');
  }

  /** Starts the monitor; `bundle` instead of the sources. */
  start(
    options: { readonly notify?: NotifySocket; readonly program?: string; readonly timing?: readonly string[] } = {},
  ): ChildProcess {
    const timing = ['lookSpread=0', 'retryFirstMs=1500', 'seeAgentsEveryMs=200', ...(options.timing ?? [])];
    const args = ['--root', this.root, '--listen', '127.0.0.1:0', '--state', 'disk'];
    const program = options.program ?? join(TOP, 'monitor/main.ts');
    const child = spawn(process.execPath, [program, ...args, ...timing.flatMap((one) => ['--timing', one])], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: {
        PATH: process.env['PATH'] ?? '',
        ...(options.notify === undefined ? {} : { NOTIFY_SOCKET: options.notify.path, WATCHDOG_USEC: '4000000' }),
      },
    });
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (chunk: Buffer) => (this.output += chunk.toString()));
    this.#running.push(child);
    return child;
  }

  status(): Status | undefined {
    try {
      return STATUS.parse(JSON.parse(this.read('build/tftp/status.json')));
    } catch {
      return undefined;
    }
  }

  /** Waits until the status is as wanted. */
  async until(what: string, isSo: (status: Status) => boolean, limitMs = 20_000): Promise<Status> {
    const deadline = Date.now() + limitMs;
    for (;;) {
      const status = this.status();
      if (status !== undefined && isSo(status)) return status;
      if (Date.now() > deadline) {
        assert.fail(`not ${what} within ${limitMs} ms: ${JSON.stringify(status, undefined, 1)}\n${this.output}`);
      }
      await sleep(50);
    }
  }

  /** What the log says the port is. */
  port(): number {
    return Number(
      /serving \S+ on 127\.0\.0\.1:(\d+)/g.exec(this.output.slice(this.output.lastIndexOf('serving ')))?.[1],
    );
  }

  /** What a reboot leaves: the state disk. */
  forget(): void {
    for (const folder of ['build', 'run/buildos/monitor', 'run/buildos/agents']) {
      rmSync(this.path(folder), { recursive: true });
      mkdirSync(this.path(folder), { recursive: true });
    }
    mkdirSync(this.path('build/agents'));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#running) await end(child, 'SIGKILL');
    rmSync(this.root, { recursive: true, force: true });
  }
}

export async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  child.kill(signal);
  await exited;
}

export async function eventually(what: string, isSo: () => boolean, limitMs = 15_000): Promise<void> {
  const deadline = Date.now() + limitMs;
  while (!isSo()) {
    if (Date.now() > deadline) assert.fail(`not within ${limitMs} ms: ${what}`);
    await sleep(50);
  }
}

/** An agent package. */
export async function agentPackage(
  folder: string,
  names: readonly string[] = ['agent.mjs', 'worker.mjs'],
): Promise<Uint8Array> {
  const files = join(folder, 'package');
  mkdirSync(files, { recursive: true });
  for (const name of names) writeFileSync(join(files, name), `// ${name}\n`);
  await create({ cwd: files, file: join(folder, 'agent.tar') }, [...names]);
  return readFileSync(join(folder, 'agent.tar'));
}
