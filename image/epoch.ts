/** The one time that images know: no clock and no time zone of the machine that builds gets into them. */
import { shareAttributes } from '../connections/attributes.ts';
import type { Connection } from '../connections/connection.ts';

/** 2026-01-01: time of every file of an image, and "today" for what is run to make it. The build id says what is in it. */
export const EPOCH_SECONDS = 1_767_225_600;

/** What programs are told wherever they are run for an image (reproducible-builds.org/specs/source-date-epoch). */
const ENVIRONMENT: Readonly<Record<string, string>> = {
  SOURCE_DATE_EPOCH: String(EPOCH_SECONDS),
  LC_ALL: 'C.UTF-8',
  TZ: 'UTC',
};

/** The same connection, for programs that write dates: useradd, for instance, puts one into /etc/shadow. */
export function atEpoch(on: Connection): Connection {
  const epoch: Connection = {
    chain: on.chain,
    kind: on.kind,
    run: (argv, options = {}) => on.run(argv, { ...options, env: { ...ENVIRONMENT, ...options.env } }),
    readFile: (path) => on.readFile(path),
    writeFile: (path, content, options) => on.writeFile(path, content, options),
    [Symbol.asyncDispose]: () => on[Symbol.asyncDispose](),
  };
  shareAttributes(on, epoch);
  return epoch;
}
