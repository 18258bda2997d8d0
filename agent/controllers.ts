/**
 * The controllers of an agent: whom to ask for a task, and when again. Each is left alone for longer while it has nothing or
 * cannot be reached; which ones are asked at all, and in which order, is priority.ts's.
 */
import type { KeyObject } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import type { Machine } from '../machines/enumerate.ts';
import { keyFingerprint } from '../manifests/challenge.ts';
import { formatTaskRequest } from '../manifests/task-request.ts';
import { hasTask } from '../manifests/task-response.ts';
import type { TaskGiven } from '../manifests/task-response.ts';
import { askForTask, ExchangeError } from './exchange.ts';
import { planPoll } from './priority.ts';
import type { ControllerOption } from './priority.ts';
import type { Report } from './report.ts';
import { pauseMs } from './settings.ts';
import type { Times } from './settings.ts';

export interface ControllersOptions {
  readonly toolchain: string;
  readonly controllers: readonly ControllerOption[];
  readonly key: KeyObject;
  readonly times: Times;
  /** The monitor's status, for the version of the toolchain. */
  readonly statusFile: string;
  readonly signal: AbortSignal;
  readonly report: Report;
}

/** What is offered to them. */
export interface Offer {
  readonly machines: readonly Machine[];
  /** Priorities of the tasks that run. */
  readonly running: readonly string[];
  /** Takes the task that one of them gave; it has it when this returns. */
  readonly onTask: (given: TaskGiven, controller: ControllerOption) => Promise<void>;
}

/** When a controller may be asked again, and how long it has brought nothing. */
interface Patience {
  readonly nextMs: number;
  readonly failures: number;
  readonly empty: number;
}

export class Controllers {
  readonly #o: ControllersOptions;
  readonly #patience = new Map<string, Patience>();

  constructor(options: ControllersOptions) {
    this.#o = options;
  }

  /** Asks those whose time has come, until one gives a task. @returns ms to wait before the next turn; 0 after a task */
  async ask(offer: Offer): Promise<number> {
    let next = Number.POSITIVE_INFINITY;
    for (const controller of planPoll(this.#o.controllers, offer.running)) {
      const patience = this.#patience.get(controller.url) ?? { nextMs: 0, failures: 0, empty: 0 };
      if (this.#o.signal.aborted) return 0;
      if (patience.nextMs > performance.now()) {
        next = Math.min(next, patience.nextMs - performance.now());
        continue;
      }
      const after = await this.#askOne(controller, offer, patience);
      if (after === 'taken') return 0;
      this.#patience.set(controller.url, after);
      next = Math.min(next, Math.max(1, after.nextMs - performance.now()));
    }
    return next;
  }

  async #askOne(controller: ControllerOption, offer: Offer, patience: Patience): Promise<'taken' | Patience> {
    const { times, toolchain, signal, key, report } = this.#o;
    const subject = `controller ${controller.url}`;
    try {
      const request = formatTaskRequest({
        agent: agentName(toolchain),
        toolchainName: toolchain,
        toolchainVersion: await this.#toolchainVersion(),
        interactiveMode: 'false',
        fingerprint: keyFingerprint(key),
        machines: offer.machines.map(({ manifest }) => manifest),
      });
      // Not ended at once when we are told to stop: the task of an answer that nobody reads would be lost for hours.
      using late = lateSignal(signal, times.stopMs);
      const response = await askForTask(controller.url, request, { timeoutMs: times.requestMs, signal: late.signal });
      report.fine(subject);
      if (hasTask(response)) {
        await offer.onTask(response, controller);
        this.#patience.delete(controller.url);
        return 'taken';
      }
      const empty = patience.empty + 1;
      return { empty, failures: 0, nextMs: performance.now() + pauseMs(times.idleMs, empty, Math.random()) };
    } catch (error) {
      if (!(error instanceof ExchangeError)) {
        if (signal.aborted) return patience;
        throw error;
      }
      const failures = patience.failures + 1;
      const wait = pauseMs(times.errorMs, failures, Math.random());
      const hint = error.hint === undefined ? '' : ` (${error.hint})`;
      report.problem(subject, `${error.message}${hint}; it is asked again, with growing pauses`);
      return { failures, empty: 0, nextMs: performance.now() + wait };
    }
  }

  /** From the monitor's status; it may change while we run only together with a new agent. */
  async #toolchainVersion(): Promise<string> {
    try {
      const status: unknown = JSON.parse(await readFile(this.#o.statusFile, 'utf8'));
      const found = member(member(member(status, 'toolchains'), this.#o.toolchain), 'version');
      return typeof found === 'string' && found !== '' ? found : 'unknown';
    } catch {
      return 'unknown';
    }
  }
}

/** A signal that follows another one by some time. */
function lateSignal(signal: AbortSignal, ms: number): Disposable & { readonly signal: AbortSignal } {
  const late = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  const onAbort = (): void => {
    timer = setTimeout(() => late.abort(signal.reason), ms);
  };
  if (signal.aborted) onAbort();
  else signal.addEventListener('abort', onAbort, { once: true });
  return {
    signal: late.signal,
    [Symbol.dispose]: () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', onAbort);
    },
  };
}

/** What controllers call this agent: the host's name, and the toolchain's unless it is the usual one. */
function agentName(toolchain: string): string {
  const host = hostname()
    .replaceAll(/[^A-Za-z0-9._-]+/g, '-')
    .replace(/^[^A-Za-z0-9]+/, '');
  const name = host === '' ? 'build-host' : host.slice(0, 100);
  return toolchain === 'default' ? name : `${name}-${toolchain}`;
}

const member = (value: unknown, name: string): unknown =>
  typeof value === 'object' && value !== null ? Object.entries(value).find(([key]) => key === name)?.[1] : undefined;
