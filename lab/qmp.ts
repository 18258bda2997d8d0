/**
 * QMP, QEMU's control protocol (docs/interop/qmp-spec.rst): JSON lines over a UNIX socket. One command at a time.
 */
import { type Socket, createConnection } from 'node:net';
import { createInterface } from 'node:readline';
import { z } from 'zod';

/** An event of the guest: RESET, SHUTDOWN, GUEST_PANICKED, … */
export interface QmpEvent {
  readonly event: string;
  readonly data: Readonly<Record<string, unknown>>;
}

export interface Qmp extends Disposable {
  /** @throws {QmpError} when QEMU refuses, or does not answer in 5 s */
  execute(command: string, args?: Readonly<Record<string, unknown>>): Promise<unknown>;
  close(): void;
}

/** A command of QMP failed. */
export class QmpError extends Error {
  readonly command: string;

  constructor(command: string, reason: string) {
    super(`Cannot do "${command}" in QEMU: ${reason}`);
    this.name = 'QmpError';
    this.command = command;
  }
}

const messageSchema = z.union([
  z.object({ event: z.string(), data: z.record(z.string(), z.unknown()).default({}) }),
  z.object({ return: z.unknown() }),
  z.object({ error: z.object({ desc: z.string() }) }),
  z.object({ QMP: z.unknown() }),
]);

const ANSWER_TIMEOUT_MS = 5000;

/** Connects to a socket that QEMU listens on. @throws when it cannot be reached or does not greet */
export async function connectQmp(path: string, onEvent: (event: QmpEvent) => void): Promise<Qmp> {
  const socket = createConnection(path);
  let waiting: { readonly resolve: (value: unknown) => void; readonly reject: (error: Error) => void } | undefined;
  let command = 'connect';

  const receive = (line: string): void => {
    const message = messageSchema.parse(JSON.parse(line));
    if ('event' in message) onEvent(message);
    else if ('error' in message) waiting?.reject(new QmpError(command, message.error.desc));
    else waiting?.resolve('return' in message ? message.return : undefined);
  };
  // An error arrives as `close` too; the interface passes it on, and both would throw it if nobody listened.
  const lines = createInterface({ input: socket }).on('line', receive);
  for (const emitter of [socket, lines]) emitter.on('error', () => {});
  socket.on('close', () => waiting?.reject(new QmpError(command, 'the connection is closed')));

  const answer = async (send: () => void): Promise<unknown> => {
    if (waiting !== undefined) throw new QmpError(command, 'another command is under way');
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    waiting = { resolve, reject };
    const timer = setTimeout(() => reject(new QmpError(command, 'no answer in 5 s')), ANSWER_TIMEOUT_MS);
    try {
      send();
      return await promise;
    } finally {
      clearTimeout(timer);
      waiting = undefined;
    }
  };
  const execute = (name: string, args: Readonly<Record<string, unknown>> = {}): Promise<unknown> => {
    command = name;
    return answer(() => write(socket, { execute: name, arguments: args }));
  };
  const close = (): void => void socket.destroy();
  try {
    await answer(() => {}); // the greeting
    await execute('qmp_capabilities');
  } catch (error) {
    close();
    throw error;
  }
  return { execute, close, [Symbol.dispose]: close };
}

const write = (socket: Socket, message: unknown): void => void socket.write(`${JSON.stringify(message)}\n`);
