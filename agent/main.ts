/**
 * agent.mjs: the service `buildos-agent@<tc>.service`, as the user `build`.
 *
 *   agent.mjs <tc> [--paths FILE]
 *
 * `--paths` names a JSON file with other paths and waits than those of a host, for tests. Exit status: 0 after a stop;
 * 1 when it cannot start; 64 for wrong arguments.
 */
import { readFileSync, statfsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { availableParallelism, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { parseHostJson } from '../host/host-json.ts';
import { notify, statusLine, watchdogUsec } from '../host/sd-notify.ts';
import { runAgent } from './agent.ts';
import { openKey } from './key.ts';
import { hostPaths, parsePaths } from './paths.ts';
import type { Paths } from './paths.ts';
import { HOST_TIMES, parseTimes, settingsFor } from './settings.ts';
import type { Times } from './settings.ts';

/** A loop that has not turned for so long hangs: then the watchdog is not told that all is well. */
const STALE_MS = 10 * 60_000;

const say = (line: string): void => {
  process.stdout.write(`${line}\n`);
};

async function main(toolchain: string, paths: Paths, times: Times): Promise<void> {
  const host = parseHostJson(readFileSync(paths.hostJson, 'utf8'));
  const options = host.options.toolchains[toolchain];
  if (options === undefined || options.controllers.length === 0) {
    throw new Error(`Cannot start the agent of "${toolchain}": no controller is named for it (buildos.controller_url)`);
  }
  const agents = Object.values(host.options.toolchains).filter(({ controllers }) => controllers.length > 0).length;
  await mkdir(paths.builds, { recursive: true, mode: 0o755 });
  const tftp = statfsSync(paths.builds);
  const settings = settingsFor(
    options,
    {
      cpus: availableParallelism(),
      memoryMiB: Math.floor(totalmem() / 1024 / 1024),
      tftpBytes: tftp.blocks * tftp.bsize,
      agents,
    },
    times,
  );
  // Beside the folders of the agents: one key for the host, whatever toolchains it has.
  const { key, problem } = await openKey(join(dirname(paths.state), 'key'));
  if (problem !== undefined) say(problem);
  say(`${settings.instances} machines at once, each ${settings.limits.cpus} CPUs and ${settings.limits.memoryMiB} MiB`);

  const stop = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      notify('STOPPING=1');
      say(`${signal}: no more tasks are taken, running ones are given back`);
      stop.abort();
    });
  }
  let aliveMs = performance.now();
  let lastStatus = '';
  const watchdog = watchdogUsec();
  const beat =
    watchdog === undefined
      ? undefined
      : setInterval(() => {
          if (performance.now() - aliveMs < STALE_MS) notify('WATCHDOG=1');
        }, watchdog / 3000);
  try {
    await runAgent({
      toolchain,
      options,
      settings,
      paths,
      key,
      signal: stop.signal,
      onLine: say,
      onStatus: (status) => {
        aliveMs = performance.now();
        if (status !== lastStatus) notify(statusLine(status));
        lastStatus = status;
      },
      onReady: () => notify('READY=1'),
    });
  } finally {
    clearInterval(beat);
  }
}

function readArguments(): { readonly toolchain: string; readonly file?: string } | string {
  try {
    const { values, positionals } = parseArgs({ options: { paths: { type: 'string' } }, allowPositionals: true });
    const [toolchain, ...others] = positionals;
    if (toolchain === undefined || others.length > 0 || !/^[a-z0-9][a-z0-9_.-]{0,63}$/i.test(toolchain)) {
      return 'name one toolchain';
    }
    return { toolchain, ...(values.paths === undefined ? {} : { file: values.paths }) };
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

const args = readArguments();
if (typeof args === 'string') {
  process.stderr.write(`agent: ${args}\nusage: agent.mjs <toolchain> [--paths FILE]\n`);
  process.exit(64);
}
try {
  const json = args.file === undefined ? undefined : readFileSync(args.file, 'utf8');
  const paths = json === undefined ? hostPaths(args.toolchain) : parsePaths(json);
  await main(args.toolchain, paths, json === undefined ? HOST_TIMES : parseTimes(json));
  process.exit(0);
} catch (error) {
  const message = error instanceof Error ? error.message : String(error);
  const hint: unknown = error instanceof Error && 'hint' in error ? error.hint : undefined;
  process.stderr.write(`agent: ${message}\n${typeof hint === 'string' ? `hint: ${hint}\n` : ''}`);
  notify(statusLine(`failed: ${message}`));
  process.exit(1);
}
