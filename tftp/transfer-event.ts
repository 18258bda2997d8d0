/** What a server tells of each transfer, and of requests that it refuses. */
import { RefusedError, describeErrorPacket } from './error.ts';
import type { Failure, TransferState } from './exchange.ts';
import { type Options, parseOptions } from './options.ts';
import type { OptionPair, RequestPacket } from './packet.ts';

/** What happened to a transfer, told at its end; also to a request that was refused. */
export interface TransferEvent {
  /** address of the client */
  readonly peer: string;
  /** port of the client, its TID */
  readonly port: number;
  /** seen from the client: it reads or writes a file here */
  readonly direction: 'read' | 'write';
  /** as asked: quote it, it may hold anything but control characters when `result` is `done`; empty when none could be read */
  readonly name: string;
  readonly mode: string;
  /** what was asked, as far as it is known and valid */
  readonly asked: Options;
  /** what was asked, word for word: quote it */
  readonly options: readonly OptionPair[];
  readonly granted: Options;
  /** bytes that are through, on the wire */
  readonly bytes: number;
  readonly blocks: number;
  /** packets that were sent again */
  readonly repeats: number;
  /** smoothed round trip, when one was measured */
  readonly rttMs?: number;
  readonly durationMs: number;
  readonly result: 'done' | 'failed';
  /** whether a transfer came of the request; else it was refused or ignored */
  readonly begun: boolean;
  /** who ended one that failed */
  readonly endedBy?: 'client' | 'server';
  /** why it failed; what the client said is quoted */
  readonly error?: string;
  /** TFTP error code that was sent or got */
  readonly errorCode?: number;
}

/** A transfer that came of a request, at its end. */
export interface Run {
  readonly state: TransferState;
  readonly durationMs: number;
}

/** @param run - absent when none came of the request */
export function transferEvent(
  packet: RequestPacket,
  peer: { readonly address: string; readonly port: number },
  cause: Error | undefined,
  run?: Run,
): TransferEvent {
  const failure = run?.state.failure;
  const error = failure === undefined ? cause?.message : describeFailure(failure, cause);
  const errorCode = failure?.code ?? (cause instanceof RefusedError ? cause.code : undefined);
  const rttMs = run?.state.timing.srttMs;
  return {
    peer: peer.address,
    port: peer.port,
    direction: packet.direction,
    name: packet.name,
    mode: packet.mode ?? 'unknown',
    asked: parseOptions(packet.options),
    options: packet.options,
    granted: run?.state.granted ?? {},
    bytes: run?.state.bytes ?? 0,
    blocks: run?.state.blocks ?? 0,
    repeats: run?.state.repeats ?? 0,
    ...(rttMs !== undefined && { rttMs }),
    durationMs: run?.durationMs ?? 0,
    result: error === undefined ? 'done' : 'failed',
    begun: run !== undefined,
    ...(error !== undefined && { endedBy: failure?.from === 'peer' ? 'client' : 'server', error }),
    ...(error !== undefined && errorCode !== undefined && { errorCode }),
  };
}

function describeFailure(failure: Failure, cause: Error | undefined): string {
  if (failure.from === 'peer') return `the client ended it: ${describeErrorPacket(failure.code, failure.message)}`;
  const inner = cause?.cause instanceof Error ? ` (${cause.cause.message})` : '';
  return `${failure.message}${inner}`;
}
