/** The agent that native hops start, bundled from our sources. */
import { join, relative } from 'node:path';
import { build } from 'esbuild';
import type { AgentSource } from '../connections/connection.ts';

const SOURCES = join(import.meta.dirname, '..');

/**
 * Bundles an agent when it is first asked for, once.
 *
 * @param entry - a path from the top of the sources: connections/agent-main.ts, or a module that imports native functions
 *   and then that one
 */
export function agentBundle(entry = 'connections/agent-main.ts'): AgentSource {
  let made: Promise<Uint8Array> | undefined;
  return () => (made ??= bundleAgent(entry));
}

/** The same bytes for the same sources. A module from a `data:` URL: it can have no `require`. */
async function bundleAgent(entry: string): Promise<Uint8Array> {
  const { outputFiles } = await build({
    entryPoints: [relative(SOURCES, join(SOURCES, entry))],
    absWorkingDir: SOURCES,
    bundle: true,
    write: false,
    platform: 'node',
    format: 'esm',
    target: 'node26',
    minifySyntax: true,
    minifyWhitespace: true,
    legalComments: 'none',
    logLevel: 'silent',
  });
  const [only] = outputFiles;
  if (only === undefined) throw new TypeError(`Cannot bundle "${entry}": esbuild gave nothing`);
  return only.contents;
}
