/**
 * The store in one SQLite file, which one process holds at a time. A change is on the disk by WAL with
 * `synchronous=FULL`.
 */
import { z } from 'zod';
import { formatResult } from '../manifests/result.ts';
import { formatTask, parseTask } from '../manifests/task.ts';
import { openDatabase, releaseLog } from './database.ts';
import { ControllerError } from './error.ts';
import { SESSION_OUTCOMES, TASK_STATES } from './plan.ts';
import type { Expiry } from './plan.ts';
import type { Store } from './store.ts';
import { queryTasks } from './task-query.ts';
import type { TaskEventName } from './task-view.ts';

const queuedRow = z.object({ id: z.int(), manifest: z.string() });
const countRow = z.object({ count: z.int() });
const claimRow = z.object({ taskId: z.int(), session: z.string(), claimedMs: z.int(), attempts: z.int() });
const sessionRow = z.object({
  session: z.string(),
  taskId: z.int(),
  manifest: z.string(),
  attempts: z.int(),
  taskState: z.enum(TASK_STATES),
  fingerprint: z.string().nullable(),
  challenge: z.string().nullable(),
  outcome: z.enum(SESSION_OUTCOMES).nullable(),
  digest: z.string().nullable(),
});
const uploadRow = z.object({
  session: z.string(),
  type: z.string(),
  sha256: z.string(),
  sizeBytes: z.int(),
  file: z.string(),
});
const UPLOAD = `SELECT session, type, sha256, size_bytes AS sizeBytes, file FROM upload`;

/**
 * Opens the store, and makes it when there is none.
 *
 * @param file - of the database; its directory exists
 * @throws {ControllerError} when the file is in use, not a database, or of a newer version
 */
export function openStore(file: string): Store {
  const database = openDatabase(file);

  /** Runs the changes as one, on the disk when it returns. */
  function write<T>(change: () => T): T {
    database.exec('BEGIN IMMEDIATE');
    try {
      const outcome = change();
      database.exec('COMMIT');
      return outcome;
    } catch (error) {
      // After some errors (a full disk) SQLite has rolled back already.
      if (database.isTransaction) database.exec('ROLLBACK');
      releaseLog(database);
      throw error;
    }
  }

  function addEvent(taskId: string, name: TaskEventName, nowMs: number, session?: string): void {
    database
      .prepare('INSERT INTO event (task_id, name, at_ms, session) VALUES (?, ?, ?, ?)')
      .run(Number(taskId), name, nowMs, session ?? null);
  }

  function endSession(session: string, outcome: 'result' | 'interrupt' | 'timeout', digest: string | null): void {
    database.prepare('UPDATE session SET outcome = ?, digest = ? WHERE session = ?').run(outcome, digest, session);
  }

  function endAttempt(expiry: Expiry, nowMs: number): void {
    const found = expiry.state === 'given-up' ? 'abnormal' : null;
    database
      .prepare('UPDATE task SET state = ?, status = ? WHERE id = ?')
      .run(expiry.state, found, Number(expiry.taskId));
    if (expiry.state === 'given-up') addEvent(expiry.taskId, 'given-up', nowMs, expiry.session);
  }

  return {
    submit: (task, nowMs) =>
      write(() => {
        const { lastInsertRowid } = database
          .prepare(
            `INSERT INTO task (manifest, name, version, machine, target, state, submitted_ms)
             VALUES (?, ?, ?, ?, ?, 'queued', ?)`,
          )
          .run(formatTask(task), task.name, task.version, task.machine, task.target, nowMs);
        addEvent(String(lastInsertRowid), 'submitted', nowMs);
        return String(lastInsertRowid);
      }),

    countQueued: () =>
      countRow.parse(database.prepare(`SELECT count(*) AS count FROM task WHERE state = 'queued'`).get()).count,

    *queued() {
      const rows = database.prepare(`SELECT id, manifest FROM task WHERE state = 'queued' ORDER BY id`).iterate();
      for (const row of rows) {
        const { id, manifest } = queuedRow.parse(row);
        yield { id: String(id), task: parseTask(manifest, { name: `task ${id}` }) };
      }
    },

    claim: (claim) => {
      write(() => {
        const { changes } = database
          .prepare(`UPDATE task SET state = 'claimed', attempts = attempts + 1 WHERE id = ? AND state = 'queued'`)
          .run(Number(claim.taskId));
        if (changes !== 1) throw new ControllerError(`Cannot claim task ${claim.taskId}: it is not queued`);
        database
          .prepare(
            `INSERT INTO session (session, task_id, agent, machine, fingerprint, challenge, claimed_ms)
             VALUES (?, ?, ?, ?, ?, ?, ?)`,
          )
          .run(
            claim.session,
            Number(claim.taskId),
            claim.agent,
            claim.machine,
            claim.fingerprint ?? null,
            claim.challenge ?? null,
            claim.nowMs,
          );
        addEvent(claim.taskId, 'claimed', claim.nowMs, claim.session);
      });
    },

    claims: () =>
      database
        .prepare(
          `SELECT session.task_id AS taskId, session, claimed_ms AS claimedMs, attempts
           FROM task JOIN session ON session.task_id = task.id
           WHERE state = 'claimed' AND outcome IS NULL`,
        )
        .all()
        .map((row) => {
          const claim = claimRow.parse(row);
          return { ...claim, taskId: String(claim.taskId) };
        }),

    expire: (expiries, nowMs) => {
      if (expiries.length === 0) return;
      write(() => {
        for (const expiry of expiries) {
          endSession(expiry.session, 'timeout', null);
          addEvent(expiry.taskId, 'timeout', nowMs, expiry.session);
          endAttempt(expiry, nowMs);
        }
      });
    },

    findSession: (session) => {
      const found = database
        .prepare(
          `SELECT session, task_id AS taskId, manifest, attempts, state AS taskState, fingerprint, challenge, outcome, digest
           FROM session JOIN task ON task.id = session.task_id WHERE session = ?`,
        )
        .get(session);
      if (found === undefined) return undefined;
      const row = sessionRow.parse(found);
      return {
        session: row.session,
        taskId: String(row.taskId),
        task: parseTask(row.manifest, { name: `task ${row.taskId}` }),
        attempts: row.attempts,
        taskState: row.taskState,
        ...(row.fingerprint === null ? {} : { fingerprint: row.fingerprint }),
        ...(row.challenge === null ? {} : { challenge: row.challenge }),
        ...(row.outcome === null ? {} : { outcome: row.outcome }),
        ...(row.digest === null ? {} : { digest: row.digest }),
      };
    },

    acceptResult: (session, digest, result, nowMs) => {
      write(() => {
        const taskId = Number(session.taskId);
        endSession(session.session, 'result', digest);
        database.prepare(`UPDATE task SET state = 'done', status = ? WHERE id = ?`).run(result.status, taskId);
        database
          .prepare('INSERT INTO result (task_id, session, manifest) VALUES (?, ?, ?)')
          .run(taskId, session.session, formatResult(result));
        const insert = database.prepare(
          'INSERT INTO operation (task_id, ordinal, operation, status, log) VALUES (?, ?, ?, ?, ?)',
        );
        for (const [ordinal, { operation, status, log }] of result.operations.entries()) {
          insert.run(taskId, ordinal, operation, status, log);
        }
        addEvent(session.taskId, 'result', nowMs, session.session);
      });
    },

    acceptInterrupt: (session, digest, state, nowMs) => {
      write(() => {
        endSession(session.session, 'interrupt', digest);
        addEvent(session.taskId, 'interrupt', nowMs, session.session);
        endAttempt({ taskId: session.taskId, session: session.session, state }, nowMs);
      });
    },

    acceptUpload: (upload, taskId, nowMs) => {
      write(() => {
        database
          .prepare(`INSERT INTO upload (session, type, task_id, sha256, size_bytes, file) VALUES (?, ?, ?, ?, ?, ?)`)
          .run(upload.session, upload.type, Number(taskId), upload.sha256, upload.sizeBytes, upload.file);
        addEvent(taskId, 'upload', nowMs, upload.session);
      });
    },

    findUpload: (session, type) => {
      const row = database.prepare(`${UPLOAD} WHERE session = ? AND type = ?`).get(session, type);
      return row === undefined ? undefined : uploadRow.parse(row);
    },

    findUploadOf: (taskId, type) => {
      const row = database
        .prepare(
          `${UPLOAD} WHERE task_id = ?1 AND (?2 IS NULL OR type = ?2)
           ORDER BY session = (SELECT session FROM result WHERE task_id = ?1) DESC, rowid DESC LIMIT 1`,
        )
        .get(Number(taskId), type ?? null);
      return row === undefined ? undefined : uploadRow.parse(row);
    },

    uploadFiles: () =>
      new Set(
        database
          .prepare(UPLOAD)
          .all()
          .map((row) => uploadRow.parse(row).file),
      ),

    ...queryTasks(database),

    [Symbol.dispose]: () => {
      database.close();
    },
  };
}
