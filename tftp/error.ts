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

/** A transfer of the client failed. */
export class TransferError extends Error {
  readonly host: string;
  readonly port: number;
  /** name of the file at the server */
  readonly fileName: string;
  readonly direction: 'read' | 'write';
  /** TFTP error code; 0 when there is none that says more */
  readonly code: number;
  /** who ended it */
  readonly from: 'peer' | 'here';
  /** what the reader may try */
  readonly hint?: string;

  constructor(
    fields: {
      readonly host: string;
      readonly port: number;
      readonly fileName: string;
      readonly direction: 'read' | 'write';
      readonly code: number;
      readonly from: 'peer' | 'here';
      readonly reason: string;
      readonly hint?: string | undefined;
    },
    options?: ErrorOptions,
  ) {
    const action = fields.direction === 'read' ? 'Cannot get' : 'Cannot put';
    const way = fields.direction === 'read' ? 'from' : 'to';
    super(`${action} "${fields.fileName}" ${way} ${fields.host} port ${fields.port}: ${fields.reason}`, options);
    this.name = 'TransferError';
    this.host = fields.host;
    this.port = fields.port;
    this.fileName = fields.fileName;
    this.direction = fields.direction;
    this.code = fields.code;
    this.from = fields.from;
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
