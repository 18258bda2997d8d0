/** `buildos-buildid`: one line, the id of the published image. */
import { ManifestError } from './manifest.ts';
import type { ParseOptions } from './manifest.ts';

/** Reads the one line. @throws {ManifestError} for anything else, for instance the page of a captive portal */
export function parseBuildId(text: string, options: ParseOptions = {}): string {
  const id = /^([A-Za-z0-9][A-Za-z0-9._+-]{0,127})\r?\n?$/.exec(text)?.[1];
  if (id === undefined) {
    throw new ManifestError(
      `one line with a build id is expected, found ${JSON.stringify(text.slice(0, 80))}`,
      { source: options.name ?? 'buildos-buildid', line: 1, column: 1 },
      { hint: 'A build id is up to 128 letters, digits, ".", "_", "+" and "-".' },
    );
  }
  return id;
}
