/** The other side of `?submit`, `?task`, `?tasks`: for commands and programs that give tasks to a controller. */
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { formatTask } from '../manifests/task.ts';
import type { Task } from '../manifests/task.ts';
import { ControllerError } from './error.ts';
import { taskSummarySchema, taskViewSchema } from './task-view.ts';
import type { TaskSummary, TaskView } from './task-view.ts';

/** Whom to ask, and for how long. */
export interface Ask {
  /** Of the controller, as it printed it. */
  readonly url: string;
  readonly signal?: AbortSignal;
}

/** One request may take this long. */
const REQUEST_TIMEOUT_MS = 30_000;
/** Between two looks at a task. */
const POLL_MS = 1000;

/** Submits a task. @returns its id @throws {ControllerError} */
export async function submitTask(ask: Ask, task: Task): Promise<string> {
  const text = await request(ask, 'submit', {
    method: 'POST',
    headers: { 'Content-Type': 'text/manifest' },
    body: formatTask(task),
  });
  return parseAnswer(text, z.object({ id: z.string() }), ask).id;
}

/** All about one task. @throws {ControllerError} */
export async function readTaskView(ask: Ask, id: string): Promise<TaskView> {
  return parseAnswer(await request(ask, `task=${encodeURIComponent(id)}`), taskViewSchema, ask);
}

/** The tasks of a controller, the newest first. @throws {ControllerError} */
export async function readTasks(ask: Ask): Promise<readonly TaskSummary[]> {
  return parseAnswer(await request(ask, 'tasks'), z.array(taskSummarySchema), ask);
}

/** The log of one operation. @throws {ControllerError} */
export async function readLog(ask: Ask, id: string, operation: string): Promise<string> {
  return request(ask, `log=${encodeURIComponent(id)}&operation=${encodeURIComponent(operation)}`);
}

/** Whether nothing more is to come of a task. */
function hasEnded(task: TaskSummary): boolean {
  return task.state === 'done' || task.state === 'given-up';
}

/**
 * Looks at a task until it has ended. A controller that is away for a moment (a restart) is asked again until the
 * time is over.
 *
 * @throws {ControllerError} when the time is over
 */
export async function waitForTask(
  ask: Ask,
  id: string,
  options: { readonly timeoutMs: number; readonly onChange?: (task: TaskView) => void },
): Promise<TaskView> {
  const deadline = Date.now() + options.timeoutMs;
  let seen = -1;
  let last = 'it was not looked at';
  for (;;) {
    ask.signal?.throwIfAborted();
    try {
      const task = await readTaskView(ask, id);
      if (task.events.length !== seen) options.onChange?.(task);
      seen = task.events.length;
      if (hasEnded(task)) return task;
      last = `it is ${task.state}`;
    } catch (error) {
      if (!(error instanceof ControllerError) || error.cause === undefined) throw error;
      last = error.message;
    }
    if (Date.now() + POLL_MS > deadline) {
      throw new ControllerError(`Task ${id} has not ended within ${options.timeoutMs / 1000} s: ${last}`, {
        hint: 'It goes on. Is an agent polling this controller that offers the machine the task needs?',
      });
    }
    await sleep(POLL_MS, undefined, ask.signal === undefined ? {} : { signal: ask.signal });
  }
}

/** An answer other than 200 has no `cause`; a controller that cannot be reached has. */
async function request(ask: Ask, query: string, init: RequestInit = {}): Promise<string> {
  const url = `${ask.url.replace(/\/+$/, '')}/?${query}`;
  const timeout = AbortSignal.timeout(REQUEST_TIMEOUT_MS);
  let status: number;
  let text: string;
  try {
    const signal = ask.signal === undefined ? timeout : AbortSignal.any([timeout, ask.signal]);
    const response = await fetch(url, { ...init, redirect: 'error', signal });
    status = response.status;
    text = await response.text();
  } catch (cause) {
    ask.signal?.throwIfAborted();
    throw new ControllerError(`Cannot reach the controller at ${ask.url}: ${reasonOf(cause)}`, {
      cause,
      hint: 'Is it running, and is the URL the one it printed?',
    });
  }
  if (status === 200) return text;
  const said = /^error: (.*)$/m.exec(text)?.[1] ?? text.slice(0, 200);
  const hint = /^hint: (.*)$/m.exec(text)?.[1];
  throw new ControllerError(
    `The controller at ${ask.url} answered ${status}: ${said}`,
    hint === undefined ? {} : { hint },
  );
}

function parseAnswer<T>(text: string, schema: z.ZodType<T>, ask: Ask): T {
  try {
    return schema.parse(JSON.parse(text));
  } catch {
    throw new ControllerError(`What answers at ${ask.url} is not a controller: ${JSON.stringify(text.slice(0, 80))}`, {
      hint: 'Is the URL the one the controller printed?',
    });
  }
}

/** `fetch` hides the reason one level down. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error && error.cause.message !== '' ? error.cause.message : error.message;
}
