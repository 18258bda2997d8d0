/** What people are told of tasks, read from the controller's SQLite file. */
import type { DatabaseSync } from 'node:sqlite';
import { z } from 'zod';
import { RESULT_STATUSES } from '../manifests/result.ts';
import { TASK_STATES } from './plan.ts';
import type { TaskQueries } from './store.ts';
import { TASK_EVENTS } from './task-view.ts';
import type { TaskSummary } from './task-view.ts';

const summaryRow = z.object({
  id: z.int(),
  name: z.string(),
  version: z.string(),
  machine: z.string(),
  target: z.string(),
  state: z.enum(TASK_STATES),
  status: z.enum(RESULT_STATUSES).nullable(),
  attempts: z.int(),
  submittedMs: z.int(),
});
const operationRow = z.object({ operation: z.string(), status: z.enum(RESULT_STATUSES), logBytes: z.int() });
const eventRow = z.object({
  name: z.enum(TASK_EVENTS),
  atMs: z.int(),
  agent: z.string().nullable(),
  machine: z.string().nullable(),
});
const manifestRow = z.object({ manifest: z.string() });
const logRow = z.object({ log: z.string() });
const uploadRow = z.object({ type: z.string(), sha256: z.string(), sizeBytes: z.int() });

const SUMMARY = `SELECT id, name, version, machine, target, state, status, attempts, submitted_ms AS submittedMs FROM task`;

/** Reads, and changes nothing. */
export function queryTasks(database: DatabaseSync): TaskQueries {
  return {
    list: (limit) =>
      database
        .prepare(`${SUMMARY} ORDER BY id DESC LIMIT ?`)
        .all(limit)
        .map((row) => summaryOf(summaryRow.parse(row))),

    find: (taskId) => {
      const found = database.prepare(`${SUMMARY} WHERE id = ?`).get(Number(taskId));
      if (found === undefined) return undefined;
      const row = summaryRow.parse(found);
      return {
        ...summaryOf(row),
        target: row.target,
        operations: database
          .prepare(
            `SELECT operation, status, octet_length(log) AS logBytes FROM operation WHERE task_id = ? ORDER BY ordinal`,
          )
          .all(row.id)
          .map((operation) => operationRow.parse(operation)),
        uploads: database
          .prepare(
            `SELECT type, sha256, size_bytes AS sizeBytes FROM upload
             WHERE task_id = ?1 AND session = coalesce((SELECT session FROM result WHERE task_id = ?1), session)`,
          )
          .all(row.id)
          .map((upload) => uploadRow.parse(upload)),
        events: database
          .prepare(
            `SELECT name, at_ms AS atMs, agent, machine FROM event LEFT JOIN session USING (session)
             WHERE event.task_id = ? ORDER BY id`,
          )
          .all(row.id)
          .map((event) => {
            const { name, atMs, agent, machine } = eventRow.parse(event);
            return {
              name,
              at: new Date(atMs).toISOString(),
              ...(agent === null ? {} : { agent }),
              ...(machine === null ? {} : { machine }),
            };
          }),
      };
    },

    findResult: (taskId) => {
      const row = database.prepare('SELECT manifest FROM result WHERE task_id = ?').get(Number(taskId));
      return row === undefined ? undefined : manifestRow.parse(row).manifest;
    },

    findLog: (taskId, operation) => {
      const row = database
        .prepare('SELECT log FROM operation WHERE task_id = ? AND operation = ?')
        .get(Number(taskId), operation);
      return row === undefined ? undefined : logRow.parse(row).log;
    },
  };
}

function summaryOf(row: z.infer<typeof summaryRow>): TaskSummary {
  return {
    id: String(row.id),
    name: row.name,
    version: row.version,
    machine: row.machine,
    state: row.state,
    ...(row.status === null ? {} : { status: row.status }),
    attempts: row.attempts,
    submitted: new Date(row.submittedMs).toISOString(),
  };
}
