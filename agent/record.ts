/** What the agent writes down: a task while it runs, and a result until the controller has it. Formats for the disk. */
import * as z from 'zod';
import { parseTask } from '../manifests/task.ts';
import type { Task } from '../manifests/task.ts';

/** A task that was taken: enough to give it back after a crash. */
export interface TaskRecord {
  readonly build: string;
  readonly session: string;
  readonly challenge?: string;
  readonly resultUrl: string;
  readonly uploadUrls: Readonly<Record<string, string>>;
  readonly agentChecksum?: string;
  /** Priority of the controller it came from. */
  readonly priority: string;
  /** ms since 1970. */
  readonly startedMs: number;
  /** The task manifest as text. */
  readonly task: string;
}

/** A result on its way to the controller. */
export interface ResultRecord {
  readonly build: string;
  readonly session: string;
  readonly challenge?: string;
  readonly resultUrl: string;
  readonly uploadUrls: Readonly<Record<string, string>>;
  readonly agentChecksum?: string;
  /** The result manifest as text. */
  readonly result: string;
}

const claim = {
  build: z.string(),
  session: z.string().min(1),
  challenge: z.string().exactOptional(),
  resultUrl: z.url({ protocol: /^https?$/ }),
  uploadUrls: z.record(z.string(), z.url({ protocol: /^https?$/ })),
  agentChecksum: z.string().exactOptional(),
};
const taskSchema = z.object({ ...claim, priority: z.string(), startedMs: z.number(), task: z.string() });
const resultSchema = z.object({ ...claim, result: z.string() });

/** @throws when the JSON is no task record, or its task no task */
export function parseTaskRecord(json: unknown): TaskRecord {
  const record = taskSchema.parse(json);
  parseTask(record.task);
  return record;
}

/** @throws when the JSON is no result record */
export function parseResultRecord(json: unknown): ResultRecord {
  return resultSchema.parse(json);
}

/** The task of a record. */
export function taskOf(record: TaskRecord): Task {
  return parseTask(record.task);
}

/** What is to be delivered for a task. */
export function resultRecord(task: TaskRecord, result: string): ResultRecord {
  const { build, session, challenge, resultUrl, uploadUrls, agentChecksum } = task;
  return {
    build,
    session,
    ...(challenge === undefined ? {} : { challenge }),
    resultUrl,
    uploadUrls,
    ...(agentChecksum === undefined ? {} : { agentChecksum }),
    result,
  };
}
