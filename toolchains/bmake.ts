/** The toolchain that we ship: bmake, bootstrapped on each host from Debian's source archive. */
import { copyFile, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { MinisignSecretKey } from '../manifests/minisign.ts';
import { type ToolchainToPublish, publishToolchain } from './publish.ts';

/** Its source in Debian's archive. */
export const BMAKE = { name: 'bmake', version: '20200710', suite: 'trixie' } as const;

const BOOTSTRAP = 'bootstrap.sh';

/**
 * Publishes the toolchain.
 *
 * @param folder - where; made when absent
 * @param source - the source archive
 * @param signWith - signs the list
 * @returns the files' names
 */
export async function publishBmake(
  folder: string,
  source: string,
  signWith?: MinisignSecretKey,
): Promise<readonly string[]> {
  const archive = `${BMAKE.name}_${BMAKE.version}.orig.tar.gz`;
  await mkdir(folder, { recursive: true });
  await copyFile(source, join(folder, archive));
  await copyFile(join(import.meta.dirname, 'bmake-bootstrap.sh'), join(folder, BOOTSTRAP));
  const toolchain: ToolchainToPublish = {
    version: `${BMAKE.name}-${BMAKE.version}`,
    files: [BOOTSTRAP, archive],
    bootstrap: {
      command: ['sh', `{files}/${BOOTSTRAP}`, '{files}', '{prefix}'],
      timeLimitSeconds: 900,
      leaves: ['bin/bmake'],
      environment: {},
    },
    machine: { environment: { MAKE: '{prefix}/bin/bmake' } },
  };
  return await publishToolchain(folder, toolchain, signWith);
}
