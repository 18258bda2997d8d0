/**
 * One exchange of the client with one address of a server: a request and the transfer that comes of it. Who ended it and
 * why is put in words here.
 */
import type { RemoteInfo } from 'node:dgram';

import type { ClientOptions, TransferReport } from './client.ts';
import { type ServerAddress, ClientSocket, withoutZone } from './client-socket.ts';
import { type FailureKind, RefusedError, TransferError, describeErrorPacket, systemCode } from './error.ts';
import type { Failure, StepFunction, TransferState } from './exchange.ts';
import { type Options, formatOptions } from './options.ts';
import { ERROR_CODE, encodeError, encodeRequest } from './packet.ts';
import type { Sink } from './sink.ts';
import type { Source } from './source.ts';
import { Transfer } from './transfer.ts';

/** A sender or receiver that is about to start. */
export interface Work<State extends TransferState> {
  readonly start: (asked: Options) => State;
  readonly step: StepFunction<State>;
  readonly source?: Source;
  readonly sink?: Sink;
  readonly totalBytes: (state: State) => number | undefined;
  /** says why so many bytes cannot be taken */
  readonly findObstacle?: (bytes: number) => string | undefined;
}

/** An exchange with one address. */
export interface Asked {
  readonly server: ServerAddress;
  readonly options: Options;
  /** after so long without any answer another address is asked */
  readonly answerMs?: number;
}

/** How one exchange ended. */
export type Ending =
  | { readonly kind: 'done'; readonly report: TransferReport }
  | { readonly kind: 'failed'; readonly isOptionsRefused: boolean; readonly error: TransferError };

/**
 * Makes one exchange with one address.
 *
 * @param silent - errors of addresses that were asked before, for the message
 * @throws the reason of the signal
 */
export function exchange<State extends TransferState>(
  options: ClientOptions,
  direction: 'read' | 'write',
  asked: Asked,
  work: Work<State>,
  silent: readonly TransferError[],
): Promise<Ending> {
  const { host, name, mode = 'octet', signal, onProgress } = options;
  const { server } = asked;
  const request = encodeRequest({ direction, name, mode, options: formatOptions(asked.options) });
  const startedMs = performance.now();
  return new Promise<Ending>((resolve, reject) => {
    let tid: number | undefined;
    let impatience: NodeJS.Timeout | undefined;
    const onAbort = (): void => transfer.stop(ERROR_CODE.notDefined, 'the client has stopped');
    const transfer = new Transfer<State>({
      state: work.start(asked.options),
      step: work.step,
      request,
      ...(work.source && { source: work.source }),
      ...(work.sink && { sink: work.sink }),
      wire: { send: (bytes) => socket.send(bytes, tid) },
      onSettled(state, cause) {
        signal?.removeEventListener('abort', onAbort);
        clearTimeout(impatience);
        const { failure, bytes, blocks, repeats, granted } = state;
        if (failure === undefined) {
          const rttMs = state.timing.srttMs;
          const durationMs = performance.now() - startedMs;
          const { address } = server;
          const measured = { ...(rttMs !== undefined && { rttMs }), durationMs };
          resolve({ kind: 'done', report: { bytes, blocks, repeats, granted, address, ...measured } });
        } else if (signal?.aborted === true) reject(signal.reason);
        else {
          const { code, from } = failure;
          const isOptionsRefused = code === ERROR_CODE.optionsRefused && from === 'peer' && bytes === 0;
          const why = explain({ failure, cause, direction, server, bytes, isAnswered: tid !== undefined });
          const before = silent.map((error) => `; before that ${error.address}: ${error.reason}`).join('');
          const fields = {
            host,
            ...server,
            fileName: name,
            direction,
            code,
            from,
            ...why,
            reason: why.reason + before,
          };
          resolve({ kind: 'failed', isOptionsRefused, error: new TransferError(fields, { cause }) });
        }
      },
      onClosed: () => socket[Symbol.dispose](),
      onProgress(state) {
        const totalBytes = work.totalBytes(state);
        onProgress?.({ bytes: state.bytes, totalBytes });
        if (isSizeKnown || totalBytes === undefined) return;
        isSizeKnown = true;
        const obstacle = work.findObstacle?.(totalBytes);
        if (obstacle !== undefined) {
          setImmediate(() => transfer.stop(ERROR_CODE.diskFull, obstacle, new RefusedError(3, obstacle)));
        }
      },
    });
    let isSizeKnown = false;
    const onMessage = (bytes: Uint8Array, from: RemoteInfo): void => {
      if (!isSameHost(from, server.address) || (tid !== undefined && from.port !== tid)) {
        // An ERROR is never answered, so two such sides cannot talk for ever.
        if (bytes[1] !== 5) socket.sendTo(encodeError(ERROR_CODE.unknownTid, 'unknown TID'), from);
        return;
      }
      if (tid === undefined) {
        tid = from.port;
        clearTimeout(impatience);
        socket.settle();
      }
      transfer.receive(bytes);
    };
    const onError = (error: Error): void => transfer.stop(ERROR_CODE.notDefined, error.message, error);
    let socket: ClientSocket;
    try {
      socket = new ClientSocket(server, { message: onMessage, error: onError });
    } catch (error) {
      const failure: Failure = { code: ERROR_CODE.notDefined, from: 'here', message: String(error) };
      const cause = error instanceof Error ? error : undefined;
      const why = explain({ failure, cause, direction, server, bytes: 0, isAnswered: false });
      const fields = { host, ...server, fileName: name, direction, ...failure, ...why };
      resolve({ kind: 'failed', isOptionsRefused: false, error: new TransferError(fields, { cause }) });
      return;
    }
    signal?.addEventListener('abort', onAbort, { once: true });
    if (asked.answerMs !== undefined) {
      impatience = setTimeout(() => {
        const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
        transfer.stop(ERROR_CODE.notDefined, `no answer in ${seconds} s`);
      }, asked.answerMs);
    }
    transfer.start();
  });
}

function isSameHost(from: RemoteInfo, address: string): boolean {
  return from.address === address || withoutZone(from.address) === withoutZone(address);
}

const READ_HINTS: Readonly<Record<number, string>> = {
  [ERROR_CODE.notFound]: "names are relative to the server's folder, and upper and lower case differ",
  [ERROR_CODE.accessViolation]: 'the server shows regular files below its folder only, and only those it may read',
};
const WRITE_HINTS: Readonly<Record<number, string>> = {
  [ERROR_CODE.notFound]: 'some servers replace files only, and make no new ones',
  [ERROR_CODE.accessViolation]: 'the server must allow writing, and this name',
  [ERROR_CODE.diskFull]: 'the server has no more space, or a limit for this name',
  [ERROR_CODE.alreadyExists]: 'take another name, or remove the file at the server',
};

/** What a failure of the network means, by the code of the system error. */
const UNREACHABLE: Readonly<Record<string, readonly [reason: string, hint: string]>> = {
  ECONNREFUSED: ['nobody listens there (ICMP port unreachable)', 'is the TFTP server running, and is the port right?'],
  EHOSTUNREACH: ['the host cannot be reached', 'check the address, and `ip route get` for the way to it'],
  ENETUNREACH: ['there is no route to it', 'check the address, and `ip route get` for the way to it'],
  EACCES: ['sending is forbidden', 'is it a broadcast address, or does a firewall of this host forbid it?'],
  EPERM: ['sending is forbidden', 'look at the firewall of this host: nft list ruleset'],
};

/** Who ended a transfer and why, in words. */
function explain(what: {
  readonly failure: Failure;
  readonly cause: Error | undefined;
  readonly direction: 'read' | 'write';
  readonly server: ServerAddress;
  readonly bytes: number;
  readonly isAnswered: boolean;
}): { readonly kind: FailureKind; readonly reason: string; readonly hint: string | undefined } {
  const { failure, cause, direction, bytes, isAnswered } = what;
  if (failure.from === 'peer') {
    const said = describeErrorPacket(failure.code, failure.message);
    const did = bytes === 0 ? 'the server refused' : `the server ended it after ${bytes} bytes`;
    const hints = direction === 'read' ? READ_HINTS : WRITE_HINTS;
    return { kind: 'refused', reason: `${did}: ${said}`, hint: hints[failure.code] };
  }
  const unreachable = UNREACHABLE[systemCode(cause) ?? ''];
  if (unreachable !== undefined && !(cause instanceof RefusedError)) {
    return { kind: isAnswered ? 'broken' : 'unanswered', reason: unreachable[0], hint: unreachable[1] };
  }
  if (cause !== undefined || failure.code === ERROR_CODE.diskFull) {
    const inner = cause?.cause instanceof Error ? ` (${cause.cause.message})` : '';
    return { kind: 'local', reason: `${failure.message}${inner}`, hint: undefined };
  }
  if (!isAnswered) {
    const hint = 'is a TFTP server there, and does a firewall let UDP pass from any port of it?';
    return { kind: 'unanswered', reason: failure.message, hint };
  }
  const isSilence = failure.code === ERROR_CODE.notDefined;
  const hint = isSilence ? 'large blocks are lost on some networks: try blksize 512' : undefined;
  return { kind: 'broken', reason: `${failure.message}, after ${bytes} bytes`, hint };
}
