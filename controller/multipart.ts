/**
 * `multipart/form-data` (RFC 7578), read as it arrives and strictly: what the agents' clients send, nothing more.
 *
 * ```
 * --boundary CRLF
 * Content-Disposition: form-data; name="session" CRLF
 * CRLF
 * <bytes> CRLF
 * --boundary-- [CRLF]
 * ```
 *
 * Left out: preambles, transfer encodings, `filename*`, nested parts. Pure: bytes in, events out.
 */

/** The body is not multipart/form-data as we read it. */
export class MultipartError extends Error {
  override readonly name = 'MultipartError';
}

/** What was found; the data of a part may come in several events, and is not copied. */
export type PartEvent =
  | { readonly kind: 'part'; readonly name: string; readonly filename?: string }
  | { readonly kind: 'data'; readonly bytes: Uint8Array }
  | { readonly kind: 'part-end' }
  | { readonly kind: 'end' };

/** The headers of one part may be this long, in bytes. */
const MAX_HEADER_BYTES = 8192;
/** A body may have this many parts. */
const MAX_PARTS = 32;

/**
 * The boundary in a Content-Type.
 *
 * @throws {MultipartError} when this is not multipart/form-data with a boundary (1 to 70 characters, RFC 2046 §5.1.1)
 */
export function parseBoundary(contentType: string): string {
  const match = /^multipart\/form-data\s*;(?:.*;)?\s*boundary=(?:"([^"\\]+)"|([^\s;"]+))\s*(?:;|$)/i.exec(contentType);
  const boundary = match?.[1] ?? match?.[2];
  if (boundary === undefined || !/^[\w'()+,./:=? -]{0,69}[\w'()+,./:=?-]$/.test(boundary)) {
    throw new MultipartError(`multipart/form-data with a boundary is expected, found ${JSON.stringify(contentType)}`);
  }
  return boundary;
}

/** Reads one body. */
export class MultipartReader {
  readonly #delimiter: Buffer;
  #state: 'delimiter' | 'headers' | 'data' | 'done' = 'delimiter';
  /** Bytes not yet understood; begins as if a CRLF stood before the first delimiter. */
  #rest: Buffer = Buffer.from('\r\n');
  #parts = 0;

  /** @param boundary - as {@link parseBoundary} gave it */
  constructor(boundary: string) {
    this.#delimiter = Buffer.from(`\r\n--${boundary}`, 'latin1');
  }

  /**
   * Takes the next bytes.
   *
   * @throws {MultipartError} once the body cannot be right any more
   */
  *push(chunk: Uint8Array): Generator<PartEvent> {
    this.#rest = this.#rest.length === 0 ? Buffer.from(chunk) : Buffer.concat([this.#rest, chunk]);
    for (;;) {
      const before = this.#rest.length;
      const state = this.#state;
      yield* this.#step();
      if (this.#rest.length === before && this.#state === state) return;
    }
  }

  /** The body is over. @throws {MultipartError} when something is missing */
  end(): void {
    if (this.#state !== 'done') {
      throw new MultipartError(
        `the body ends too early, ${this.#state === 'data' ? 'within a part' : 'between parts'}`,
      );
    }
  }

  *#step(): Generator<PartEvent> {
    switch (this.#state) {
      case 'delimiter':
        yield* this.#readDelimiter();
        return;
      case 'headers':
        yield* this.#readHeaders();
        return;
      case 'data':
        yield* this.#readData();
        return;
      case 'done':
        // At most one CRLF may follow; an epilogue would be ignored by the RFC, but none of our clients sends one.
        if (!'\r\n'.startsWith(this.#rest.toString('latin1'))) {
          throw new MultipartError('something follows the last boundary');
        }
    }
  }

  *#readDelimiter(): Generator<PartEvent> {
    const needed = this.#delimiter.length + 2;
    const known = Math.min(this.#rest.length, this.#delimiter.length);
    if (!this.#rest.subarray(0, known).equals(this.#delimiter.subarray(0, known))) {
      throw new MultipartError('a boundary is expected');
    }
    if (this.#rest.length < needed) return;
    const end = this.#rest.toString('latin1', this.#delimiter.length, needed);
    this.#rest = this.#rest.subarray(needed);
    if (end === '--') {
      this.#state = 'done';
      yield { kind: 'end' };
    } else if (end === '\r\n') {
      this.#parts += 1;
      if (this.#parts > MAX_PARTS) throw new MultipartError(`there are more than ${MAX_PARTS} parts`);
      this.#state = 'headers';
    } else {
      throw new MultipartError('a line end is expected after the boundary');
    }
  }

  *#readHeaders(): Generator<PartEvent> {
    const end = this.#rest.indexOf('\r\n\r\n');
    if (end > MAX_HEADER_BYTES || (end === -1 && this.#rest.length > MAX_HEADER_BYTES + 3)) {
      throw new MultipartError(`the headers of a part are longer than ${MAX_HEADER_BYTES} bytes`);
    }
    if (end === -1) return;
    const disposition = parseDisposition(this.#rest.toString('utf8', 0, end));
    this.#rest = this.#rest.subarray(end + 4);
    this.#state = 'data';
    yield { kind: 'part', ...disposition };
  }

  *#readData(): Generator<PartEvent> {
    const end = this.#rest.indexOf(this.#delimiter);
    // Without a delimiter all but what may be its beginning is data.
    const length = end === -1 ? Math.max(0, this.#rest.length - this.#delimiter.length + 1) : end;
    if (length > 0) yield { kind: 'data', bytes: this.#rest.subarray(0, length) };
    this.#rest = this.#rest.subarray(length);
    if (end !== -1) {
      this.#state = 'delimiter';
      yield { kind: 'part-end' };
    }
  }
}

function parseDisposition(headers: string): { readonly name: string; readonly filename?: string } {
  const value = headers
    .split('\r\n')
    .map((line) => /^content-disposition:\s*form-data\s*;\s*(.*)$/i.exec(line)?.[1])
    .find((found) => found !== undefined);
  const name = findParameter(value ?? '', 'name');
  if (name === undefined) throw new MultipartError('a part has no "Content-Disposition: form-data; name=…"');
  const filename = findParameter(value ?? '', 'filename');
  return filename === undefined ? { name } : { name, filename };
}

function findParameter(disposition: string, name: string): string | undefined {
  const match = new RegExp(`(?:^|;)\\s*${name}=(?:"((?:[^"\\\\]|\\\\.)*)"|([^\\s;"]+))`, 'i').exec(disposition);
  return match?.[1]?.replaceAll(/\\(.)/g, '$1') ?? match?.[2];
}
