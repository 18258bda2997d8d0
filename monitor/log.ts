/**
 * The monitor's log: to the journal with priorities (sd-daemon(3): `<4>text`), and to `monitor.log` in the TFTP folder
 * with the time of day, where anyone can read it. The file keeps its tail when long.
 */
import { appendFileSync, closeSync, fstatSync, openSync, readSync, renameSync, statSync, writeFileSync } from 'node:fs';

/** syslog(3) levels in use. */
const PRIORITY = { error: 3, warning: 4, notice: 5, info: 6 } as const;

export type Level = keyof typeof PRIORITY;

/** Takes one message; lines in it are kept, control characters are not. */
export type Log = (level: Level, message: string) => void;

/** The file is cut when it is longer than this, to half of it. */
const LOG_LIMIT_BYTES: number = 1024 * 1024;

/**
 * Opens the log.
 *
 * Writes at once and never throws: a full tmpfs must not end the monitor, and the journal has the line anyway. The
 * file is not kept open, so that a reader gets the size it had when it was asked for.
 *
 * @param print - writes a line to the journal
 */
export function openLog(file: string, print: (line: string) => void, limitBytes: number = LOG_LIMIT_BYTES): Log {
  return (level, message) => {
    // oxlint-disable-next-line no-control-regex -- these are what must not reach a terminal or forge a line
    const clean = message.replaceAll(/[\u0000-\u0008\u000b-\u001f\u007f]/g, '?').trimEnd();
    for (const line of clean.split('\n')) print(`<${PRIORITY[level]}>${line}`);
    const time = new Date().toISOString();
    const text = clean.replaceAll('\n', '\n    ');
    try {
      appendFileSync(file, `${time} ${level.padEnd(7)} ${text}\n`, { mode: 0o644 });
      if (statSync(file).size > limitBytes) keepTail(file, Math.floor(limitBytes / 2));
    } catch {
      // The journal has it.
    }
  };
}

/**
 * A log that passes on at most `lines` messages in each span of time, and says how many it has kept back: for what
 * strangers can cause, such as requests from the network.
 *
 * @param now - ms, never jumps
 */
export function limitRate(log: Log, lines: number, spanMs: number, now: () => number = () => performance.now()): Log {
  let startMs = Number.NEGATIVE_INFINITY;
  let taken = 0;
  return (level, message) => {
    if (now() - startMs >= spanMs) {
      if (taken > lines) log('info', `… ${taken - lines} more messages of this kind were kept back`);
      startMs = now();
      taken = 0;
    }
    taken += 1;
    if (taken <= lines) log(level, message);
  };
}

/** Replaces the file by its last whole lines, with a line that says so. */
function keepTail(file: string, bytes: number): void {
  const fd = openSync(file, 'r');
  const tail = Buffer.alloc(bytes);
  const { size } = fstatSync(fd);
  const read = readSync(fd, tail, 0, bytes, Math.max(0, size - bytes));
  closeSync(fd);
  const start = tail.indexOf(0x0a) + 1;
  const head = `… ${size - read + start} bytes of earlier lines are in the journal\n`;
  writeFileSync(`${file}.new`, Buffer.concat([Buffer.from(head), tail.subarray(start, read)]), { mode: 0o644 });
  renameSync(`${file}.new`, file);
}
