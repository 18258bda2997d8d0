/** What the controller tells about a task, as JSON: written by the server, read by clients. */
import { z } from 'zod';
import { RESULT_STATUSES } from '../manifests/result.ts';
import type { ResultStatus } from '../manifests/result.ts';
import { TASK_STATES } from './plan.ts';
import type { TaskState } from './plan.ts';

/** One line of the list of tasks. */
export interface TaskSummary {
  readonly id: string;
  readonly name: string;
  readonly version: string;
  /** As the task asked for it. */
  readonly machine: string;
  readonly state: TaskState;
  /** Of the result; `abnormal` when the task was given up. */
  readonly status?: ResultStatus;
  /** How often it was handed out. */
  readonly attempts: number;
  /** ISO 8601, UTC. */
  readonly submitted: string;
}

/** All about one task, but for the texts of its logs. */
export interface TaskView extends TaskSummary {
  readonly target: string;
  /** In the order in which they ran; empty before the result. */
  readonly operations: readonly {
    readonly operation: string;
    readonly status: ResultStatus;
    readonly logBytes: number;
  }[];
  readonly uploads: readonly { readonly type: string; readonly sha256: string; readonly sizeBytes: number }[];
  /** Oldest first. */
  readonly events: readonly TaskEvent[];
}

export const TASK_EVENTS = ['submitted', 'claimed', 'upload', 'interrupt', 'timeout', 'given-up', 'result'] as const;
export type TaskEventName = (typeof TASK_EVENTS)[number];

export interface TaskEvent {
  readonly name: TaskEventName;
  /** ISO 8601, UTC. */
  readonly at: string;
  /** Which agent, for what happens in a session. */
  readonly agent?: string;
  /** Which machine of it. */
  readonly machine?: string;
}

const summaryShape = {
  id: z.string(),
  name: z.string(),
  version: z.string(),
  machine: z.string(),
  state: z.enum(TASK_STATES),
  status: z.exactOptional(z.enum(RESULT_STATUSES)),
  attempts: z.int(),
  submitted: z.string(),
};

/** For {@link TaskSummary} that came from elsewhere. */
export const taskSummarySchema: z.ZodType<TaskSummary> = z.object(summaryShape);

/** For {@link TaskView} that came from elsewhere. */
export const taskViewSchema: z.ZodType<TaskView> = z.object({
  ...summaryShape,
  target: z.string(),
  operations: z.array(z.object({ operation: z.string(), status: z.enum(RESULT_STATUSES), logBytes: z.int() })),
  uploads: z.array(z.object({ type: z.string(), sha256: z.string(), sizeBytes: z.int() })),
  events: z.array(
    z.object({
      name: z.enum(TASK_EVENTS),
      at: z.string(),
      agent: z.exactOptional(z.string()),
      machine: z.exactOptional(z.string()),
    }),
  ),
});
