/**
 * The demo's task, as a person with a controller and a TFTP client does it: given with `buildos submit`, its log read from the
 * host again and again while it grows, its result and files fetched from the controller.
 */
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { text } from '../connections/connection.ts';
import { type TaskView, taskViewSchema } from '../controller/task-view.ts';
import { DemoError } from './demo-error.ts';
import type { Lab } from './lab.ts';
import { logPath, readHostFile, readStatus } from './status.ts';

export interface DemoTask {
  readonly lab: Lab;
  readonly controllerUrl: string;
  /** `cli/main.ts`. */
  readonly cli: string;
  /** Options of `buildos submit`, by name: `--name`, … */
  readonly task: Readonly<Record<string, string>>;
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
  /** Where `results/` goes. */
  readonly folder: string;
  /** Where to look when something went wrong. */
  readonly hint: string;
}

export interface FinishedTask {
  readonly task: TaskView;
  readonly log: string;
  /** How often the log was longer than before while the build ran. */
  readonly readsWhileRunning: number;
}

/**
 * Has the host build the task.
 *
 * @param say - gets the log's latest lines
 * @throws {DemoError} when it is not built, or its log could not be read meanwhile
 */
export async function runTask(options: DemoTask, say: (line: string) => void): Promise<FinishedTask> {
  const { lab, controllerUrl, hint, folder } = options;
  const submit = [process.execPath, options.cli, 'submit', '--controller', controllerUrl, '--wait', '--json'];
  const ended = new AbortController();
  const submitted = lab
    .run([...submit, ...Object.entries(options.task).flat()], {
      okStatus: 'any',
      timeoutMs: options.timeoutMs + 10_000,
      signal: options.signal,
    })
    .finally(() => ended.abort());
  const live = followLog(lab, ended.signal, say);
  const answer = await submitted;
  const followed = await live;
  if (answer.stdout.length === 0) {
    throw new DemoError(`Cannot give the task: ${Buffer.from(answer.stderr).toString('utf8').trim()}`, hint);
  }
  const task = taskViewSchema.parse(JSON.parse(text(answer)));
  const results = join(folder, 'results');
  await collect(lab, { controllerUrl, task, results });
  if (task.status !== 'success' && task.status !== 'warning') {
    throw new DemoError(
      `${task.name} ${task.version}: ${task.status ?? task.state}`,
      `the logs are in ${results}; ${hint}`,
    );
  }
  // Once more after the build, from the host and not from the controller.
  const log = (followed.path && (await readHostFile(lab, followed.path))) || followed.log;
  if (followed.reads === 0 || log === '') {
    throw new DemoError('The log could not be read over TFTP while the build ran', hint);
  }
  return { task, log, readsWhileRunning: followed.reads };
}

/** Reads the log of the running build over TFTP, again and again, until told to stop. */
async function followLog(
  lab: Lab,
  ended: AbortSignal,
  say: (line: string) => void,
): Promise<{ readonly path: string; readonly reads: number; readonly log: string }> {
  let path = '';
  let log = '';
  let reads = 0;
  while (!ended.aborted) {
    const task = (await readStatus(lab))?.tasks[0];
    if (task !== undefined) path = logPath(task);
    const now = path === '' ? undefined : await readHostFile(lab, path);
    if (now !== undefined && !ended.aborted) {
      if (now.length > log.length) reads += 1;
      for (const line of now.slice(log.length).split('\n').slice(-6)) if (line.trim() !== '') say(line);
      log = now;
    }
    await sleep(2500, undefined, { signal: ended }).catch(() => {}); // that it ended is what the loop looks at
  }
  return { path, reads, log };
}

/** Gets result, logs and uploads from the controller. */
async function collect(
  lab: Lab,
  {
    controllerUrl,
    task,
    results,
  }: { readonly controllerUrl: string; readonly task: TaskView; readonly results: string },
): Promise<void> {
  await rm(results, { recursive: true, force: true });
  await mkdir(results, { recursive: true });
  await writeFile(join(results, 'result.json'), `${JSON.stringify(task, undefined, 2)}\n`);
  const get = async (query: string, file: string): Promise<void> => {
    const argv = ['curl', '--silent', '--fail', '--output', join(results, file), `${controllerUrl}/?${query}`];
    await lab.run(argv, { timeoutMs: 60_000 });
  };
  for (const { operation } of task.operations) {
    await get(`log=${task.id}&operation=${operation}`, `${operation}.log`);
  }
  if (task.uploads.length > 0) await get(`upload=${task.id}`, 'upload.tar');
}
