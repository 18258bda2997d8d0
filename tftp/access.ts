/** What a server may read and write, as it asks for it. */
import type { Sink } from './sink.ts';

/** A request for a file to be written, checked as far as the protocol goes. */
export interface WriteRequest {
  readonly name: string;
  /** the size announced, on the wire */
  readonly tsize: number | undefined;
  /** private option: where in the file the bytes go */
  readonly offset: number | undefined;
}

/** A place for an upload. */
export interface WritePlace {
  readonly sink: Sink;
  /** most bytes it takes */
  readonly bytesMax: number;
  /** whether the option `offset` is granted */
  readonly offset: boolean;
  /** called after the file was put in place */
  readonly onWritten?: (bytes: number) => void;
}

/** What may be read and written. Both throw `RefusedError`, whose code and message are sent. */
export interface Access {
  /** opens a regular file; the descriptor is taken over */
  openRead(name: string): number;
  /** absent: nothing may be written */
  openWrite?(request: WriteRequest): WritePlace;
}
