/** What the controller refuses or cannot do. */

/** A request is answered with this HTTP status and a text that says why. */
export class RequestError extends Error {
  override readonly name = 'RequestError';
  /** HTTP status, 400 to 599. */
  readonly status: number;
  readonly hint?: string;

  constructor(status: number, message: string, options: { readonly hint?: string; readonly cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.status = status;
    if (options.hint !== undefined) this.hint = options.hint;
  }
}

/** The controller cannot start, or what it keeps cannot be read. */
export class ControllerError extends Error {
  override readonly name = 'ControllerError';
  readonly hint?: string;

  constructor(message: string, options: { readonly hint?: string; readonly cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    if (options.hint !== undefined) this.hint = options.hint;
  }
}

/** There is no space for what was sent. */
export function diskFull(cause?: unknown): RequestError {
  return new RequestError(507, 'The disk of the controller is full, nothing was kept', {
    cause,
    hint: 'Submit it again when there is space.',
  });
}
