/**
 * The monitor at work: serves the TFTP folder, and goes round: plan, begin the steps, take in what they tell.
 *
 *     plan(state) ──► steps ──► perform(step) ──► events ──► next(state, event) ──► plan(state) …
 *
 * Steps run beside each other, since a bootstrap takes minutes; whatever they find out comes back as an event. All
 * decisions are in plan.ts and next.ts. The round also feeds the watchdog, so a round that stops is noticed.
 */
import { mkdir, readFile, rm } from 'node:fs/promises';
import { uptime } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { openLocal } from '../connections/local.ts';
import { HelperError, callHelper } from '../helper/client.ts';
import { parseHostJson } from '../host/host-json.ts';
import type { HostJson } from '../host/host-json.ts';
import type { ToolchainOptions } from '../host/kernel-cmdline.ts';
import { notify, statusLine } from '../host/sd-notify.ts';
import type { TftpServer } from '../tftp/serve-options.ts';
import { serveFolder } from '../tftp/server.ts';
import type { TransferEvent } from '../tftp/transfer-event.ts';
import { TransferStats } from '../tftp/stats.ts';
import { seeAgents } from './agents.ts';
import { writeAtomically } from './atomic-file.ts';
import { findStateStorage, loadBudget, saveBudget } from './budget-file.ts';
import { logEvent, withHint } from './event-log.ts';
import type { Event } from './event.ts';
import { FILE_LIMITS, TEXT_LIMITS } from './fetch.ts';
import { nameHost } from './hostname.ts';
import { type Log, limitRate, openLog } from './log.ts';
import { checkTargets, lookAtAll } from './look.ts';
import { next } from './next.ts';
import type { Paths } from './paths.ts';
import { isRebootOverdue, plan } from './plan.ts';
import { findUnsigned } from './signed.ts';
import { type Clock, type MonitorState, TIMING, type Timing, startState, targetsKey } from './state.ts';
import { formatStatus, formatStatusLine, parseEvents, statusOf } from './status.ts';
import { type Step, describe, isNoteworthy, keyOf } from './step.ts';
import { troubleOf, tryToolchain } from './toolchain.ts';

/** How a monitor is run. */
export interface MonitorOptions {
  readonly paths: Paths;
  /** the socket from systemd, or where to listen */
  readonly listen: { readonly fd: number } | { readonly address: string; readonly port: number };
  /** overrides {@link TIMING} */
  readonly timing?: Partial<Timing>;
  /** overrides what the mount says, for a folder that plays the state disk */
  readonly stateStorage?: 'disk' | 'ram';
  /** half of what systemd waits for; undefined: no watchdog */
  readonly watchdogMs: number | undefined;
  /** writes a line to the journal */
  readonly print: (line: string) => void;
  /** ends the monitor */
  readonly signal: AbortSignal;
}

/** A round begins at least so often, whatever happens. */
const ROUND_MS = 500;
/** status.json is written at least so often, so that its age says whether the monitor lives. */
const STATUS_EVERY_MS = 10_000;
/** systemd gives a starting service this much more each time we say that we are alive. */
const START_EXTENSION_USEC = 60_000_000;
const BOOTSTRAP_POLL_MS = 1000;
/** At the end, steps under way get so long to let go of what they hold. */
const STOP_MS = 3000;

/**
 * Runs until `signal` is aborted.
 *
 * @throws {HostJsonError} {ListenError} when the host is not one that can be monitored
 */
export async function runMonitor(options: MonitorOptions): Promise<void> {
  const { paths } = options;
  await mkdir(paths.tftp, { recursive: true });
  const log = openLog(paths.log, options.print);
  const host = withWarnings(parseHostJson(await readFile(paths.hostJson, 'utf8')));
  for (const problem of host.problems) {
    log(
      'warning',
      `kernel option ${problem.name}: ${problem.message}${problem.hint === undefined ? '' : ` (${problem.hint})`}`,
    );
  }
  const stats = new TransferStats();
  await using server = await serve(options, log, stats);
  log('notice', `serving ${paths.tftp} on ${server.address}:${server.port}; build id ${host.buildId}`);
  await using monitor = new Monitor({ options, host, log, stats }, await firstState(options, host, log));
  await monitor.run();
  log('notice', 'stopping');
  notify(`STOPPING=1\n${statusLine('Stopping')}`);
}

/** Not of init: on the console, those who mean it so would read it at every boot. */
function withWarnings(host: HostJson): HostJson {
  return { ...host, problems: [...host.problems, ...findUnsigned(host.options)] };
}

async function serve(options: MonitorOptions, log: Log, stats: TransferStats): Promise<TftpServer> {
  const limited = limitRate(log, 30, 10_000);
  return serveFolder({
    folder: options.paths.tftp,
    ...options.listen,
    onBegin: () => stats.begin(),
    onTransfer(event) {
      stats.add(event);
      logTransfer(event, limited);
    },
    onError: (error) => limited('error', `TFTP: ${error.message}`),
  });
}

/** Those who watch the host read these every second. */
const READ_OFTEN = new Set(['status.json', 'monitor.log']);

function logTransfer(event: TransferEvent, log: Log): void {
  const line = `TFTP: ${event.peer} read ${JSON.stringify(event.name)}`;
  if (event.result === 'failed') log('info', `${line} failed: ${event.error ?? 'no reason'}`);
  else if (!READ_OFTEN.has(event.name))
    log('info', `${line}, ${event.bytes} bytes in ${Math.round(event.durationMs)} ms`);
}

async function firstState(options: MonitorOptions, host: HostJson, log: Log): Promise<MonitorState> {
  const { paths } = options;
  const clock = readClock();
  const stateStorage = options.stateStorage ?? (await findStateStorage(paths));
  const { budget, problem } = await loadBudget(paths, stateStorage, clock.wallMs);
  if (problem !== undefined) log('error', `reboot budget: ${problem}`);
  const drain = await readFile(paths.drain, 'utf8').catch(() => undefined);
  if (drain !== undefined) log('notice', 'an earlier monitor has begun to drain; the next look decides');
  return startState(
    {
      buildId: host.buildId,
      watchesImage: host.options.buildidUrl !== undefined,
      isNamed: host.options.hostname !== undefined,
      timing: { ...TIMING, lookEveryMs: host.options.monitorIntervalSeconds * 1000, ...options.timing },
      toolchains: Object.entries(host.options.toolchains).map(([name, one]) => ({
        name,
        wantsAgent: one.controllers.length > 0,
      })),
      stateStorage,
      events: parseEvents(await readFile(paths.statusJson, 'utf8').catch(() => '')),
      ...(budget === undefined ? {} : { budget }),
      ...(problem === undefined ? {} : { budgetProblem: problem }),
      ...(drain === undefined ? {} : { drain: drainReason(drain) }),
    },
    clock,
  );
}

function drainReason(text: string): string {
  try {
    const data: unknown = JSON.parse(text);
    if (typeof data === 'object' && data !== null && 'reason' in data) return String(data.reason).slice(0, 400);
  } catch {
    // Cut short by a kill: the file alone counts.
  }
  return 'a change that an earlier monitor has seen';
}

function readClock(): Clock {
  return { uptimeMs: uptime() * 1000, wallMs: Date.now() };
}

/** Holds the state, the steps under way, and what was last said. */
class Monitor implements AsyncDisposable {
  readonly #options: MonitorOptions;
  readonly #host: HostJson;
  readonly #log: Log;
  readonly #stats: TransferStats;
  readonly #local = openLocal();
  readonly #stop = new AbortController();
  readonly #signal: AbortSignal;
  readonly #underWay = new Map<string, Promise<void>>();
  #state: MonitorState;
  #wake = (): void => undefined;
  #said = '';
  #statusKey = '';
  #statusAtMs = Number.NEGATIVE_INFINITY;
  #fedAtMs = Number.NEGATIVE_INFINITY;
  #isReadySaid = false;

  constructor(
    parts: {
      readonly options: MonitorOptions;
      readonly host: HostJson;
      readonly log: Log;
      readonly stats: TransferStats;
    },
    state: MonitorState,
  ) {
    const { options, host, log, stats } = parts;
    this.#options = options;
    this.#host = host;
    this.#log = log;
    this.#stats = stats;
    this.#state = state;
    this.#signal = AbortSignal.any([options.signal, this.#stop.signal]);
  }

  async run(): Promise<void> {
    while (!this.#signal.aborted) {
      const clock = readClock();
      if (isRebootOverdue(this.#state, clock)) {
        const error = `The host is still here ${this.#state.timing.rebootMs} ms after the reboot was asked for`;
        this.#take({ kind: 'reboot-failed', trouble: { error, hint: 'journalctl -u buildos-helper' } });
      }
      for (const step of plan(this.#state, clock)) this.#begin(step);
      await this.#say(clock);
      await this.#nextRound();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new Error('The monitor stops'));
    const all = Promise.allSettled(this.#underWay.values());
    await Promise.race([all, sleep(STOP_MS, undefined, { ref: false })]);
    await this.#local[Symbol.asyncDispose]();
  }

  /** Until an event wants a new plan, or the time is up. */
  #nextRound(): Promise<void> {
    return new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ROUND_MS);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
      this.#signal.addEventListener('abort', this.#wake, { once: true });
    }).then(() => this.#signal.removeEventListener('abort', this.#wake));
  }

  #take(event: Event): void {
    this.#state = next(this.#state, event, readClock());
    logEvent(event, this.#log);
    this.#wake();
  }

  #begin(step: Step): void {
    if (isNoteworthy(step)) this.#log('info', describe(step));
    this.#take({ kind: 'began', step });
    const work = this.#perform(step)
      .catch((error: unknown) => {
        if (!this.#signal.aborted) this.#take({ kind: 'setback', step, trouble: troubleOf(error) });
      })
      .finally(() => {
        this.#underWay.delete(keyOf(step));
        this.#take({ kind: 'ended', step });
      });
    this.#underWay.set(keyOf(step), work);
  }

  /** One exhaustive switch; what it finds out goes to {@link next}. */
  async #perform(step: Step): Promise<void> {
    const { paths } = this.#options;
    const signal = this.#signal;
    switch (step.kind) {
      case 'try-toolchain':
        return this.#take(
          await tryToolchain({
            name: step.toolchain,
            url: this.#toolchain(step.toolchain)?.url,
            trust: this.#toolchain(step.toolchain)?.trust,
            paths,
            local: this.#local,
            textLimits: TEXT_LIMITS,
            fileLimits: FILE_LIMITS,
            pollMs: BOOTSTRAP_POLL_MS,
            signal,
            log: this.#log,
            tell: (event) => this.#take(event),
          }),
        );
      case 'start-agent':
        return this.#startAgent(step.toolchain);
      case 'see-agents':
        return this.#take({ kind: 'agents-seen', agents: await seeAgents(step, paths, signal) });
      case 'name-host': {
        const name = await nameHost(paths, step.orElseMac, signal);
        if (name !== undefined) this.#log('notice', `the host is named ${name}`);
        return this.#take({ kind: 'named', isDone: name !== undefined || step.orElseMac });
      }
      case 'say-ready':
        return this.#take({ kind: 'ready' });
      case 'look':
        return this.#take({ kind: 'looked', found: await lookAtAll(this.#host, this.#signal), random: Math.random() });
      case 'verify':
        return this.#verify(step.targets, step.duringDrain);
      case 'drain':
        await writeAtomically(paths.drain, `${JSON.stringify({ reason: step.reason })}\n`, { isDurable: false });
        return this.#take({ kind: 'drain-on', reason: step.reason });
      case 'undrain':
        await rm(paths.drain, { force: true });
        return this.#take({ kind: 'drain-off' });
      case 'save-budget':
        return this.#saveBudget(step.budget);
      case 'reboot':
        return this.#reboot(step);
    }
  }

  #toolchain(name: string): ToolchainOptions | undefined {
    return this.#host.options.toolchains[name];
  }

  /** Started is not ready: that is seen by and by, see agents.ts. */
  async #startAgent(toolchain: string): Promise<void> {
    const call = { socket: this.#options.paths.helperSocket, signal: this.#signal };
    try {
      await callHelper({ verb: 'agent.start', toolchain }, call);
      this.#take({ kind: 'agent-started', toolchain });
    } catch (error) {
      if (this.#signal.aborted) return;
      this.#take({ kind: 'agent-failed', toolchain, trouble: troubleOf(error) });
    }
  }

  async #verify(targets: readonly string[], duringDrain: boolean): Promise<void> {
    const key = targetsKey(targets);
    try {
      await checkTargets(targets, this.#host, this.#signal);
      this.#take({ kind: 'verified', key, isGood: true, duringDrain });
    } catch (error) {
      this.#signal.throwIfAborted();
      this.#take({ kind: 'verified', key, isGood: false, why: withHint(troubleOf(error)), duringDrain });
    }
  }

  async #saveBudget(budget: Parameters<typeof saveBudget>[1]): Promise<void> {
    try {
      await saveBudget(this.#options.paths, budget);
      this.#take({ kind: 'budget-saved' });
    } catch (error) {
      this.#take({ kind: 'budget-lost', problem: troubleOf(error).error });
    }
  }

  /** In this order: a reboot that is not remembered could be a loop, and an agent stopped early could have kept on. */
  async #reboot(step: Extract<Step, { readonly kind: 'reboot' }>): Promise<void> {
    const call = { socket: this.#options.paths.helperSocket, signal: this.#signal };
    if (step.budget !== undefined) {
      try {
        await saveBudget(this.#options.paths, step.budget);
      } catch (error) {
        return this.#take({ kind: 'budget-lost', problem: troubleOf(error).error });
      }
    }
    this.#take({ kind: 'reboot-asked', ...(step.budget === undefined ? {} : { budget: step.budget }) });
    await this.#say(readClock());
    for (const toolchain of step.agents) {
      await callHelper({ verb: 'agent.stop', toolchain }, call).catch((error: unknown) =>
        this.#log('warning', `agent ${toolchain} is not stopped: ${troubleOf(error).error}`),
      );
    }
    try {
      await callHelper({ verb: 'reboot', reason: step.reason }, call);
    } catch (error) {
      // No answer may be a reboot that was quicker; a refusal is none.
      const isRefused = error instanceof HelperError && error.reason === 'refused';
      if (isRefused && !this.#signal.aborted) this.#take({ kind: 'reboot-failed', trouble: troubleOf(error) });
      else this.#log('warning', troubleOf(error).error);
    }
  }

  /** Tells systemd and writes status.json, when there is something new or it is time. */
  async #say(clock: Clock): Promise<void> {
    const line = formatStatusLine(this.#state, clock);
    const isReady = this.#state.phase !== 'starting';
    if (isReady && !this.#isReadySaid) {
      this.#isReadySaid = true;
      notify(`READY=1\n${statusLine(line)}`);
    } else if (line !== this.#said) {
      notify(statusLine(line));
    }
    if (line !== this.#said) {
      this.#said = line;
      this.#log('notice', line);
    }
    const { watchdogMs } = this.#options;
    if (watchdogMs !== undefined && clock.uptimeMs - this.#fedAtMs >= watchdogMs / 2) {
      this.#fedAtMs = clock.uptimeMs;
      notify(isReady ? 'WATCHDOG=1' : `EXTEND_TIMEOUT_USEC=${START_EXTENSION_USEC}\nWATCHDOG=1`);
    }
    const status = statusOf(this.#state, this.#host.problems, clock, this.#stats.snapshot());
    // Who reads the file changes the counters: they are no reason to write it anew.
    const key = JSON.stringify({ ...status, uptimeMs: 0, bootedAt: '', tftp: undefined });
    if (key === this.#statusKey && clock.uptimeMs - this.#statusAtMs < STATUS_EVERY_MS) return;
    try {
      await writeAtomically(this.#options.paths.statusJson, formatStatus(status), { isDurable: false });
      this.#statusKey = key;
    } catch (error) {
      if (this.#statusKey !== '') this.#log('error', `status.json is not up to date: ${troubleOf(error).error}`);
      this.#statusKey = '';
    }
    this.#statusAtMs = clock.uptimeMs;
  }
}
