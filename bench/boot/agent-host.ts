/**
 * The build host with a toolchain in its own image that takes no time to bootstrap: so "to agent" is what the host does, and nothing
 * else. The monitor fetches it from its own TFTP server; no network, so that instructions repeat.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ImageDefinition } from '../../image/build-inputs.ts';
import { buildHost } from '../../image/hosts/build-host.ts';
import * as file from '../../properties/file.ts';
import { publishToolchain, TOOLCHAIN_LIST } from '../../toolchains/publish.ts';

const BOOTSTRAP = 'bootstrap.sh';
const IN_IMAGE = '/usr/share/buildos-bench';
/** Below /build/tftp. */
const SERVED = 'bench';

/** Kernel arguments of a host that has an agent. Nobody is the controller: the agent is ready before it asks. */
export const AGENT_ARGUMENTS: readonly string[] = [
  `buildos.toolchain_url=tftp://127.0.0.1/${SERVED}/${TOOLCHAIN_LIST}`,
  'buildos.controller_url=http://127.0.0.1:9',
];

/** Writes a toolchain whose bootstrap does next to nothing; the agent in it is the real one. @returns the files' names */
export async function writeInstantToolchain(folder: string): Promise<readonly string[]> {
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, BOOTSTRAP), 'mkdir -p "$1/bin" && ln -s /bin/true "$1/bin/make"\n');
  return await publishToolchain(folder, {
    version: 'instant-1',
    files: [BOOTSTRAP],
    bootstrap: {
      command: ['sh', `{files}/${BOOTSTRAP}`, '{prefix}'],
      timeLimitSeconds: 60,
      leaves: ['bin/make'],
      environment: {},
    },
    machine: { environment: {} },
  });
}

/** The build host with such a toolchain. @param folder - where it is, see {@link writeInstantToolchain} */
export function agentHost(folder: string, names: readonly string[]): ImageDefinition {
  return (inputs) => {
    const host = buildHost(inputs);
    const serve = `C /build/tftp/${SERVED} - - - - ${IN_IMAGE}\n`;
    return {
      ...host,
      name: 'build-host-with-toolchain',
      properties: [
        file.hasContent('/etc/tmpfiles.d/buildos-bench.conf', serve),
        file.directory(IN_IMAGE),
        ...host.properties,
        ...names.map((name) => file.hasFile(`${IN_IMAGE}/${name}`, file.sourceOf(join(folder, name)))),
      ],
    };
  };
}
