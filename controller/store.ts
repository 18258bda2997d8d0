/**
 * What a store keeps: tasks, sessions, results, uploads, events. The store in use is sqlite-store.ts.
 *
 * A method that changes something returns after the change is on the disk, whole or not at all. A store decides
 * nothing: see plan.ts.
 */
import type { Result } from '../manifests/result.ts';
import type { Task } from '../manifests/task.ts';
import type { Claim, Expiry, QueuedTask, SessionState } from './plan.ts';
import type { TaskSummary, TaskView } from './task-view.ts';

/** A session, as kept. */
export interface Session extends SessionState {
  readonly session: string;
  readonly taskId: string;
  readonly task: Task;
  readonly attempts: number;
  /** SHA-256 of the agent's public key, when the agent had to prove itself. */
  readonly fingerprint?: string;
  /** The nonce it was given. */
  readonly challenge?: string;
}

/** A task is handed out. */
export interface NewSession {
  readonly session: string;
  readonly taskId: string;
  readonly agent: string;
  /** Exact name of the machine. */
  readonly machine: string;
  readonly fingerprint?: string;
  readonly challenge?: string;
  readonly nowMs: number;
}

/** An uploaded file, as kept. */
export interface Upload {
  readonly session: string;
  readonly type: string;
  readonly sha256: string;
  readonly sizeBytes: number;
  /** Name of the file in the folder of uploads. */
  readonly file: string;
}

/** Changes are told with the time at which they happen. */
export interface Store extends TaskQueries, Disposable {
  submit(task: Task, nowMs: number): string;
  /** How many tasks wait. */
  countQueued(): number;
  /** The oldest first; read lazily. */
  queued(): Iterable<QueuedTask>;
  /** @throws {ControllerError} when the task is not queued any more */
  claim(session: NewSession): void;
  claims(): readonly Claim[];
  /** Ends sessions that took too long. */
  expire(expiries: readonly Expiry[], nowMs: number): void;
  findSession(session: string): Session | undefined;
  /** Keeps a result; the session and the task end with it. */
  acceptResult(session: Session, digest: string, result: Result, nowMs: number): void;
  /** Ends a session whose agent was interrupted. */
  acceptInterrupt(session: Session, digest: string, state: Expiry['state'], nowMs: number): void;
  /** Keeps an uploaded file; it is in its place and on the disk already. */
  acceptUpload(upload: Upload, taskId: string, nowMs: number): void;
  findUpload(session: string, type: string): Upload | undefined;
  /** The file of a task: of the session with the result, else the latest; of that type, else any. */
  findUploadOf(taskId: string, type?: string): Upload | undefined;
  /** Names of all files that belong to an upload. */
  uploadFiles(): ReadonlySet<string>;
}

/** What people are told of tasks. */
export interface TaskQueries {
  /** The newest first, at most that many. */
  list(limit: number): readonly TaskSummary[];
  find(taskId: string): TaskView | undefined;
  /** The whole result as it was accepted. */
  findResult(taskId: string): string | undefined;
  findLog(taskId: string, operation: string): string | undefined;
}
