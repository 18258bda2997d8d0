/** What goes wrong in this room: a request that is refused, a transfer that did not come through. */

/** A request is refused; the peer is told code and message. */
export class RefusedError extends Error {
  /** TFTP error code, see `ERROR_CODE` */
  readonly code: number;

  constructor(code: number, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'RefusedError';
    this.code = code;
  }
}

/**
 * Why a transfer of the client failed, for a program to choose by:
 *
 * - `refused`: the server said so, with an ERROR packet
 * - `unanswered`: no server spoke: silence, a closed port, no route
 * - `broken`: it began, and then the server fell silent or sent what it must not
 * - `local`: something on this side: a file, the disk, a limit, the name of the host
 */
export type FailureKind = 'refused' | 'unanswered' | 'broken' | 'local';

/** A transfer of the client failed. */
export class TransferError extends Error {
  readonly host: string;
  readonly port: number;
  /** the address that was asked, when there was one */
  readonly address?: string;
  /** name of the file at the server */
  readonly fileName: string;
  readonly direction: 'read' | 'write';
  /** TFTP error code; 0 when there is none that says more */
  readonly code: number;
  /** who ended it */
  readonly from: 'peer' | 'here';
  readonly kind: FailureKind;
  /** what went wrong, without file and host */
  readonly reason: string;
  /** what the reader may try */
  readonly hint?: string;

  constructor(
    fields: {
      readonly host: string;
      readonly port: number;
      /** the address that was asked, when the host is a name */
      readonly address?: string | undefined;
      readonly fileName: string;
      readonly direction: 'read' | 'write';
      readonly code: number;
      readonly from: 'peer' | 'here';
      readonly kind: FailureKind;
      readonly reason: string;
      readonly hint?: string | undefined;
    },
    options?: ErrorOptions,
  ) {
    const { host, port, address } = fields;
    const action = fields.direction === 'read' ? 'Cannot get' : 'Cannot put';
    const way = fields.direction === 'read' ? 'from' : 'to';
    const where = address === undefined || address === host ? host : `${host} (${address})`;
    super(`${action} ${quote(fields.fileName)} ${way} ${where} port ${port}: ${fields.reason}`, options);
    this.name = 'TransferError';
    this.host = host;
    this.port = port;
    if (address !== undefined) this.address = address;
    this.fileName = fields.fileName;
    this.direction = fields.direction;
    this.code = fields.code;
    this.from = fields.from;
    this.kind = fields.kind;
    this.reason = fields.reason;
    if (fields.hint !== undefined) this.hint = fields.hint;
  }
}

/** The server cannot listen. */
export class ListenError extends Error {
  readonly hint?: string;

  constructor(message: string, hint: string | undefined, options?: ErrorOptions) {
    super(message, options);
    this.name = 'ListenError';
    if (hint !== undefined) this.hint = hint;
  }
}

/** The `code` of a system error (`ENOENT`), or `undefined`. */
export function systemCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

const ERROR_NAMES: readonly string[] = [
  'not defined',
  'file not found',
  'access violation',
  'disk full',
  'illegal operation',
  'unknown transfer ID',
  'file already exists',
  'no such user',
  'options refused',
];

/** An error packet for a person: `ERROR 2 (access violation), "not for you"`; what the name says already is left out. */
export function describeErrorPacket(code: number, message: string): string {
  const name = ERROR_NAMES[code] ?? 'a code of its own';
  if (message === '') return `ERROR ${code} (${name}), without a reason`;
  return message.toLowerCase() === name ? `ERROR ${code}, ${name}` : `ERROR ${code} (${name}), ${quote(message)}`;
}

/** C0 and C1 controls, DEL, separators of lines, marks of direction, what has no width: they steer a terminal or hide. */
// oxlint-disable-next-line no-control-regex -- control characters are just what must not reach a terminal
const UNPRINTABLE = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/** Text that may hold some from the network, fit for a terminal or a line of a log: what could steer it is escaped. */
export function printable(text: string): string {
  return text.replaceAll(UNPRINTABLE, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

/** Text from the network in double quotes, escaped as in JSON and `printable`. */
export function quote(text: string): string {
  return printable(JSON.stringify(text));
}
