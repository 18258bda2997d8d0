/** The controller's SQLite file: its tables, and how it is opened. */
import { DatabaseSync } from 'node:sqlite';
import { z } from 'zod';
import { ControllerError } from './error.ts';

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS task (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    manifest TEXT NOT NULL,
    name TEXT NOT NULL, version TEXT NOT NULL, machine TEXT NOT NULL, target TEXT NOT NULL,
    state TEXT NOT NULL,
    status TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    submitted_ms INTEGER NOT NULL
  ) STRICT;
  CREATE INDEX IF NOT EXISTS task_by_state ON task (state, id);
  CREATE TABLE IF NOT EXISTS session (
    session TEXT PRIMARY KEY,
    task_id INTEGER NOT NULL REFERENCES task (id),
    agent TEXT NOT NULL, machine TEXT NOT NULL, fingerprint TEXT, challenge TEXT,
    claimed_ms INTEGER NOT NULL,
    outcome TEXT,
    digest TEXT
  ) STRICT;
  CREATE INDEX IF NOT EXISTS session_by_task ON session (task_id);
  CREATE TABLE IF NOT EXISTS result (
    task_id INTEGER PRIMARY KEY REFERENCES task (id),
    session TEXT NOT NULL REFERENCES session (session),
    manifest TEXT NOT NULL
  ) STRICT;
  CREATE TABLE IF NOT EXISTS operation (
    task_id INTEGER NOT NULL REFERENCES task (id),
    ordinal INTEGER NOT NULL,
    operation TEXT NOT NULL, status TEXT NOT NULL, log TEXT NOT NULL,
    PRIMARY KEY (task_id, ordinal)
  ) STRICT;
  CREATE TABLE IF NOT EXISTS upload (
    session TEXT NOT NULL REFERENCES session (session),
    type TEXT NOT NULL,
    task_id INTEGER NOT NULL REFERENCES task (id),
    sha256 TEXT NOT NULL, size_bytes INTEGER NOT NULL, file TEXT NOT NULL,
    PRIMARY KEY (session, type)
  ) STRICT;
  CREATE INDEX IF NOT EXISTS upload_by_task ON upload (task_id);
  CREATE TABLE IF NOT EXISTS event (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    task_id INTEGER NOT NULL REFERENCES task (id),
    name TEXT NOT NULL, at_ms INTEGER NOT NULL, session TEXT REFERENCES session (session)
  ) STRICT;
  CREATE INDEX IF NOT EXISTS event_by_task ON event (task_id, id);
`;

/** The write-ahead log is cut to this after a large result went through it. */
const JOURNAL_SIZE_LIMIT_BYTES = 4 * 1024 * 1024;

/** `PRAGMA user_version` of a file with this schema. */
const SCHEMA_VERSION = 1;

/** @throws {ControllerError} when the file is in use, not a database, or of a newer version */
export function openDatabase(file: string): DatabaseSync {
  let database: DatabaseSync | undefined;
  try {
    database = new DatabaseSync(file, { timeout: 1000 });
    // Before WAL: then a second controller on the same file is refused, also over network file systems.
    database.exec('PRAGMA locking_mode = EXCLUSIVE');
    database.exec('PRAGMA journal_mode = WAL');
    database.exec('PRAGMA synchronous = FULL');
    database.exec(`PRAGMA journal_size_limit = ${JOURNAL_SIZE_LIMIT_BYTES}`);
    database.exec('PRAGMA foreign_keys = ON');
    const found = z.object({ user_version: z.int() }).parse(database.prepare('PRAGMA user_version').get()).user_version;
    if (found > SCHEMA_VERSION) {
      throw new ControllerError(`Cannot open "${file}": its version is ${found}, ${SCHEMA_VERSION} is known here`, {
        hint: 'It was written by a newer controller; start that one, or use another folder.',
      });
    }
    database.exec(`BEGIN IMMEDIATE; ${SCHEMA} PRAGMA user_version = ${SCHEMA_VERSION}; COMMIT`);
    return database;
  } catch (cause) {
    database?.close();
    if (cause instanceof ControllerError) throw cause;
    const reason = cause instanceof Error ? cause.message : String(cause);
    const isLocked = /locked|busy/.test(reason);
    throw new ControllerError(`Cannot open the database "${file}": ${reason}`, {
      cause,
      hint: isLocked
        ? 'Another controller uses this folder. Stop it, or start this one with another folder.'
        : 'Is the folder writable, is there space, is the file a database of the controller?',
    });
  }
}

/**
 * Gives back the space that a change which did not fit has taken in the write-ahead log; on a full disk nothing
 * else could be written otherwise. What cannot be done now, SQLite does later.
 */
export function releaseLog(database: DatabaseSync): void {
  try {
    database.exec('PRAGMA wal_checkpoint(TRUNCATE)');
  } catch {
    // The error that led here is the one to tell.
  }
}
