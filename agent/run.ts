/** Runs one build: folder, TFTP instance, machine, and the wait for its end. It always ends, and leaves nothing running. */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { HelperError } from '../helper/client.ts';
import type { Machine } from '../machines/enumerate.ts';
import { machineAddress, portsFor } from '../machines/name.ts';
import type { Place } from '../machines/name.ts';
import { bootMachine, endMachine, waitMachine } from '../machines/run.ts';
import type { RunOptions } from '../machines/run.ts';
import type { Limits } from '../machines/step.ts';
import { ListenError, systemCode } from '../tftp/error.ts';
import { serveMachine } from '../tftp/instance.ts';
import type { TftpServer } from '../tftp/serve-options.ts';
import type { TransferEvent } from '../tftp/transfer-event.ts';
import { LOG_FILE, makeBuildFolder, readWritten, RESULT_FILE, TASK_FILE, UPLOAD_FILE } from './build-folder.ts';
import type { Paths } from './paths.ts';
import type { Ending } from './plan.ts';
import type { Quotas, Times } from './settings.ts';

/** What is run, and with what. */
export interface BuildOptions {
  readonly build: string;
  readonly number: number;
  readonly toolchain: string;
  readonly machine: Machine;
  /** Text of the task manifest. */
  readonly task: string;
  readonly limits: Limits;
  readonly quotas: Quotas;
  readonly times: Times;
  readonly paths: Paths;
  /** Aborting interrupts the build. */
  readonly signal: AbortSignal;
  readonly onLine: (line: string) => void;
  /** The machine has asked for its task. */
  readonly onStarted: () => void;
}

/** Ports that are tried before a build is given up. */
const PORT_TRIES = 64;

/** How often the end of a machine is asked for when the helper fails. */
const END_TRIES = 5;

/** Runs a build to its end. Never throws for what goes wrong with the build: that is an ending too. */
export async function runBuild(options: BuildOptions): Promise<Ending> {
  const folder = join(options.paths.builds, options.build);
  try {
    await makeBuildFolder(folder, options.paths.toolchain, options.task);
    const progress = new Progress(options);
    const { server, place } = await openInstance(options, folder, progress);
    await using _server = server;
    return await runMachine(options, folder, { place, progress });
  } catch (error) {
    if (options.signal.aborted) return { kind: 'interrupted' };
    return failed(error);
  }
}

/** What the machine has done so far, as its TFTP instance sees it. */
class Progress {
  readonly asked: Promise<void>;
  readonly result: Promise<void>;
  hasAsked = false;
  readonly #options: BuildOptions;
  readonly #asked = Promise.withResolvers<void>();
  readonly #result = Promise.withResolvers<void>();

  constructor(options: BuildOptions) {
    this.#options = options;
    this.asked = this.#asked.promise;
    this.result = this.#result.promise;
  }

  readonly onTransfer = (event: TransferEvent): void => {
    if (event.result === 'failed') {
      const what = `${event.direction} of ${JSON.stringify(event.name.slice(0, 60))}`;
      this.#options.onLine(`TFTP: ${what} failed after ${event.bytes} bytes: ${event.error ?? 'no reason given'}`);
    } else if (event.direction === 'read' && event.name === TASK_FILE && !this.hasAsked) {
      this.hasAsked = true;
      this.#options.onStarted();
      this.#asked.resolve();
    }
  };

  readonly onWritten = (name: string): void => {
    if (name === RESULT_FILE) this.#result.resolve();
  };
}

/** Starts the machine's own TFTP instance on the first port that is free. */
async function openInstance(
  options: BuildOptions,
  folder: string,
  progress: Progress,
): Promise<{ readonly server: TftpServer; readonly place: Place }> {
  const { paths, quotas } = options;
  let tries = 0;
  for (const port of portsFor(options.toolchain, options.number)) {
    const address = machineAddress(port);
    try {
      const server = await serveMachine({
        folder,
        address: paths.tftpAddress,
        port,
        peer: paths.tftpPeer ?? address,
        writable: {
          // The result may come again when its last ACK was lost: a second one takes the place of the first.
          [RESULT_FILE]: { maxBytes: quotas.resultBytes, rule: 'replace' },
          [LOG_FILE]: { maxBytes: quotas.logBytes, rule: 'append' },
          [UPLOAD_FILE]: { maxBytes: quotas.uploadBytes, rule: 'replace' },
        },
        onTransfer: progress.onTransfer,
        onWritten: progress.onWritten,
        onError: (error) => options.onLine(`TFTP: ${error.message}`),
      });
      return { server, place: { address, port } };
    } catch (error) {
      tries += 1;
      const isTaken = error instanceof ListenError && systemCode(error.cause) === 'EADDRINUSE';
      if (!isTaken || tries >= PORT_TRIES) throw error;
    }
  }
  throw new RangeError('Cannot start a TFTP instance: no port is left');
}

async function runMachine(
  options: BuildOptions,
  folder: string,
  { place, progress }: { readonly place: Place; readonly progress: Progress },
): Promise<Ending> {
  const { build, machine, toolchain, limits, signal } = options;
  const helper: RunOptions = { socket: options.paths.helperSocket, onStep: options.onLine };
  try {
    await bootMachine({ build, machine, toolchain, place, limits }, { ...helper, signal });
    const ending = await waitForEnd(options, progress);
    // The result counts as soon as it is whole, also when the machine ended at the same moment.
    const text = await readWritten(folder, RESULT_FILE);
    return text === undefined || ending.kind === 'interrupted' ? ending : { kind: 'result', text };
  } catch (error) {
    return signal.aborted ? { kind: 'interrupted' } : failed(error);
  } finally {
    await endStubbornly(machine.volume, build, helper);
  }
}

/** The first of: a result, the machine's end, a limit, an interruption. */
async function waitForEnd(options: BuildOptions, progress: Progress): Promise<Ending> {
  const { times } = options;
  const over = new AbortController();
  const signal = over.signal;
  const timer = async (ms: number): Promise<void> => {
    await sleep(ms, undefined, { signal, ref: false });
  };
  const ways: readonly Promise<Ending>[] = [
    progress.result.then((): Ending => ({ kind: 'result', text: '' })),
    waitMachineStubbornly(options, signal).then((end): Ending => ({ kind: 'ended', end, asked: progress.hasAsked })),
    timer(times.taskMs).then((): Ending => ({ kind: 'timeout', seconds: times.taskMs / 1000 })),
    timer(times.startMs).then(async (): Promise<Ending> => {
      if (!progress.hasAsked) return { kind: 'silent', seconds: times.startMs / 1000 };
      await progress.result;
      return { kind: 'result', text: '' };
    }),
    aborted(options.signal, signal).then((): Ending => ({ kind: 'interrupted' })),
  ];
  try {
    return await Promise.race(ways);
  } finally {
    over.abort();
    // The others end by the abort; what they say then is of no interest.
    for (const way of ways) way.catch(() => undefined);
  }
}

/** A helper that is restarted meanwhile must not end the build. */
async function waitMachineStubbornly(options: BuildOptions, signal: AbortSignal): ReturnType<typeof waitMachine> {
  for (;;) {
    try {
      return await waitMachine(options.build, { socket: options.paths.helperSocket, signal });
    } catch (error) {
      if (signal.aborted || !(error instanceof HelperError)) throw error;
      options.onLine(`cannot see whether the machine runs: ${error.message}`);
      await sleep(2000, undefined, { signal });
    }
  }
}

/** Nothing of a machine may stay: it is tried again; what is left after that is cleaned up at the agent's next start. */
async function endStubbornly(volume: string, build: string, helper: RunOptions): Promise<void> {
  for (let attempt = 1; attempt <= END_TRIES; attempt += 1) {
    try {
      await endMachine(volume, build, helper);
      return;
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      helper.onStep?.(`cannot end ${build}, try ${attempt} of ${END_TRIES}: ${message}`);
      if (attempt < END_TRIES) await sleep(1000 * attempt);
    }
  }
}

function aborted(signal: AbortSignal, over: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const onAbort = (): void => resolve();
  if (signal.aborted) resolve();
  else signal.addEventListener('abort', onAbort, { once: true });
  over.addEventListener('abort', () => signal.removeEventListener('abort', onAbort), { once: true });
  return promise;
}

function failed(error: unknown): Ending {
  const message = error instanceof Error ? error.message : String(error);
  const hint: unknown = error instanceof Error && 'hint' in error ? error.hint : undefined;
  return { kind: 'failed', message, ...(typeof hint === 'string' ? { hint } : {}) };
}
