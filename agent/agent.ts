/**
 * The agent of one toolchain: asks its controllers for tasks, runs each in a machine of its own, gives the results back.
 *
 * Its life: look at what an earlier agent left and clean it up; then two loops until it is told to stop, one that asks and
 * starts builds, one that delivers. A task is written down before its machine is made, and a result before the task is
 * forgotten, so that whenever this process dies, the next one knows what to say to the controller.
 *
 * Left out: whom to ask and when (controllers.ts), delivering (outbox.ts), one build (run.ts), what is told of it all (report.ts).
 */
import type { KeyObject } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ToolchainOptions } from '../host/kernel-cmdline.ts';
import { enumerateMachines } from '../machines/enumerate.ts';
import type { Machine } from '../machines/enumerate.ts';
import { buildName, isBuildOf, nextBuildNumber } from '../machines/name.ts';
import { cleanUp } from '../machines/run.ts';
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
import { Controllers } from './controllers.ts';
import { Outbox } from './outbox.ts';
import type { Paths } from './paths.ts';
import { chooseMachine, makeResult, planRecovery } from './plan.ts';
import type { Ending } from './plan.ts';
import { wantsAllCpus } from './priority.ts';
import type { ControllerOption } from './priority.ts';
import { parseTaskRecord, taskOf } from './record.ts';
import type { TaskRecord } from './record.ts';
import { Report } from './report.ts';
import { runBuild } from './run.ts';
import { pauseMs } from './settings.ts';
import type { Settings } from './settings.ts';
import { Shelf } from './shelf.ts';
import type { AgentState, RunningTask } from './state-file.ts';

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

class Agent {
  readonly #o: AgentOptions;
  readonly #tasks: Shelf<TaskRecord>;
  readonly #running = new Map<string, Running>();
  readonly #report: Report;
  readonly #controllers: Controllers;
  readonly #outbox: Outbox;
  #number = 1;
  #state: AgentState['state'] = 'starting';
  /** Ends the pause of a loop early. */
  #wakeAsk = new AbortController();

  constructor(options: AgentOptions) {
    this.#o = options;
    const { toolchain, paths, settings, key, signal, onLine, onStatus } = options;
    this.#report = new Report({
      stateFile: paths.stateFile,
      onLine,
      onStatus,
      look: () => ({
        state: this.#state,
        tasks: [...this.#running.values()].map(({ task }) => task),
        undelivered: this.#outbox.waiting,
      }),
    });
    this.#controllers = new Controllers({
      toolchain,
      controllers: options.options.controllers,
      key,
      times: settings.times,
      statusFile: paths.status,
      signal,
      report: this.#report,
    });
    this.#tasks = new Shelf({
      folder: join(paths.state, 'tasks'),
      ramFolder: paths.ramTasks,
      parse: parseTaskRecord,
      onProblem: (message) => this.#report.problem('state', message),
    });
    this.#outbox = new Outbox({ paths, key, times: settings.times, signal, report: this.#report, onLine });
  }

  /** Looks at what an earlier agent left: ends its machines, gives its tasks back. */
  async start(): Promise<void> {
    const { toolchain, paths, onLine } = this.#o;
    this.#report.renew();
    await this.#cleanUp();
    await this.#tasks.sweep();
    const tasks = (await this.#tasks.list()).map(({ value }) => value);
    const results = await this.#outbox.open();
    for (const { kind, record } of planRecovery(tasks, results)) {
      if (kind === 'interrupt') {
        onLine(`${record.build} was running when an earlier agent ended: it is given back to the controller`);
        await this.#outbox.keep(record, makeResult(taskOf(record), { kind: 'interrupted' }, ''));
      }
      await this.#tasks.remove(record.build);
    }
    const folders = await listBuildFolders(paths.builds);
    const last = await readFile(join(paths.state, 'last-build'), 'utf8').catch(() => '');
    const known = [...folders, ...[...tasks, ...results].map(({ build }) => build), last.trim()];
    this.#number = nextBuildNumber(toolchain, known);
    await mkdir(paths.builds, { recursive: true, mode: 0o755 });
    for (const build of folders) await thinBuildFolder(join(paths.builds, build));
    this.#report.event('agent-ready');
  }

  /** Asks controllers and starts builds, until told to stop. */
  async ask(): Promise<void> {
    const { signal, settings, paths } = this.#o;
    while (!signal.aborted) {
      const draining = existsSync(paths.drain);
      const free = settings.instances - this.#running.size;
      this.#state = draining ? 'draining' : this.#running.size > 0 ? 'busy' : 'polling';
      this.#report.renew();
      let wait = settings.times.drainMs;
      if (!draining && free > 0 && this.#outbox.waiting < UNDELIVERED_MAX) wait = await this.#askOnce();
      else if (this.#outbox.waiting >= UNDELIVERED_MAX)
        this.#report.problem('results', `${this.#outbox.waiting} results wait`);
      if (wait > 0) await this.#pause(Math.min(wait, settings.times.idleMs[1]), this.#wakeAsk.signal);
      if (this.#wakeAsk.signal.aborted) this.#wakeAsk = new AbortController();
    }
    this.#state = 'draining';
    this.#report.renew();
    await Promise.all([...this.#running.values()].map(({ done }) => done));
    this.#outbox.wake();
  }

  /** Delivers what is kept, until told to stop. */
  async deliver(): Promise<void> {
    await this.#outbox.run();
  }

  /** The last try to deliver, within its bound. */
  async stop(): Promise<void> {
    await this.#outbox.tryOnce();
    this.#report.renew();
  }

  /** @returns ms to wait before the next turn; 0 when a task was taken */
  async #askOnce(): Promise<number> {
    const machines = await this.#enumerate();
    if (machines.length === 0) {
      this.#report.problem('machines', `no machine in ${this.#o.paths.machines}: no task is asked for`);
      return this.#o.settings.times.idleMs[1];
    }
    this.#report.fine('machines');
    return await this.#controllers.ask({
      machines,
      running: [...this.#running.values()].map(({ priority }) => priority),
      onTask: async (given, controller) => await this.#take(given, controller, machines),
    });
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
    this.#report.event('task-claimed');
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
    this.#report.renew();
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
            onStarted: () => this.#report.event('job-started'),
          });
    const result = makeResult(taskOf(record), ending, await readLogTail(folder).catch(() => ''));
    onLine(`${build}: ${ending.kind}, status ${result.status}`);
    const upload = ending.kind === 'result' ? await findWritten(folder, UPLOAD_FILE) : undefined;
    try {
      await this.#outbox.keep(record, result, upload);
      await this.#tasks.remove(build);
    } catch (error) {
      // The task's record stays, so the next start gives the task back.
      this.#report.problem('results', error instanceof Error ? error.message : String(error));
    }
    this.#report.event('result');
    await thinBuildFolder(folder).catch(() => undefined);
    const running = new Set(this.#running.keys());
    await pruneBuildFolders(paths.builds, toolchain, running).catch(() => undefined);
    this.#outbox.wake();
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
        this.#report.fine('helper');
        return;
      } catch (error) {
        if (signal.aborted) return;
        this.#report.problem('helper', error instanceof Error ? error.message : String(error));
        await this.#pause(pauseMs(this.#o.settings.times.errorMs, attempt, Math.random()), signal);
      }
    }
  }

  async #enumerate(): Promise<readonly Machine[]> {
    const { machines, problems } = await enumerateMachines(this.#o.paths.machines);
    const [first] = problems;
    if (first === undefined) this.#report.fine('machine');
    else this.#report.problem('machine', `machine ${first.volume}/${first.name} is left out: ${first.message}`);
    return machines.filter(({ manifest }) => manifest.role !== 'auxiliary' && manifest.type === 'nspawn');
  }

  /** Waits, or less when the agent is told to stop or there is something to do. */
  async #pause(ms: number, wake: AbortSignal): Promise<void> {
    await sleep(ms, undefined, { signal: AbortSignal.any([this.#o.signal, wake]) }).catch(() => undefined);
  }
}
