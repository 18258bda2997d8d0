/**
 * The agent of one toolchain: asks its controllers for tasks, runs each in a machine of its own, gives the results back.
 *
 * Its life: look at what an earlier agent left and clean it up; then two loops until it is told to stop, one that asks and
 * starts builds, one that delivers. A task is written down before its machine is made, and a result before the task is
 * forgotten, so that whenever this process dies, the next one knows what to say to the controller.
 */
import type { KeyObject } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { hostname, uptime } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ToolchainOptions } from '../host/kernel-cmdline.ts';
import { enumerateMachines } from '../machines/enumerate.ts';
import type { Machine } from '../machines/enumerate.ts';
import { buildName, isBuildOf, nextBuildNumber } from '../machines/name.ts';
import { cleanUp } from '../machines/run.ts';
import { keyFingerprint } from '../manifests/challenge.ts';
import { formatResult } from '../manifests/result.ts';
import type { Result } from '../manifests/result.ts';
import { formatTaskRequest } from '../manifests/task-request.ts';
import { hasTask } from '../manifests/task-response.ts';
import type { TaskGiven } from '../manifests/task-response.ts';
import { formatTask } from '../manifests/task.ts';
import {
  findWritten,
  listBuildFolders,
  pruneBuildFolders,
  readLogTail,
  thinBuildFolder,
  UPLOAD_FILE,
} from './build-folder.ts';
import { deliverAll } from './deliver.ts';
import { askForTask, ExchangeError } from './exchange.ts';
import type { Paths } from './paths.ts';
import { chooseMachine, makeResult, planRecovery, resultId, withoutUpload } from './plan.ts';
import type { Ending } from './plan.ts';
import { planPoll, wantsAllCpus } from './priority.ts';
import type { ControllerOption } from './priority.ts';
import { parseResultRecord, parseTaskRecord, resultRecord, taskOf } from './record.ts';
import type { ResultRecord, TaskRecord } from './record.ts';
import { runBuild } from './run.ts';
import { pauseMs } from './settings.ts';
import type { Settings } from './settings.ts';
import { Shelf } from './shelf.ts';
import { addEvent, writeState } from './state-file.ts';
import type { AgentEvent, AgentState, RunningTask } from './state-file.ts';

/** What an agent is given. */
export interface AgentOptions {
  readonly toolchain: string;
  readonly options: ToolchainOptions;
  readonly settings: Settings;
  readonly paths: Paths;
  readonly key: KeyObject;
  /** Aborting stops it: no more tasks, running ones are interrupted. */
  readonly signal: AbortSignal;
  /** A line for the journal. */
  readonly onLine: (line: string) => void;
  /** What it does now, in a line; called at every change and at least at every turn of its loop. */
  readonly onStatus: (status: string) => void;
  /** It has cleaned up and begins to ask. */
  readonly onReady: () => void;
}

/** Results that may wait for delivery before no more tasks are taken. */
const UNDELIVERED_MAX = 64;

/** Runs an agent until it is told to stop; then what ran has been given back, or waits on the disk. */
export async function runAgent(options: AgentOptions): Promise<void> {
  const agent = new Agent(options);
  await agent.start();
  options.onReady();
  await Promise.all([agent.ask(), agent.deliver()]);
  await agent.stop();
}

/** A build that runs. */
interface Running {
  readonly task: RunningTask;
  readonly priority: string;
  readonly done: Promise<void>;
}

/** When a controller may be asked again, and how long it has brought nothing. */
interface Patience {
  readonly nextMs: number;
  readonly failures: number;
  readonly empty: number;
}

class Agent {
  readonly #o: AgentOptions;
  readonly #tasks: Shelf<TaskRecord>;
  readonly #results: Shelf<ResultRecord>;
  readonly #running = new Map<string, Running>();
  readonly #patience = new Map<string, Patience>();
  #number = 1;
  #undelivered = 0;
  #state: AgentState['state'] = 'starting';
  #events: readonly AgentEvent[] = [];
  /** By subject, so that one that went right again takes only its own message away. */
  readonly #errors = new Map<string, string>();
  /** Ends the pause of a loop early. */
  #wakeAsk = new AbortController();
  #wakeDeliver = new AbortController();

  constructor(options: AgentOptions) {
    this.#o = options;
    const { paths } = options;
    const onProblem = (message: string): void => this.#problem('state', message);
    this.#tasks = new Shelf({
      folder: join(paths.state, 'tasks'),
      ramFolder: paths.ramTasks,
      parse: parseTaskRecord,
      onProblem,
    });
    this.#results = new Shelf({
      folder: join(paths.state, 'results'),
      ramFolder: paths.ramResults,
      parse: parseResultRecord,
      onProblem,
    });
  }

  /** Looks at what an earlier agent left: ends its machines, gives its tasks back. */
  async start(): Promise<void> {
    const { toolchain, paths, onLine } = this.#o;
    this.#report();
    await this.#cleanUp();
    await this.#tasks.sweep();
    await this.#results.sweep();
    const tasks = (await this.#tasks.list()).map(({ value }) => value);
    const results = (await this.#results.list()).map(({ value }) => value);
    for (const { kind, record } of planRecovery(tasks, results)) {
      if (kind === 'interrupt') {
        onLine(`${record.build} was running when an earlier agent ended: it is given back to the controller`);
        await this.#keepResult(record, makeResult(taskOf(record), { kind: 'interrupted' }, ''));
      }
      await this.#tasks.remove(record.build);
    }
    const folders = await listBuildFolders(paths.builds);
    const last = await readFile(join(paths.state, 'last-build'), 'utf8').catch(() => '');
    const known = [...folders, ...[...tasks, ...results].map(({ build }) => build), last.trim()];
    this.#number = nextBuildNumber(toolchain, known);
    await mkdir(paths.builds, { recursive: true, mode: 0o755 });
    for (const build of folders) await thinBuildFolder(join(paths.builds, build));
    this.#undelivered = (await this.#results.list()).length;
    this.#event('agent-ready');
  }

  /** Asks controllers and starts builds, until told to stop. */
  async ask(): Promise<void> {
    const { signal, settings, paths } = this.#o;
    while (!signal.aborted) {
      const draining = existsSync(paths.drain);
      const free = settings.instances - this.#running.size;
      this.#state = draining ? 'draining' : this.#running.size > 0 ? 'busy' : 'polling';
      this.#report();
      let wait = settings.times.drainMs;
      if (!draining && free > 0 && this.#undelivered < UNDELIVERED_MAX) wait = await this.#askOnce();
      else if (this.#undelivered >= UNDELIVERED_MAX) this.#problem('results', `${this.#undelivered} results wait`);
      if (wait > 0) await this.#pause(Math.min(wait, settings.times.idleMs[1]), this.#wakeAsk.signal);
      if (this.#wakeAsk.signal.aborted) this.#wakeAsk = new AbortController();
    }
    this.#state = 'draining';
    this.#report();
    await Promise.all([...this.#running.values()].map(({ done }) => done));
    this.#wakeDeliver.abort();
  }

  /** Delivers what is kept, until told to stop. */
  async deliver(): Promise<void> {
    const { signal, settings } = this.#o;
    let failures = 0;
    while (!signal.aborted) {
      if (this.#wakeDeliver.signal.aborted) this.#wakeDeliver = new AbortController();
      if (this.#undelivered > 0) failures = (await this.#deliverOnce(signal)) ? 0 : failures + 1;
      const wait = failures === 0 ? 60_000 : pauseMs(settings.times.errorMs, failures, Math.random());
      await this.#pause(wait, this.#wakeDeliver.signal);
    }
  }

  /** The last try to deliver, within its bound. */
  async stop(): Promise<void> {
    if (this.#undelivered > 0) await this.#deliverOnce(AbortSignal.timeout(this.#o.settings.times.stopMs));
    if (this.#undelivered > 0) this.#o.onLine(`${this.#undelivered} results wait for the next agent`);
    this.#report();
  }

  /** @returns ms to wait before the next turn; 0 when a task was taken */
  async #askOnce(): Promise<number> {
    const { options, settings } = this.#o;
    const machines = await this.#enumerate();
    if (machines.length === 0) {
      this.#problem('machines', `no machine in ${this.#o.paths.machines}: no task is asked for`);
      return settings.times.idleMs[1];
    }
    this.#fine('machines');
    const running = [...this.#running.values()].map(({ priority }) => priority);
    let next = Number.POSITIVE_INFINITY;
    for (const controller of planPoll(options.controllers, running)) {
      const patience = this.#patience.get(controller.url) ?? { nextMs: 0, failures: 0, empty: 0 };
      if (this.#o.signal.aborted) return 0;
      if (patience.nextMs > performance.now()) {
        next = Math.min(next, patience.nextMs - performance.now());
        continue;
      }
      const after = await this.#askController(controller, machines, patience);
      if (after === 'taken') return 0;
      this.#patience.set(controller.url, after);
      next = Math.min(next, Math.max(1, after.nextMs - performance.now()));
    }
    return next;
  }

  async #askController(
    controller: ControllerOption,
    machines: readonly Machine[],
    patience: Patience,
  ): Promise<'taken' | Patience> {
    const { settings, toolchain, signal, key } = this.#o;
    const subject = `controller ${controller.url}`;
    try {
      const request = formatTaskRequest({
        agent: agentName(toolchain),
        toolchainName: toolchain,
        toolchainVersion: await this.#toolchainVersion(),
        interactiveMode: 'false',
        fingerprint: keyFingerprint(key),
        machines: machines.map(({ manifest }) => manifest),
      });
      // Not ended at once when we are told to stop: the task of an answer that nobody reads would be lost for hours.
      using late = lateSignal(signal, settings.times.stopMs);
      const limits = { timeoutMs: settings.times.requestMs, signal: late.signal };
      const response = await askForTask(controller.url, request, limits);
      this.#fine(subject);
      if (hasTask(response)) {
        await this.#take(response, controller, machines);
        this.#patience.delete(controller.url);
        return 'taken';
      }
      const empty = patience.empty + 1;
      return { empty, failures: 0, nextMs: performance.now() + pauseMs(settings.times.idleMs, empty, Math.random()) };
    } catch (error) {
      if (!(error instanceof ExchangeError)) {
        if (signal.aborted) return patience;
        throw error;
      }
      const failures = patience.failures + 1;
      const wait = pauseMs(settings.times.errorMs, failures, Math.random());
      const hint = error.hint === undefined ? '' : ` (${error.hint})`;
      this.#problem(subject, `${error.message}${hint}; it is asked again, with growing pauses`);
      return { failures, empty: 0, nextMs: performance.now() + wait };
    }
  }

  /** Writes the task down, then starts its build beside the loop. */
  async #take(given: TaskGiven, controller: ControllerOption, machines: readonly Machine[]): Promise<void> {
    const { toolchain, paths, onLine } = this.#o;
    const { task, session, challenge, agentChecksum, resultUrl, uploadUrls } = given;
    const number = this.#number;
    this.#number += 1;
    const build = buildName(toolchain, number);
    const record: TaskRecord = {
      build,
      session,
      ...(challenge === undefined ? {} : { challenge }),
      ...(agentChecksum === undefined ? {} : { agentChecksum }),
      resultUrl,
      uploadUrls,
      priority: controller.priority,
      startedMs: Date.now(),
      task: formatTask(task),
    };
    await this.#tasks.put(build, record);
    // Only so that numbers grow over restarts; the folders say the same in most cases.
    await writeFile(join(paths.state, 'last-build'), `${build}\n`).catch(() => undefined);
    onLine(`${build}: ${task.name} ${task.version} for ${task.machine}, from ${controller.url}`);
    this.#event('task-claimed');
    const running: RunningTask = {
      build,
      name: task.name,
      version: task.version,
      machine: task.machine,
      startedMs: record.startedMs,
    };
    const done = this.#build(record, number, chooseMachine(machines, task.machine)).finally(() => {
      this.#running.delete(build);
      this.#wakeAsk.abort();
    });
    this.#running.set(build, { task: running, priority: controller.priority, done });
    this.#report();
  }

  /** One build, to its kept result. */
  async #build(record: TaskRecord, number: number, machine: Machine | undefined): Promise<void> {
    const { toolchain, settings, paths, signal, onLine } = this.#o;
    const { build } = record;
    const folder = join(paths.builds, build);
    const limits = wantsAllCpus(record.priority) ? { ...settings.limits, cpus: settings.allCpus } : settings.limits;
    const ending: Ending =
      machine === undefined
        ? { kind: 'failed', message: `this host has no machine ${taskOf(record).machine}` }
        : await runBuild({
            build,
            number,
            toolchain,
            machine,
            task: record.task,
            limits,
            quotas: settings.quotas,
            times: settings.times,
            paths,
            signal,
            onLine: (line) => onLine(`${build}: ${line}`),
            onStarted: () => this.#event('job-started'),
          });
    const result = makeResult(taskOf(record), ending, await readLogTail(folder).catch(() => ''));
    onLine(`${build}: ${ending.kind}, status ${result.status}`);
    const upload = ending.kind === 'result' ? await findWritten(folder, UPLOAD_FILE) : undefined;
    try {
      await this.#keepResult(record, result, upload);
      await this.#tasks.remove(build);
    } catch (error) {
      // The task's record stays, so the next start gives the task back.
      this.#problem('results', error instanceof Error ? error.message : String(error));
    }
    this.#event('result');
    await thinBuildFolder(folder).catch(() => undefined);
    const running = new Set(this.#running.keys());
    await pruneBuildFolders(paths.builds, toolchain, running).catch(() => undefined);
    this.#wakeDeliver.abort();
  }

  async #keepResult(record: TaskRecord, result: Result, upload?: string): Promise<void> {
    const id = resultId(record.session);
    const kept = await this.#results.put(id, resultRecord(record, formatResult(result)), upload);
    if (kept === 'ram-without-attachment') {
      const lost = withoutUpload(
        result,
        'The uploaded files could not be kept on the host: neither disk nor RAM has room.',
      );
      await this.#results.put(id, resultRecord(record, formatResult(lost)));
    }
    if (kept === 'disk') this.#fine('state');
    this.#undelivered += 1;
  }

  /** @returns whether nothing waits any more */
  async #deliverOnce(signal: AbortSignal): Promise<boolean> {
    const { settings, key, onLine } = this.#o;
    const round = await deliverAll({ shelf: this.#results, key, times: settings.times, signal, onLine });
    // Counted again: a build may have ended meanwhile.
    this.#undelivered = (await this.#results.list()).length;
    if (round.lastError === undefined) this.#fine('results');
    else this.#problem('results', `${round.waiting} results wait: ${round.lastError}`, { quiet: true });
    this.#report();
    return this.#undelivered === 0;
  }

  async #cleanUp(): Promise<void> {
    const { toolchain, paths, onLine, signal } = this.#o;
    for (let attempt = 1; ; attempt += 1) {
      try {
        const ended = await cleanUp((build) => isBuildOf(toolchain, build), 'default', {
          socket: paths.helperSocket,
          signal,
          onStep: (line) => onLine(`clean up: ${line}`),
        });
        if (ended.length > 0) onLine(`cleaned up after ${ended.join(', ')}`);
        this.#fine('helper');
        return;
      } catch (error) {
        if (signal.aborted) return;
        this.#problem('helper', error instanceof Error ? error.message : String(error));
        await this.#pause(pauseMs(this.#o.settings.times.errorMs, attempt, Math.random()), signal);
      }
    }
  }

  async #enumerate(): Promise<readonly Machine[]> {
    const { machines, problems } = await enumerateMachines(this.#o.paths.machines);
    const [first] = problems;
    if (first === undefined) this.#fine('machine');
    else this.#problem('machine', `machine ${first.volume}/${first.name} is left out: ${first.message}`);
    return machines.filter(({ manifest }) => manifest.role !== 'auxiliary' && manifest.type === 'nspawn');
  }

  /** From the monitor's status; it may change while we run only together with a new agent. */
  async #toolchainVersion(): Promise<string> {
    try {
      const status: unknown = JSON.parse(await readFile(this.#o.paths.status, 'utf8'));
      const found = member(member(member(status, 'toolchains'), this.#o.toolchain), 'version');
      return typeof found === 'string' && found !== '' ? found : 'unknown';
    } catch {
      return 'unknown';
    }
  }

  /** Waits, or less when the agent is told to stop or there is something to do. */
  async #pause(ms: number, wake: AbortSignal): Promise<void> {
    await sleep(ms, undefined, { signal: AbortSignal.any([this.#o.signal, wake]) }).catch(() => undefined);
  }

  #event(name: AgentEvent['name']): void {
    this.#events = addEvent(this.#events, { name, uptimeMs: Math.round(uptime() * 1000) });
    this.#report();
  }

  /** Notes what is wrong, and says it when it is new. */
  #problem(subject: string, message: string, options: { readonly quiet?: boolean } = {}): void {
    const isNew = this.#errors.get(subject) !== message;
    this.#errors.delete(subject);
    this.#errors.set(subject, message);
    if (isNew && options.quiet !== true) this.#o.onLine(message);
    this.#report();
  }

  #fine(subject: string): void {
    if (this.#errors.delete(subject)) this.#report();
  }

  #report(): void {
    const tasks = [...this.#running.values()].map(({ task }) => task);
    const lastError = [...this.#errors.values()].at(-1);
    const names = tasks.map(({ build, name, version }) => `${build} ${name} ${version}`).join(', ');
    const doing = tasks.length === 0 ? '' : `: ${names}`;
    const waiting = this.#undelivered === 0 ? '' : `; ${this.#undelivered} results undelivered`;
    this.#o.onStatus(`${this.#state}${doing}${waiting}${lastError === undefined ? '' : `; ${lastError}`}`);
    try {
      writeState(this.#o.paths.stateFile, {
        state: this.#state,
        tasks,
        undelivered: this.#undelivered,
        ...(lastError === undefined ? {} : { lastError }),
        events: this.#events,
      });
    } catch (error) {
      const message = `Cannot write the state file: ${error instanceof Error ? error.message : String(error)}`;
      if (this.#errors.get('state file') !== message) this.#o.onLine(message);
      this.#errors.set('state file', message);
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
